"""References to jobs, and how a job can end: with a result, or with one of these errors.

A job whose image crashes every process that decodes it is abandoned after several processes have ended. Otherwise the
next process would adopt it and crash as well, together with all other jobs. The outcome of its attempts stays unknown,
so that a repeated call may still search for them.
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
    """This process accepts no new jobs."""


class JobPending(Exception):
    """The job did not finish in time and is still running. `attempts` is what is known so far."""

    def __init__(self, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__("the job is still running")
        self.attempts = tuple(attempts)


class ResultExpired(Exception):
    """The job has completed, but its images have been deleted since; or they were never `kept`, because the store was
    unavailable, and only the client that created the job received them."""

    def __init__(self, *, kept: bool = True) -> None:
        super().__init__("the images are not available")
        self.kept = kept


class NotCancellable(Exception):
    """The providers that run the job cannot cancel it: it continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRef:
    """The job of a call: a new one, or one that it `joined` because it repeats an earlier call."""

    id: str
    created: float
    joined: bool
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectPolicy:
    """What happens to a job when its client disconnects, by the model's id: `finish` or `cancel`.

    A repeated call triggers another search for attempts whose outcome is unknown if the job ended at least
    `search_again_s` seconds ago; else it gets the known result at once. A search delays the response.
    """

    on_disconnect: Mapping[str, str]
    search_again_s: float = 60.0


NOTHING_BOUGHT = (LedgerDown, JobInterrupted, QuotaExceeded)
"""The errors of a job that was never sent to a provider."""


def error_to_json(error: LedgerDown | JobInterrupted | QuotaExceeded) -> Json:
    """One of these as JSON, for the ledger."""
    if isinstance(error, QuotaExceeded):
        kind = "at_capacity" if isinstance(error, ConcurrencyExceeded) else "over_budget"
        return {"kind": kind, "billed": False, "message": str(error)}
    return {"kind": "interrupted" if isinstance(error, JobInterrupted) else "unrecorded", "billed": False}


def error_of(row: JobRow, told: Sequence[Attempt]) -> Exception:
    """The exception of a failed job."""
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
"""How many processes may end while working on a job before it is abandoned."""


async def give_up(attempts: Sequence[AttemptRow], recorder: Recorder) -> JobResult:
    """Abandon a job after MOST_KILLS processes. Raises AllFailed, or JobInterrupted if nothing was bought."""
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
    """The provider and model of the images. `degraded`: the route does less than the model's name promises."""

    provider: str
    model: str
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """The result of a job: the images in order, the provider of the last one, and every attempt."""

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
