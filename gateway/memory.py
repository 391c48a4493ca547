"""Memory that was used for a body or a picture goes back to the system when it is freed."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 1 << 20


def return_what_is_freed() -> None:
    """Let the C library take each block of a megabyte and more from the system on its own, and give it back at once.

    glibc begins so, at 128 KiB; but with each large block that is freed it moves its threshold, up to 32 MiB, and what
    is smaller then stays with the process, in pieces: 100 MiB and more after a few refused pictures. Nothing is done
    elsewhere, as nothing is needed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
