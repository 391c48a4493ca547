"""The job manager: starts, joins, awaits and cancels jobs. A job outlives the HTTP handler that started it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from gateway.auth.keys import ConcurrencyExceeded, QuotaExceeded
from gateway.jobs import running
from gateway.jobs.context import Address, LedgerRecorder, WebhookSignals
from gateway.jobs.errors import (
    MOST_KILLS,
    NOTHING_BOUGHT,
    DisconnectPolicy,
    JobPending,
    JobRef,
    JobResult,
    NotCancellable,
    ShuttingDown,
    error_to_json,
    give_up,
)
from gateway.jobs.executor import Executor
from gateway.jobs.running import LoadImage, RunningJob
from gateway.jobs.storing import stored
from gateway.ledger.records import GOING, AllFailed, Attempt, AttemptRow, JobCancelled, JobRow, JobSpec, Json
from gateway.ledger.statements import messages
from gateway.ledger.store import JobEnd, LeaseLost, Ledger, LedgerDown
from gateway.routing.selection import Candidate
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from providers.base import Provider, WebhookEvent
from providers.clock import Clock


class JobManager:
    """The jobs of this process, and access to those of other processes."""

    def __init__(
        self,
        executor: Executor,
        ledger: Ledger,
        *,
        rules: DisconnectPolicy,
        signals: WebhookSignals | None = None,
        address: Address = lambda provider, attempt: None,
    ) -> None:
        self.ledger = ledger
        self.signals = signals or WebhookSignals()
        self.leaving = asyncio.Event()
        """Set once no new jobs are accepted."""
        self.shutting_down = asyncio.Event()
        """Set once handlers have to stop waiting for jobs: the process ends."""
        self._executor = executor
        self._rules = rules
        self._address = address
        self._live: dict[str, RunningJob] = {}
        self._forgetting: set[asyncio.Future[None]] = set()

    @property
    def clock(self) -> Clock:
        """The clock of everything that waits for a job."""
        return self._executor.clock

    @property
    def providers(self) -> Mapping[str, Provider]:
        return self._executor.calls.providers

    async def place(self, order: JobSpec, candidates: Sequence[Candidate], *, retry: int = 0) -> JobRef:
        """Start a job, or join the one that this call repeats.

        `retry` is the SDK's retry count, 0 for a first call. Raises ShuttingDown, LedgerDown and IdempotencyKeyReused:
        then nothing was started.
        """
        if self.leaving.is_set():
            raise ShuttingDown
        found: JobRow | None = None
        if order.idempotency_key is None and retry > 0:
            found = await self._match(order, retry)
        if found is None and (order.idempotency_key is not None or order.mode == "background"):
            # Other jobs are recorded together with their first submit.
            found = await self.ledger.accept(order)
        if found is not None:
            return await self._join(order, found)
        deadline = self.clock.now() + max(0.0, running.left_of(order))
        job = self._begin(order, lambda recorder: self._executor.run(order.id, candidates, deadline, recorder))
        job.callers += order.mode != "background"
        return JobRef(id=order.id, created=order.created_at, joined=False, model=order.model)

    async def repeated(self, order: JobSpec, retry: int) -> JobRef | None:
        """The job that a call repeats, else None. Starts nothing. Raises the errors of `place`."""
        found: JobRow | None = None
        if order.idempotency_key is not None:
            found = await self.ledger.lookup(order)
        elif retry > 0:
            found = await self._match(order, retry)
        return None if found is None else await self._join(order, found)

    async def _join(self, order: JobSpec, found: JobRow) -> JobRef:
        metrics.JOINED.labels("retry" if order.idempotency_key is None else "key").inc()
        if found.wants_more and time.time() - (found.ended_at or 0) >= self._rules.search_again_s:
            await self.reconcile(found.order.id)
        if (live := self._live.get(found.order.id)) is not None:
            live.callers += order.mode != "background"
        return JobRef(id=found.order.id, created=found.order.created_at, joined=True, model=found.order.model)

    async def _match(self, order: JobSpec, retry: int) -> JobRow | None:
        """The job that a repeated call joins; None once the clients of all equal jobs are known to be alive."""
        began = self.clock.now()
        beats = await self.ledger.processes.beats()
        while True:
            matches = await self.ledger.match(order, retry)
            if matches.joined is not None or not matches.waiting:
                return matches.joined
            now = await self.ledger.processes.beats()
            others = matches.waiting - {self.ledger.process}
            waited = self.clock.now() - began
            # A process that has renewed its lease since is alive, whatever the database's clock says. One whose lease
            # has lapsed is no longer in `waiting`.
            if waited >= running.ALIVE_S and all(other in now and now[other] != beats.get(other) for other in others):
                return None
            await self.clock.sleep(running.FIRST_LOOK_S)

    def _begin(self, order: JobSpec, work: Callable[[LedgerRecorder], Coroutine[Any, Any, JobResult]]) -> RunningJob:
        job = RunningJob(order=order)
        job.recorder = LedgerRecorder(
            self.ledger,
            order,
            signals=self.signals,
            address=self._address,
            moved=lambda: self._moved(job),
            overdue=job.overdue.set,
            clock=self.clock,
        )
        job.task = asyncio.create_task(self._run(job, work(job.recorder)))
        self._live[order.id] = job
        metrics.JOBS.inc()
        job.task.add_done_callback(lambda task: self._ended(job, task))
        return job

    async def _run(self, job: RunningJob, work: Coroutine[Any, Any, JobResult]) -> JobResult:
        """Run a job and record its end before anything is reported to a client."""
        try:
            finished = await self._stored(job, await work)
        except AllFailed as failure:
            cost = sum(attempt.cost for attempt in failure.attempts)
            better = await self._write_end(job, "failed", cost, error=failure.to_json())
            if better is None:
                raise
            return await self.load(better)
        except JobCancelled as cancelled:
            cost = sum(attempt.cost for attempt in cancelled.attempts)
            await self._write_end(job, "cancelled", cost, error={"kind": "cancelled", "billed": cost > 0})
            raise
        except NOTHING_BOUGHT as error:
            if isinstance(error, QuotaExceeded):
                metrics.REFUSED.labels("concurrency" if isinstance(error, ConcurrencyExceeded) else "budget").inc()
            await self._write_end(job, "failed", 0, error=error_to_json(error))
            raise
        except asyncio.CancelledError:
            # The process ends. Another one resumes the job.
            if job.recorder.pending:
                self.ledger.attempts_ended(job.order, job.recorder.pending)
            self.ledger.release(job.order.id)
            raise
        await self._write_end(job, "completed", finished.cost, result=running.result_json(finished))
        return finished

    async def _stored(self, job: RunningJob, finished: JobResult) -> JobResult:
        """The result once its images are stored or delivered to a client: before that its job has not ended."""
        if not job.recorder.waiting:
            return finished
        event("job.waits_for_store", logging.ERROR, job=job.order.id)
        job.result = finished
        job.made.set()
        job.move()
        # The client of a background job fetches the result later, so only the store counts.
        handed = asyncio.Event() if job.order.mode == "background" else job.handed
        return await stored(finished, job.recorder, self._executor.keep, self.clock, handed)

    async def _write_end(
        self, job: RunningJob, state: str, cost: int, *, result: Json | None = None, error: Json | None = None
    ) -> JobRow | None:
        """Record the end of a job; return the job if another process has recorded a better end, else None."""
        tell = messages(job.order, "completed" if state == "completed" else "failed", state=state)
        end = JobEnd(state=state, cost=cost, result=result, error=error, deliveries=tell)
        try:
            better = await self.ledger.ended(job.order, job.recorder.pending, end)
            job.recorder.written = True
            return better
        except LedgerDown:
            # The write is retried in the background; the paid result is delivered meanwhile.
            event("job.end_not_written", logging.ERROR, job=job.order.id)
        except LeaseLost:
            event("job.superseded", logging.WARNING, job=job.order.id)
        except Exception:  # noqa: BLE001 - an internal error; the recovery loop sees that the job has no end
            event("job.end_crashed", logging.ERROR, job=job.order.id, exc_info=True)
        return None

    def _moved(self, job: RunningJob) -> None:
        job.move()
        if self.clock.now() - job.written_at >= running.PROGRESS_S and job.recorder.share:
            job.written_at = self.clock.now()
            share = round(job.recorder.share, 3)
            tell = messages(job.order, "progress", state="in_progress", progress=share)
            self.ledger.progressed(job.order.id, share, tell)

    def _ended(self, job: RunningJob, task: asyncio.Task[JobResult]) -> None:
        self._live.pop(job.order.id, None)
        metrics.JOBS.dec()
        job.move()
        job.recorder.close()
        if job.recorder.came and job.recorder.written:
            self._forgetting.add(asyncio.ensure_future(self._forget(job.recorder.came)))
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not warn about a job that nothing awaits

    async def _forget(self, attempts: Iterable[str]) -> None:
        """Delete the stored provider results of a job whose end is written."""
        try:
            await self._executor.received.forget(attempts)
        finally:
            self._forgetting.discard(asyncio.current_task())

    @property
    def count(self) -> int:
        """How many jobs are running in this process."""
        return len(self._live)

    @property
    def of_keys(self) -> Mapping[str, int]:
        """How many jobs of each API key are running in this process, by the keys' ids."""
        return Counter(job.order.key for job in self._live.values())

    def when_over(self, id: str, call: Callable[[], None]) -> None:  # noqa: A002 - a job's id
        """Run `call` once this process no longer has the job: at once if it has none."""
        if (job := self._live.get(id)) is None:
            call()
        else:
            job.task.add_done_callback(lambda task: call())

    def active(self) -> list[RunningJob]:
        """The running jobs of this process."""
        return list(self._live.values())

    def stop(self, id: str) -> None:  # noqa: A002 - a job's id
        """Cancel a job of this process if its providers can cancel."""
        if (job := self._live.get(id)) is not None and self._may_cancel(job.recorder.active.values()):
            job.cancel()

    def live(self, job: str) -> RunningJob | None:
        """A running job of this process, else None."""
        return self._live.get(job)

    async def wait(self, id: str, until: float) -> JobResult:  # noqa: A002 - a job's id
        """Wait for a job's result, whichever process runs it. Cancelling the wait does not cancel the job.

        `until` is a reading of `clock`. Raises the job's error (AllFailed, JobCancelled, JobInterrupted, LedgerDown,
        QuotaExceeded), JobPending at `until`, ResultExpired, StorageError, and FileDamaged.
        """
        pause = running.FIRST_LOOK_S
        while True:
            if (job := self._live.get(id)) is not None:
                await running.first_of(job.task, (job.overdue, job.made), until - self.clock.now())
                if not job.task.done() and job.result is not None:
                    return job.result
                if not job.task.done():
                    raise JobPending(await self._so_far(id))
                if not job.task.cancelled() and not isinstance(job.task.exception(), LeaseLost):
                    return job.task.result()
            # While the ledger is unavailable the job's state is unknown: something may have been bought.
            row: JobRow | None = None
            with contextlib.suppress(LedgerDown):
                row = await self.ledger.read(id)
            if row is not None and row.ended:
                return await self.load(row)
            if self.clock.now() >= until:
                raise JobPending(await self._so_far(id))
            await self.clock.sleep(min(pause, max(0.0, until - self.clock.now())))
            pause = min(running.LAST_LOOK_S, 2 * pause)

    async def _so_far(self, id: str) -> list[Attempt]:  # noqa: A002 - a job's id
        """The attempts of a running job; running ones are reported as unfinished."""
        job = self._live.get(id)
        pending = {attempt.id: attempt for attempt in job.recorder.pending} if job else {}
        try:
            found = [pending.get(attempt.id, attempt) for attempt in await self.ledger.attempts(id)]
        except LedgerDown:
            return []
        made = job.recorder.made if job else set()
        return [running.unfinished(one, made).told() if one.state in GOING else one.told() for one in found]

    async def ended(self, id: str, until: float) -> None:  # noqa: A002 - a job's id
        """Wait until a job has ended, or until `until`. Raises LedgerDown."""
        pause = running.FIRST_LOOK_S
        while (left := until - self.clock.now()) > 0:
            if (job := self._live.get(id)) is not None:
                await asyncio.wait({job.task}, timeout=left)
                continue
            row = await self.ledger.read(id)
            if row is None or row.ended:
                return
            await self.clock.sleep(min(pause, left))
            pause = min(running.LAST_LOOK_S, 2 * pause)

    async def load(self, row: JobRow, load: LoadImage | None = None) -> JobResult:
        """The result of an ended job; `load` replaces the default reader of its images.

        Raises the job's error, ResultExpired, StorageError, and FileDamaged.
        """
        attempts = tuple(attempt.told() for attempt in await self.ledger.attempts(row.order.id))
        return await running.loaded(row, attempts, load or self._executor.load)

    def leave(self, job_ref: JobRef, *, delivered: bool) -> None:
        """Record that a client of this job has left, after the whole response was `delivered` or before."""
        job = self._live.get(job_ref.id)
        if job is not None:
            job.callers -= 1
            if delivered:
                job.handed.set()
        if job is None or job.callers <= 0:
            self.ledger.left(job_ref.id, delivered=delivered)
        if delivered or job is None or job.callers > 0 or job.order.mode == "background":
            return
        ends = not job.recorder.sent or self._rules.on_disconnect.get(job_ref.model) == "cancel"
        metrics.LEFT.labels("cancelled" if ends else "finishes").inc()
        if ends and not job.task.done() and self._may_cancel(job.recorder.active.values()):
            job.cancel()

    async def cancel(self, id: str, until: float) -> None:  # noqa: A002 - a job's id
        """Cancel a job, and wait until `until` for its end. Raises NotCancellable, LedgerDown."""
        job = self._live.get(id)
        if job is not None:
            active = list(job.recorder.active.values())
        else:
            active = [attempt.provider for attempt in await self.ledger.attempts(id) if attempt.ended_at is None]
        if not self._may_cancel(active):
            raise NotCancellable
        if job is None:
            await self.ledger.ask_to_cancel(id)
            await self.ended(id, until)
        else:
            job.cancel()
            await asyncio.wait({job.task}, timeout=max(0.0, until - self.clock.now()))

    def _may_cancel(self, active: Iterable[str]) -> bool:
        """Whether a cancellation can have an effect: not if none of the providers involved can cancel."""
        at = {self.providers[name] for name in active if name in self.providers}
        return not at or any(provider.cancels for provider in at)

    async def reconcile(self, id: str) -> None:  # noqa: A002 - a job's id
        """Search again for attempts of unknown outcome of an ended job. Raises LedgerDown."""
        row = await self.ledger.read(id)
        if row is not None and row.wants_more and await self.ledger.reopen(id):
            self.resume(row, await self.ledger.attempts(id))

    async def handle_webhook(self, attempt: str, webhook: WebhookEvent) -> bool:
        """Handle a provider's webhook for an attempt; false if there is no such attempt. Raises LedgerDown.

        Wakes the attempt if it runs here. An attempt whose outcome is unknown is resumed.
        """
        live = next((job for job in self._live.values() if attempt in job.recorder.active), None)
        if live is not None:
            self.signals.notify(attempt, webhook.id, ended=webhook.ended)
        row = await self.ledger.record_upstream_id(attempt, webhook.id)
        if row is None:
            return False
        if live is not None and webhook.progress is not None:
            live.recorder.progressed(row.number, webhook.progress)
        if row.state == "unknown" and not self.leaving.is_set():
            await self.reconcile(row.job)
        return True

    def resume(self, row: JobRow, attempts: Sequence[AttemptRow]) -> None:
        """Resume a job that no process works on."""
        if row.order.id in self._live:
            return
        left = running.left_of(row.order)
        if row.kills >= MOST_KILLS:
            event("job.given_up", logging.ERROR, job=row.order.id, kills=row.kills)
            job = self._begin(row.order, lambda recorder: give_up(attempts, recorder))
        else:
            job = self._begin(
                row.order, lambda recorder: self._executor.resume(attempts, row.order.wanted, left, recorder)
            )
        job.recorder.sent = bool(attempts)
        job.recorder.active = {attempt.id: attempt.provider for attempt in attempts if attempt.state != "ended"}
        job.task.add_done_callback(running.count_resumed)
