"""Jobs that end every process that takes them up: what comes of them is given up after some tries.

A picture may take its process with it, and the next process would take the job up again, for ever: and with it go the
jobs of everybody else. What was bought for it stays unknown, so that a repeated call may look for it once more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from gateway.jobs.context import Journal
from gateway.jobs.executor import Finished
from gateway.ledger.records import AllFailed, AttemptRow, Interrupted
from providers.base import Unknown

MOST_KILLS = 5
"""How many processes may end while they work on a job."""


async def give_up(attempts: Sequence[AttemptRow], journal: Journal) -> Finished:
    """End a job that has ended so many processes. Raises AllFailed, and Interrupted where nothing was bought."""
    message = f"{MOST_KILLS} processes ended while they worked on this job: it was given up"
    told = []
    for attempt in attempts:
        if attempt.state != "ended":
            attempt = replace(attempt, state="unknown", outcome="unknown", cost=attempt.estimate, message=message)
            attempt = replace(attempt, ended_at=time.time())
            journal.ended(attempt)
        told.append(attempt.told())
    if not told:
        raise Interrupted
    raise AllFailed([Unknown(message)], told)
