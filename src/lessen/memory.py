"""Large tensors that were freed are kept for the next ones, where the C library would give them back.

glibc returns every block above 32 MiB to the system when it is freed, and the next one comes page by page,
which costs a training step on long texts much of its time.
"""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's names for them, in `malloc.h`."""

LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library not to return freed memory; the process then holds what it once needed.

    For programs of our own: the command line, and training. LESSEN_KEEP_MEMORY=0 leaves things as they are.

    Returns:
        Whether it was done; elsewhere than on glibc it is not.
    """
    if os.environ.get("LESSEN_KEEP_MEMORY") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, LARGEST) for name in (TRIM_THRESHOLD, MMAP_THRESHOLD))
