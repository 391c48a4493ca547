"""Resources of the process: file handles, memory, a steady clock, background tasks.

A client uses a connection, and another file while it reads a result. Its job uses a connection to a provider, one to
the host that delivers the image, and a file being written. An accepted client must be able to receive what was paid
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
# Work that ran this long counts as healthy: its next restart pause is the shortest again.
_WELL_S = 60.0


async def tend(name: str, begin: Callable[[], Coroutine[Any, Any, None]], clock: Clock = CLOCK) -> None:
    """Run background work forever: restart it after a pause whenever it ends or fails. Ends when cancelled."""
    pause = _PAUSE_S
    while True:
        began = clock.now()
        try:
            await begin()
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) is not None and this.cancelling():
                raise
            event("background.crashed", logging.ERROR, work=name, exc_info=True)
        except Exception:  # noqa: BLE001 - jobs, webhooks and leases depend on this work
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
    """Make the C library map blocks of a megabyte or more separately and return them at once; of smaller ones it keeps
    up to 16 MiB.

    glibc adjusts its limits: with each large block freed, more memory stays with the process in fragments, 100 MiB and
    more after a few refused images. Setting one limit makes it return all other memory at every opportunity, and to
    map and clear the pages again for each body costs ten times as much as copying the body. Other C libraries do not
    need this.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


# The database, the logs, the listening socket, the embedded worker, decoders, and some to spare.
_OWN = 56
# For each client and its job.
_EACH = 5


def bounded(wanted: int, handles: int) -> int:
    """The number of clients, or of jobs, that the file handles allow, at most `wanted`."""
    return min(wanted, max(1, (handles - _OWN) // _EACH))


def mine() -> int:
    """The limit of file handles of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


# On Linux only this clock includes the time in which the machine is suspended.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def ticks() -> float:
    """Return seconds from an arbitrary origin, unaffected by steps of the wall clock."""
    return time.clock_gettime(_CLOCK)


_OFFSET = time.time() - ticks()


def ahead() -> float:
    """Return how many seconds the wall clock was set forward since the process began, 0 if it was not.

    That time has not really passed: without this, leases and files would expire with a step of the clock.
    """
    return max(0.0, time.time() - ticks() - _OFFSET)
