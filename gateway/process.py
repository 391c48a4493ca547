"""What concerns the process as a whole: its file handles, its memory, a steady clock, background tasks.

A client takes a connection, and one more file while it reads a result. Its job takes a connection to a provider, one to
the host that delivers the image, and a file that is written. Whoever is let in must be able to receive what was paid
for, so clients and jobs each have their own share of the handles.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.telemetry.logs import event
from providers.clock import CLOCK, Clock

_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# Work that has gone on for so long is begun again as if it had never failed.
_WELL_S = 60.0


async def tend(name: str, begin: Callable[[], Coroutine[Any, Any, None]], clock: Clock = CLOCK) -> None:
    """Do what `begin` gives, without end, and again after a pause where it fails. Cancelling ends it."""
    pause = _PAUSE_S
    while True:
        began = clock.now()
        try:
            await begin()
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) is not None and this.cancelling():
                raise
            event("background.crashed", logging.ERROR, work=name, exc_info=True)
        except Exception:  # noqa: BLE001 - whatever it was, jobs, webhooks and leases depend on this work
            event("background.crashed", logging.ERROR, work=name, exc_info=True)
        else:
            event("background.ended", logging.ERROR, work=name)
        if clock.now() - began >= _WELL_S:
            pause = _PAUSE_S
        await clock.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


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


# The database, the logs, the listening socket, the embedded worker, decoders, and some to spare.
_OWN = 56
# For each caller, and the job that goes on for it.
_EACH = 5


def bounded(wanted: int, handles: int) -> int:
    """How many callers, and how many jobs, there may be of those that are wanted."""
    return min(wanted, max(1, (handles - _OWN) // _EACH))


def mine() -> int:
    """How many handles this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


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
