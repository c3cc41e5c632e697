"""Dropout whose masks are cheap on a CPU.

torch draws the numbers of a mask there one by one, in one thread, and a training step waits for it.
Here one number from torch's generator, which seeds and checkpoints know, starts one of NumPy's, and sixteen
of its bits decide about each value.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

SIDES = 1 << 16
"""Values of sixteen bits."""


class Dropout(nn.Dropout):
    """`nn.Dropout`; `p` is rounded to one in 65,536 on a CPU."""

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape; in training a share `p` becomes zero and the others grow by `1 / (1 - p)`."""
        if not self.training or self.p == 0:
            return values
        if values.device.type != "cpu":
            return super().forward(values)
        return values * mask(values, self.p)


def mask(values: Tensor, share: float) -> Tensor:
    """Zero for a share of the values and `1 / (1 - share)` for the others, like `values`."""
    if values.device.type != "cpu" or share == 1:
        return torch.dropout(torch.ones_like(values), share, train=True)
    seed = int(torch.randint(2**62, ()))
    drawn = np.random.SFC64(seed).random_raw(-(-values.numel() // 4)).view(np.int16)
    numbers = torch.from_numpy(drawn)[: values.numel()].view(values.shape)
    gone = round(share * SIDES)
    stays = torch.ge(numbers, gone - SIDES // 2, out=torch.empty_like(values))
    return stays.mul_(SIDES / (SIDES - gone))
