"""The failover loop. What an error means for the next route is defined by its class, never here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar, cast

from gateway.auth.keys import QuotaExceeded
from gateway.imaging.pool import ImagePool
from gateway.jobs.attempts import AttemptCancelled, AttemptRunner, Use, without_frames
from gateway.jobs.context import Recorder
from gateway.jobs.errors import JobResult, ServedBy
from gateway.jobs.postprocess import ProcessedImage, make
from gateway.jobs.received import Received
from gateway.ledger.records import (
    AllFailed,
    Attempt,
    AttemptRow,
    JobCancelled,
    JobInterrupted,
    Json,
    OutputSpec,
    StoredImage,
)
from gateway.ledger.store import LeaseLost, LedgerDown
from gateway.routing.breaker import Breakers
from gateway.routing.pricing import MICROS, RunStatsStore
from gateway.routing.selection import Candidate
from gateway.storage import FileDamaged, StorageError
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from normalization.parameters.schema import Route
from normalization.values import Image, Value
from providers.base import Outcome, Upstream
from providers.clock import Clock
from providers.errors import Expired, ProviderError, Undecodable, Unfetched, Unknown, Unusable
from providers.http.ids import token_hex

T = TypeVar("T")
# Delay between attempts to read an image from a store that is unavailable.
_STORE_S = 2.0


@dataclass(slots=True)
class _Progress:
    """The state of a job so far: delivered images by the number of their call, attempts, errors, notes.

    `closed` are the calls that must not be retried on another route, `unknown` those that may be billed already.
    `halt` is the reason why no further call may be started.
    """

    images: dict[int, tuple[StoredImage, ...]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    attempts: list[Attempt] = field(default_factory=list)
    causes: list[ProviderError] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    served: list[AttemptRow] = field(default_factory=list)
    cancelled: bool = False
    halt: Exception | None = None


class _Ended(Exception):
    """A call ended without a provider's error: it was cancelled or could not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Tries candidates in order and returns the images of the first that succeeds.

    `keep` stores an image and returns its file name, or None if that failed; `load` reads one by its entry in the
    ledger, returns None if the file no longer exists and raises StorageError while the store is unavailable. `received`
    keeps a provider's result until the processed images are stored. `max_duplicate` is the highest price, in
    micro-dollars, at which an image may be bought again after an unknown outcome; None: never.
    """

    calls: AttemptRunner
    imaging: ImagePool
    breakers: Breakers
    learning: RunStatsStore
    keep: Callable[[Image], Awaitable[str | None]]
    load: Callable[[Json], Awaitable[StoredImage | None]]
    received: Received = field(default_factory=lambda: Received(()))
    max_duplicate: int | None = None

    @property
    def clock(self) -> Clock:
        """The clock of everything that waits for a job, including the adapters."""
        return self.calls.clock

    async def run(self, job: str, candidates: Sequence[Candidate], deadline: float, recorder: Recorder) -> JobResult:
        """Try route after route until every image exists. Only missing images are requested from the next route.

        `deadline` is a reading of `clock`. Raises AllFailed if no image was generated, JobCancelled if the job was
        cancelled before, LedgerDown if nothing could be recorded and so nothing was bought, QuotaExceeded if the API
        key's limits do not allow it.
        """
        progress = _Progress()
        if len(candidates[0].plan.calls) > 1:
            metrics.EMULATIONS.labels("fan_out").inc()
        for candidate in candidates:
            calls = len(candidate.plan.calls)
            if progress.attempts and calls != len(candidates[0].plan.calls):
                continue  # its calls do not correspond to the missing ones
            missing = [i for i in range(calls) if i not in progress.images and i not in progress.closed]
            late = progress.attempts and self.clock.now() >= deadline
            if not missing or progress.halt or progress.cancelled or late:
                break
            if rebuys := sum(i in progress.unknown for i in missing):
                metrics.DUPLICATES.labels(candidate.route.provider).inc(rebuys)
            work = (self._picture(job, candidate, i, deadline, progress, recorder) for i in missing)
            await _all(work, progress)
        plan = candidates[0].plan
        return _finished(progress, len(plan.calls) * plan.pictures_per_call)

    async def resume(self, attempts: Sequence[AttemptRow], wanted: int, left: float, recorder: Recorder) -> JobResult:
        """Resume a job with these known attempts, in order; nothing new is bought.

        `left` is the time to the job's deadline in seconds. Raises the errors of `run`.
        """
        progress = _Progress()
        for attempt in attempts:
            if attempt.state == "ended":
                await self._remember(attempt, progress)
        active = (
            self._resume_attempt(attempt, left, progress, recorder) for attempt in attempts if attempt.state != "ended"
        )
        await _all(active, progress)
        if not progress.attempts:
            raise JobInterrupted
        return _finished(progress, wanted)

    async def _remember(self, attempt: AttemptRow, progress: _Progress) -> None:
        """Add an attempt that had ended before to `progress`."""
        progress.attempts.append(attempt.told())
        images = tuple([image for kept in attempt.files if (image := await self._loaded(kept)) is not None])
        if images:
            progress.images[attempt.number] = images
            progress.served.append(attempt)
        elif attempt.outcome != "ok":
            progress.causes.append(attempt.cause())
        else:
            progress.causes.append(Undecodable("the image was generated, but its file is missing or damaged"))

    async def _loaded(self, kept: Json) -> StoredImage | None:
        """Read a stored image. While the store is unavailable, wait: the image is paid for."""
        while True:
            try:
                return await self.load(kept)
            except StorageError:
                await self.clock.sleep(_STORE_S)
            except FileDamaged:
                return None

    def _goes_on(self, error: ProviderError, candidate: Candidate) -> bool:
        """The class decides; after an unknown outcome a call is repeated only up to the operator's price limit."""
        share = candidate.cost.micros // len(candidate.plan.calls)
        rebuys = isinstance(error, Unknown) and self.max_duplicate is not None and share <= self.max_duplicate
        return error.next_route or rebuys

    async def _picture(
        self,
        job: str,
        candidate: Candidate,
        number: int,
        deadline: float,
        progress: _Progress,
        recorder: Recorder,
    ) -> None:
        """Make one call, from its submit to the processed image, and add its outcome to `progress`."""
        route, plan = candidate.route, candidate.plan
        attempt = _attempt(job, candidate, number)
        began = self.clock.now()
        try:
            with self.breakers.attempt(candidate.model, route.name, route.provider):

                async def making(use: Use) -> None:
                    await self.calls.make(attempt, plan.calls[number], deadline, recorder, use)

                outcome = await self._settled(making, attempt, progress, recorder)
        except ProviderError as error:
            if isinstance(error, Unknown):
                progress.unknown.add(number)
            if not self._goes_on(error, candidate):
                progress.closed.add(number)
            return
        except _Ended:
            return
        metrics.ATTEMPT_SECONDS.labels(route.provider, route.name).observe(self.clock.now() - began)
        self.learning.learn(
            candidate.model,
            route.name,
            latency=self.clock.now() - began,
            observed=outcome.seconds,
            expected=candidate.cost.seconds,
        )

    async def _resume_attempt(self, attempt: AttemptRow, left: float, progress: _Progress, recorder: Recorder) -> None:
        with contextlib.suppress(ProviderError, _Ended):
            await self._settled(partial(self._again, attempt, left, recorder), attempt, progress, recorder)

    async def _again(self, attempt: AttemptRow, left: float, recorder: Recorder, use: Use) -> None:
        """Use an attempt's stored result if there is one, else ask its provider."""
        kept = await self.received.found(attempt.id, self.clock)
        if kept is None:
            await self.calls.resume(attempt, left, recorder, use)
            return
        recorder.received(attempt.id)
        await use(kept)

    async def _settled(
        self, work: Callable[[Use], Awaitable[None]], attempt: AttemptRow, progress: _Progress, recorder: Recorder
    ) -> Outcome:
        """Wait for a call, process and store its images, and record its outcome. The returned outcome does not hold the
        unprocessed images.

        Raises the error of the call, and _Ended if it was cancelled or could not start.
        """
        outcome: Outcome | None = None
        made = ProcessedImage()
        error: ProviderError | None = None
        cancelled = False

        async def use(came: Outcome) -> None:
            nonlocal outcome, made
            # Drop the unprocessed images: an error keeps this frame, and so their memory, for a while.
            outcome = replace(came, images=())
            made = await unbroken(make(came, attempt, recorder, self.imaging, self.received, self.keep))

        try:
            await work(use)
        except ProviderError as exc:
            error = exc
        except AttemptCancelled as exc:
            error, cancelled, progress.cancelled = exc.error, True, True
        except (LedgerDown, LeaseLost, QuotaExceeded) as exc:
            # Nothing was sent, so there is no attempt to record, and no further call may start.
            progress.halt = exc
            raise _Ended from exc
        except Exception:  # noqa: BLE001 - an internal error: what was bought is unknown, so nothing more is bought
            event("attempt.crashed", logging.ERROR, provider=attempt.provider, route=attempt.route, exc_info=True)
            error = Unknown("an internal error occurred in the gateway")
        if error is not None:
            without_frames(error)
        ended = _ended(attempt, outcome, error, made, cancelled=cancelled)
        self._record(ended, error, progress)
        if all(image.file for image in made.images):
            recorder.ended(ended)
        else:
            recorder.unkept(ended, made.images)
        if made.images and outcome is not None:
            progress.images[attempt.number] = made.images
            progress.served.append(ended)
            return outcome
        if error is None or cancelled:
            raise _Ended
        progress.causes.append(error)
        raise error

    def _record(self, ended: AttemptRow, error: ProviderError | None, progress: _Progress) -> None:
        progress.attempts.append(ended.told())
        outcome = ended.outcome or ""
        metrics.ATTEMPTS.labels(ended.provider, ended.route, outcome).inc()
        metrics.COST.labels(ended.provider, ended.route).inc(ended.cost / MICROS)
        if isinstance(error, Unknown):
            metrics.UNKNOWN.labels(ended.provider).inc()
        if error is not None:
            event(
                "attempt.failed", logging.WARNING, provider=ended.provider, route=ended.route, outcome=outcome,
                seconds=ended.told().seconds, message=error.message, job=ended.job,
            )  # fmt: skip


async def unbroken(work: Awaitable[T]) -> T:
    """Wait for work that must not be interrupted: a cancellation meanwhile has no effect on it."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        event("job.cancelled_late")
    return task.result()


async def _all(work: Iterable[Coroutine[Any, Any, None]], progress: _Progress) -> None:
    """Wait for all calls, also when this is cancelled: each call handles the cancellation itself.

    Raises CancelledError if one of them was left for another process.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks, return_exceptions=True)
    except asyncio.CancelledError:
        if any(task.cancelled() for task in tasks):
            raise
        # Even if every call was too far along to be cancelled, nothing more may be bought.
        progress.cancelled = True
        this = asyncio.current_task()
        assert this is not None
        this.uncancel()


def _finished(progress: _Progress, wanted: int) -> JobResult:
    if not progress.served:
        if progress.cancelled:
            raise JobCancelled(progress.attempts)
        # The errors of other calls matter more than a call that could not start: something may have been bought.
        if isinstance(progress.halt, LeaseLost) or (progress.halt is not None and not progress.causes):
            raise progress.halt
        raise AllFailed(progress.causes, progress.attempts)
    last = progress.served[-1]
    told = [note for attempt in progress.served for note in (*attempt.making.notes, *attempt.notes)]
    return JobResult(
        images=tuple(image for i in sorted(progress.images) for image in progress.images[i]),
        served=ServedBy(provider=last.provider, model=last.model or last.route, degraded=last.making.degraded),
        attempts=tuple(progress.attempts),
        notes=tuple(dict.fromkeys(told)),
        wanted=wanted,
    )


def _attempt(job: str, candidate: Candidate, number: int) -> AttemptRow:
    route, plan = candidate.route, candidate.plan
    return AttemptRow(
        id=f"dr-{token_hex(12)}",
        job=job,
        number=number,
        provider=route.provider,
        route=route.name,
        model=route.model,
        upstream=upstream(route),
        making=OutputSpec(
            output=plan.output,
            finish=plan.finish,
            pictures_per_call=plan.pictures_per_call,
            notes=plan.notes,
            degraded=route.degraded is not None,
            seed=plan.seeds[number] if plan.seeds else None,
        ),
        state="submitting",
        estimate=candidate.cost.micros // len(plan.calls),
        reserve=candidate.cost.most // len(plan.calls),
        sent_at=time.time(),
    )


def _ended(
    attempt: AttemptRow, outcome: Outcome | None, error: ProviderError | None, made: ProcessedImage, *, cancelled: bool
) -> AttemptRow:
    actual = outcome.cost if outcome is not None else error.cost if error is not None else 0 if cancelled else None
    # What may have been billed counts as billed until the provider reports otherwise.
    spent = error is None or error.billed is True or isinstance(error, (Unknown, Expired))
    if cancelled and error is not None:
        spent = error.billed is not False
    # Its images may still be downloaded later, as a lost job may still be found.
    unknown = isinstance(error, (Unknown, Unfetched))
    name = "cancelled" if cancelled and not unknown else type(error).__name__.lower() if error is not None else "ok"
    return replace(
        attempt,
        model=(outcome.executed if outcome else "") or attempt.model,
        state="unknown" if unknown else "ended",
        outcome=name,
        cost=actual if actual is not None else attempt.estimate if spent else 0,
        actual=actual is not None,
        ended_at=time.time(),
        message=_told(error) if error else None,
        notes=made.notes,
        files=tuple(image.to_json() for image in made.images),
    )


def upstream(route: Route) -> Upstream:
    """The part of a route that its adapter needs."""
    return Upstream(model=route.model, options=cast("dict[str, Value]", dict(route.options)))


def _told(error: ProviderError) -> str:
    """The message for clients: only the log has the provider's wording and problems with the gateway's account."""
    return (
        "the provider does not accept the gateway's API key or account" if isinstance(error, Unusable) else error.told
    )
