"""How does one training step's memory serve the next, instead of going back to the system and being asked for again?"""

from __future__ import annotations

import ctypes
import os

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT = 2**31 - 1  # bytes: the most that mallopt takes


def keep_freed_memory() -> bool:
    """Tells the C library to keep memory that tensors on the processor free; returns whether it was told.

    By default glibc hands large blocks back to the system at once, so that each step's feature maps are mapped, zeroed and faulted
    in anew, page by page: about an eighth of a training step. The process then stays as large as it was at its largest. Nothing is
    changed where another allocator than glibc's is at work or where the user has set one of its `MALLOC_…` variables.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, 2**26))
    return [mallopt(option, value) for option, value in options] == [1] * len(options)
