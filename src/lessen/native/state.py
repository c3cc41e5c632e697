"""Whether a tensor is still what something was made of."""

from torch import Tensor


def state_of(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor lies, and how often it was seen to be written to, as far as it tells.

    A tensor made in inference mode does not: of it only the place is known.
    """
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
