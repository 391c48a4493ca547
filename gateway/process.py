"""Work beside the requests that goes on for as long as the process does: it is begun again whenever it breaks off."""

from __future__ import annotations

import asyncio
import logging
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
