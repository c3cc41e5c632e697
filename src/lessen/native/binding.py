"""The compiled library found, declared to ctypes, and checked against its reference."""

from __future__ import annotations

import ctypes
import os
import sysconfig
from pathlib import Path

from lessen.errors import LessenError
from lessen.native.matrix import LOW_BITS

ABI = 13
NAMES = ("liblessen.so", "liblessen.dylib")

SWITCH = "LESSEN_DISABLE_NATIVE"
"""Set to 1, torch computes instead of the kernels."""

TOLERANCE = 1e-6
"""What the self-check may differ by, per product summed."""


def opened() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or None and why, in a few words."""
    if switched_off():
        return None, f"switched off by {SWITCH}={os.environ[SWITCH]}"
    place = _place()
    if place is None:
        return None, "not built: install lessen where a C++ compiler is"
    try:
        library = ctypes.CDLL(str(place))
        if library.lessen_abi() != ABI:  # its functions may be others
            return None, f"{place} is of another version: install lessen again"
        library = _declared(library)
    except (OSError, AttributeError) as error:
        return None, f"{place} cannot be loaded: {error}"
    wanted = os.environ.get("LESSEN_ISA")
    if wanted and library.lessen_use_isa(wanted.encode()):
        return None, f"LESSEN_ISA={wanted}: not on this processor"
    library.lessen_use_fork(_fork())
    if not library.lessen_self_check(0) <= TOLERANCE:
        return None, f"{place} computes wrong results on this processor"
    return library, None


def switched_off() -> bool:
    """Whether the user wants torch to compute: the switch is set, and not to what means no."""
    return os.environ.get(SWITCH, "").strip().lower() not in ("", "0", "false", "no", "off")


def _place() -> Path | None:
    """Beside this file; of an editable install it lies where packages are, alone: else it is another's."""
    installed = Path(sysconfig.get_path("platlib")) / "lessen"
    folders = [Path(__file__).parent]
    if not (installed / "__init__.py").exists():
        folders.append(installed / "native")
    places = (folder / name for folder in folders for name in NAMES)
    return next((place for place in places if place.exists()), None)


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.lessen_isa.restype = ctypes.c_char_p
    library.lessen_use_isa.argtypes = [ctypes.c_char_p]
    library.lessen_use_fork.argtypes = [ctypes.c_void_p]
    library.lessen_use_fork.restype = None
    library.lessen_self_check.argtypes = [ctypes.c_int]
    library.lessen_self_check.restype = ctypes.c_float
    library.lessen_arrange_signs.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2
    library.lessen_arrange_signs.restype = None
    for kind in ("whole", "fours"):
        size = getattr(library, f"lessen_{kind}_bytes")
        size.argtypes, size.restype = [ctypes.c_int64] * 2, ctypes.c_int64
        arrange = getattr(library, f"lessen_arrange_{kind}")
        arrange.argtypes, arrange.restype = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2, None
    for kind in LOW_BITS:
        product = getattr(library, f"lessen_linear_{kind}")
        product.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 3 + [ctypes.c_int]
        product.restype = _done
    for product in (library.lessen_linear_f32, library.lessen_linear_bf16, library.lessen_linear_w4a8):
        product.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3 + [ctypes.c_int]
        product.restype = _done
    library.lessen_layer_rest.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64, ctypes.c_int]
    library.lessen_layer_rest.restype = _done
    library.lessen_encoder_layers.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int64,
        *([ctypes.c_void_p] * 3),
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_int,
    ]
    library.lessen_encoder_layers.restype = _done
    library.lessen_embed.argtypes = [*([ctypes.c_void_p] * 4), ctypes.c_int64, ctypes.c_void_p, ctypes.c_int]
    library.lessen_embed.restype = _done
    library.lessen_decoder_layers.argtypes = [
        *([ctypes.c_void_p] * 2),
        ctypes.c_int64,
        *([ctypes.c_void_p] * 6),
        ctypes.c_int64,
        *([ctypes.c_int] * 2),
    ]
    library.lessen_decoder_layers.restype = _done
    library.lessen_outcomes.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64, ctypes.c_int]
    library.lessen_outcomes.restype = _done
    library.lessen_lead.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 2
    library.lessen_lead.restype = None
    library.lessen_likeliest.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2
    library.lessen_likeliest.restype = None
    library.lessen_attention_f32.argtypes = [
        *([ctypes.c_void_p] * 2),
        ctypes.c_int64,
        *([ctypes.c_void_p] * 3),
        ctypes.c_int64,
        ctypes.c_int,
    ]
    library.lessen_attention_f32.restype = _done
    return library


def _done(result: int) -> None:
    """What a call that computes returned.

    Raises:
        LessenError: When it had no memory.
        IndexError: When a table has no row for a token.
    """
    if result == 2:
        raise IndexError("a token, position or segment is out of range: the table has no row for it")
    if result:
        raise LessenError("out of memory in the kernels; give fewer or shorter texts at once")


def _fork() -> ctypes.c_void_p | None:
    """OpenMP's entry point in torch's own runtime, so that both share threads; None where it has none."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except AttributeError:
        return None
