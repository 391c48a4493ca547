"""A clock that never jumps, and that counts the time in which the process was paused or the machine asleep."""

from __future__ import annotations

import time

# Linux counts the time of a suspended machine on this one alone.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def ticks() -> float:
    """Return seconds from no particular moment. A step of the wall clock does not show here."""
    return time.clock_gettime(_CLOCK)


_OFFSET = time.time() - ticks()


def ahead() -> float:
    """Return by how many seconds the wall clock was set forward since the process began; 0 where it was not.

    So much has not passed: what lapses by the wall clock would otherwise do so with a step of it.
    """
    return max(0.0, time.time() - ticks() - _OFFSET)
