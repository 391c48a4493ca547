"""References to jobs, and what a job can end with: a result, or one of these errors.

A job whose image crashes every process that decodes it is given up after some tries. Otherwise the next process would
adopt it and crash as well, with the jobs of everybody else. What was bought for such a job stays unknown, so that a
repeated call may still look for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.auth.keys import BudgetExceeded, ConcurrencyExceeded, QuotaExceeded
from gateway.jobs.context import Recorder
from gateway.ledger.records import AllFailed, Attempt, AttemptRow, JobInterrupted, JobRow, Json, StoredImage
from gateway.ledger.store import LedgerDown
from providers.errors import Unknown


class ShuttingDown(Exception):
    """This process takes no more work."""


class JobPending(Exception):
    """The job was not done in time, and goes on. `attempts` tell what is known of it so far."""

    def __init__(self, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__("the job is still running")
        self.attempts = tuple(attempts)


class ResultExpired(Exception):
    """The job is done, and its pictures have been deleted since; or never `kept`, for the store was away: then whoever
    made the job was given them."""

    def __init__(self, *, kept: bool = True) -> None:
        super().__init__("the images are not available")
        self.kept = kept


class NotCancellable(Exception):
    """The providers that have the job now cannot cancel: it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRef:
    """A job that a call has: its own, or one that it `joined` because it repeats the call that began it."""

    id: str
    created: float
    joined: bool
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectPolicy:
    """What becomes of a job whose caller leaves, by the model's id: `finish` or `cancel`.

    A repeated call makes a provider look again for what is unknown, where that was done `search_again_s` seconds ago
    or more: else it is told at once what is known. A search takes a while, and an impatient caller would hear nothing.
    """

    on_disconnect: Mapping[str, str]
    search_again_s: float = 60.0


NOTHING_BOUGHT = (LedgerDown, JobInterrupted, QuotaExceeded)
"""What a job ends with that never had a provider."""


def error_to_json(error: LedgerDown | JobInterrupted | QuotaExceeded) -> Json:
    """One of these as JSON, for the ledger."""
    if isinstance(error, QuotaExceeded):
        kind = "at_capacity" if isinstance(error, ConcurrencyExceeded) else "over_budget"
        return {"kind": kind, "billed": False, "message": str(error)}
    return {"kind": "interrupted" if isinstance(error, JobInterrupted) else "unrecorded", "billed": False}


def error_of(row: JobRow, told: Sequence[Attempt]) -> Exception:
    """What a job that failed is to raise."""
    error = row.error or {}
    match error.get("kind"):
        case "failed":
            return AllFailed.from_json(error, told)
        case "unrecorded":
            return LedgerDown("the ledger was unavailable")
        case "over_budget":
            return BudgetExceeded(error["message"])
        case "at_capacity":
            return ConcurrencyExceeded(error["message"])
        case _:
            return JobInterrupted()


MOST_KILLS = 5
"""How many processes may end while they work on a job."""


async def give_up(attempts: Sequence[AttemptRow], recorder: Recorder) -> JobResult:
    """End a job that has ended so many processes. Raises AllFailed, and JobInterrupted where nothing was bought."""
    message = f"the job was abandoned after {MOST_KILLS} processes had ended while working on it"
    told = []
    for attempt in attempts:
        if attempt.state != "ended":
            attempt = replace(attempt, state="unknown", outcome="unknown", cost=attempt.estimate, message=message)
            attempt = replace(attempt, ended_at=time.time())
            recorder.ended(attempt)
        told.append(attempt.told())
    if not told:
        raise JobInterrupted
    raise AllFailed([Unknown(message)], told)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBy:
    """Who made the pictures. `degraded` says that the route falls short of what the model's name promises."""

    provider: str
    model: str
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a job gave: the delivered pictures in order, who made the last of them, and every attempt."""

    images: tuple[StoredImage, ...] = field(repr=False)
    served: ServedBy
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...]
    wanted: int

    @property
    def cost(self) -> int:
        return sum(attempt.cost for attempt in self.attempts)

    @property
    def partial(self) -> bool:
        return len(self.images) < self.wanted
