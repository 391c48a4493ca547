"""What a call has of a job, and why it may have nothing of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.auth.grant import AtCapacity, Exceeded, OverBudget
from gateway.ledger.records import AllFailed, Attempt, Interrupted, JobRow, Json
from gateway.ledger.store import LedgerDown


class Leaving(Exception):
    """This process takes no more work."""


class StillGoing(Exception):
    """The job was not done in time, and goes on. `attempts` tell what is known of it so far."""

    def __init__(self, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__("the job goes on")
        self.attempts = tuple(attempts)


class ResultGone(Exception):
    """The job is done, and its pictures have been deleted since; or never `kept`, for the store was away: then whoever
    made the job was given them."""

    def __init__(self, *, kept: bool = True) -> None:
        super().__init__("the pictures are not there")
        self.kept = kept


class NotCancellable(Exception):
    """The providers that have the job now cannot cancel: it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A job that a call has: its own, or one that it `joined` because it repeats the call that began it."""

    id: str
    created: float
    joined: bool
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What becomes of a job whose caller leaves, by the model's id: `finish` or `cancel`.

    A repeated call makes a provider look again for what is unknown, where that was done `search_again_s` seconds ago
    or more: else it is told at once what is known. A search takes a while, and an impatient caller would hear nothing.
    """

    on_disconnect: Mapping[str, str]
    search_again_s: float = 60.0


NOTHING_BOUGHT = (LedgerDown, Interrupted, Exceeded)
"""What a job ends with that never had a provider."""


def error_to_json(error: LedgerDown | Interrupted | Exceeded) -> Json:
    """One of these as JSON, for the ledger."""
    if isinstance(error, Exceeded):
        kind = "at_capacity" if isinstance(error, AtCapacity) else "over_budget"
        return {"kind": kind, "billed": False, "message": str(error)}
    return {"kind": "interrupted" if isinstance(error, Interrupted) else "unrecorded", "billed": False}


def error_of(row: JobRow, told: Sequence[Attempt]) -> Exception:
    """What a job that failed is to raise."""
    error = row.error or {}
    match error.get("kind"):
        case "failed":
            return AllFailed.from_json(error, told)
        case "unrecorded":
            return LedgerDown("the ledger was down")
        case "over_budget":
            return OverBudget(error["message"])
        case "at_capacity":
            return AtCapacity(error["message"])
        case _:
            return Interrupted()
