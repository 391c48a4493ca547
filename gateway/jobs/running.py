"""One running job in the memory of its process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.jobs.context import LedgerRecorder
from gateway.jobs.errors import JobResult, ResultExpired, ServedBy, error_of
from gateway.ledger.records import AllFailed, Attempt, AttemptRow, JobCancelled, JobRow, JobSpec, Json, StoredImage
from gateway.telemetry import metrics
from providers.errors import Unknown

# The minimum interval between two writes of a job's progress, in seconds.
PROGRESS_S = 2.0


# How long the processes whose clients wait for equal jobs are watched until they count as alive, in seconds.
ALIVE_S = 1.0
# The first and the longest interval between polls of a job of another process, in seconds.
FIRST_LOOK_S, LAST_LOOK_S = 0.1, 1.0


LoadImage = Callable[[Json], Awaitable["StoredImage | None"]]


@dataclass(slots=True, eq=False)
class RunningJob:
    """A job that this process works on."""

    order: JobSpec
    recorder: LedgerRecorder = field(init=False)
    task: asyncio.Task[JobResult] = field(init=False)
    callers: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever the job's state changes."""
    overdue: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the deadline has passed and the job continues."""
    made: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once `result` has the images for local waiters, although they are not stored yet."""
    handed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a client has received the whole response."""
    result: JobResult | None = field(default=None, repr=False)
    written_at: float = 0.0
    cancelled: bool = False

    def move(self) -> None:
        """Wake the watchers of the job."""
        self.moved.set()
        self.moved = asyncio.Event()

    def cancel(self) -> None:
        """Cancel the job, once: a second cancel would interrupt the check of what was bought."""
        if not self.cancelled:
            self.cancelled = True
            self.task.cancel()


def left_of(order: JobSpec) -> float:
    """The time to a job's deadline in seconds, at most its original duration even if the clock was set back."""
    return min(order.deadline_at - time.time(), order.deadline_at - order.created_at)


def unfinished(attempt: AttemptRow, made: Collection[str]) -> AttemptRow:
    outcome, message = "unfinished", "it was not ready in time and is still running"
    if attempt.state == "submitting":
        message = "the provider did not confirm in time that it accepted the job; the gateway is still waiting for it"
    if attempt.succeeded or attempt.id in made:
        outcome, message = (
            "unfetched",
            "it succeeded, but its image was not downloaded in time; the gateway keeps trying",
        )
    return replace(attempt, outcome=outcome, message=message, cost=attempt.estimate, ended_at=time.time())


def result_json(finished: JobResult) -> Json:
    served = finished.served
    return {
        "pictures": [image.to_json() for image in finished.images],
        "served": {"provider": served.provider, "model": served.model, "degraded": served.degraded},
        "notes": list(finished.notes),
    }


async def first_of(task: asyncio.Task[JobResult], news: Iterable[asyncio.Event], seconds: float) -> None:
    """Wait for a job's end or for one of these events, at most `seconds`."""
    events = [asyncio.ensure_future(one.wait()) for one in news]
    try:
        wanted: set[asyncio.Future[Any]] = {task, *events}
        await asyncio.wait(wanted, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in events:
            one.cancel()


def count_resumed(task: asyncio.Task[JobResult]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    lost = isinstance(error, AllFailed) and any(isinstance(cause, Unknown) for cause in error.causes)
    metrics.RESUMED.labels("completed" if error is None else "unknown" if lost else "failed").inc()


async def loaded(row: JobRow, attempts: tuple[Attempt, ...], load: LoadImage) -> JobResult:
    """The result of an ended job; `load` reads its images.

    Raises the job's error, ResultExpired, StorageError, and FileDamaged.
    """
    if row.state == "cancelled":
        raise JobCancelled(attempts)
    if row.state == "failed":
        raise error_of(row, attempts)
    result = row.result or {}
    images = [await load(kept) for kept in result.get("pictures", ())]
    if not images or None in images:
        raise ResultExpired(kept=all(one["file"] for one in result.get("pictures", ())))
    return JobResult(
        images=tuple(image for image in images if image is not None),
        served=ServedBy(**result["served"]),
        attempts=attempts,
        notes=tuple(result["notes"]),
        wanted=row.order.wanted,
    )
