"""Memory that was used for a body or a picture: kept for the next one as long as it is little, and else given back."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 20
_KEPT_BYTES = 16 << 20


def return_what_is_freed() -> None:
    """Let the C library take each block of a megabyte and more from the system on its own, and give it back at once; of
    what is smaller it keeps up to 16 MiB at hand.

    glibc moves its own limits: with each large block that is freed more stays with the process, in pieces, 100 MiB and
    more after a few refused pictures. And once one limit is set, it gives back everything else at every turn: to get
    and clear the pages anew for each body costs ten times what copying the body does. Nothing is done elsewhere, as
    nothing is needed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
