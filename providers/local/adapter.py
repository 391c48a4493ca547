"""The local provider: the operator's own GPU workers, which speak Cog's HTTP API.

A Cog worker keeps no queue and no results: the answer to the request that submits a job is its result. So a job here
is a task of this process that holds that request open.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import httpx
from typing_extensions import override

from normalization.values import Announced, Value
from providers.base import (
    NO_CONTEXT,
    AttemptContext,
    BaseProvider,
    Handle,
    Outcome,
    PendingSubmit,
    Readiness,
    Upstream,
    UpstreamJob,
    WebhookEvent,
)
from providers.errors import Expired, Failed, ProviderError, Rejected, Unfinished, Unknown, Unreached
from providers.http.bodies import encoded_size, json_body, read_body, read_json
from providers.http.errors import NoAnswer, polling, refusal, submitting
from providers.kit.context import ProviderContext
from providers.kit.results import ResultCollector, beyond
from providers.local.pool import QueueTurn, WorkerPool
from providers.local.responses import PredictionResult, again, fetch, heard, made
from providers.local.settings import LocalSettings
from providers.local.workers import NAME, LocalWorker, WorkerState, announced, engines, fitted, readiness, states

# Old servers repeat the whole input in each webhook: for larger pictures nobody asks for any.
_WEBHOOK_INPUT_BYTES = 1_000_000


@dataclass(slots=True, eq=False)
class HeldRun:
    """A job, wherever it is."""

    job: UpstreamJob
    turn: QueueTurn
    id: str
    """Its id at the worker; another one when it is run again."""
    worker: LocalWorker | None
    """Whose slot it holds; None while it waits to be let in again."""
    webhook: str | None = None
    stopping: bool = False
    expiry: asyncio.TimerHandle | None = None
    task: asyncio.Task[PredictionResult] = field(init=False)

    @property
    def handle(self) -> Handle:
        return Handle(provider=NAME, id=self.job.id, data={"worker": self.worker.url if self.worker else ""}, held=True)

    def webhook_at(self, worker: LocalWorker) -> dict[str, Value]:
        """Return what a request to a worker says of the webhook: nothing, where that worker takes none."""
        if not self.webhook or not worker.webhooks or encoded_size(self.job.payload) > _WEBHOOK_INPUT_BYTES:
            return {}
        # Of the end, and of the output, the held answer tells.
        return {"webhook": self.webhook, "webhook_events_filter": ["start", "logs"]}


# How long the result of a job that nobody waits for is kept.
_KEEP_S = 600.0
_MOST_RUN_S = 3600.0


class _NoPlace(Exception):
    """The worker had no free place after all."""


class LocalProvider(BaseProvider):
    """The adapter for Cog workers: one queue before all of them.

    The setting `max_queue` bounds the jobs that wait; their owners take turns, and a job waits until its deadline at
    most. A worker that is STARTING longer than `start_deadline_s` is taken out of service. `cancel_timeout_s` is how
    long a worker has to end a cancelled job before its connection is closed. Images above `max_input_bytes` (as base64,
    together) are rejected, as a container would reject them; answers above `max_output_bytes` are Undecodable.

    A broken connection leaves open whether the worker goes on. Nothing is billed here, so the adapter settles that by
    itself: it cancels the job and runs it once more under a new id, and only then gives up with Failed.

    When the caller of `wait` is cancelled the job goes on: `cancel` ends it, and `wait` may be called again.

    A webhook is given to workers whose document says that they take one. It tells how much is done and nothing else:
    the result comes by the connection that the job is held in.
    """

    name = NAME
    cancels = True

    def __init__(
        self,
        settings: LocalSettings,
        context: ProviderContext,
        *,
        health_timeout_s: float = 2.0,
        cancel_timeout_s: float = 5.0,
        max_input_bytes: int = 100 * 1024 * 1024,
        max_output_bytes: int = 400 * 1024 * 1024,
    ) -> None:
        super().__init__()
        self._http = context.http
        self._cancel_timeout_s = cancel_timeout_s
        # The container's limit is on the body; a little of it is for what is not images.
        self._max_input_bytes = max_input_bytes - 64 * 1024
        self._max_output_bytes = max_output_bytes
        self._least_bytes_per_s = context.min_download_bytes_per_s
        self._clock = context.clock
        self._collector = ResultCollector(
            NAME, self._fetch, most=max_output_bytes, try_s=context.download_timeout_s, clock=self._clock
        )
        self._runs: dict[str, HeldRun] = {}
        embedded = (context.embedded_worker,) if context.embedded_worker else ()
        self._pool = WorkerPool(
            context.http,
            embedded if settings.workers == "embedded" else settings.workers,
            max_queue=settings.max_queue,
            health_interval_s=settings.health_interval_s,
            health_timeout_s=health_timeout_s,
            start_deadline_s=settings.start_deadline_s,
            clock=self._clock,
        )

    @property
    @override
    def queue_depth(self) -> int:
        """How many jobs wait for a worker."""
        return self._pool.waiting

    @property
    def in_flight(self) -> int:
        """How many jobs are at a worker."""
        return self._pool.running

    def describe(self) -> tuple[WorkerState, ...]:
        """Return how each worker is, for a readiness page."""
        return states(self._pool.workers)

    def engines(self) -> tuple[str, ...]:
        """Return the engines that live workers announce."""
        return engines(self._pool.workers)

    @override
    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        return readiness(self._pool.workers, upstream)

    @override
    def announced(self, upstream: Upstream) -> Announced:
        return announced(self._pool.workers, upstream)

    @override
    async def start(self) -> None:
        self._pool.start()

    @override
    async def aclose(self) -> None:
        await self._pool.aclose()
        await asyncio.gather(*map(self._end, self._runs.values()))
        for run in list(self._runs.values()):
            self._forget(run)

    @override
    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        """Wait for a free worker and begin to send it the job; what the worker says to it, `wait` tells.

        `link.sending` is told which worker it is; where it raises, the place there is given back.

        Raises Rejected for pictures that are too large, Crowded when the queue is full or no worker was free before
        the job's deadline, Unreached when there is no worker for it. A job whose id is at work already is joined.
        """
        size = encoded_size(job.payload)
        if size > self._max_input_bytes:
            raise Rejected(f"{NAME}: pictures of {size} bytes are more than the {self._max_input_bytes} a worker takes")
        if (run := self._runs.get(job.id)) is None:
            turn = self._pool.turn(job.upstream, job.deadline, job.owner)
            worker = await self._pool.enter(turn)
            try:
                await link.sending({"worker": worker.url})
            except BaseException:
                self._pool.release(worker, turn.owner)
                raise
            run = HeldRun(job=job, turn=turn, id=job.id, worker=worker, webhook=link.webhook)
            run.task = asyncio.create_task(self._work(run))
            run.task.add_done_callback(lambda _: self._keep(run))
            self._runs[job.id] = run
        return run.handle

    @override
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        """Wait for the answer; at `deadline` the job is ended and Expired raised. No error costs anything.

        Raises Failed for a job of another process or an earlier life: its answer went to the connection that is gone.
        Raises Unfetched where the job has succeeded, and its picture did not come from the worker so far.
        """
        try:
            return await self._answer(handle, deadline, link)
        except ProviderError as exc:
            exc.cost, exc.billed = 0, False
            raise

    @override
    async def recover(self, sent: PendingSubmit) -> Handle | None:
        """Return a job of this process. One of an earlier process is stopped, and None returned.

        A worker may have taken that one, but its result went to a connection that is gone, and nothing was billed for
        it: whoever wants the picture has to have it made again.
        """
        if run := self._runs.get(sent.id):
            return run.handle
        await self._stop_everywhere(sent.id)
        return None

    @override
    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        """Read what a worker tells of a prediction. Cog signs nothing: that the address is secret is all there is."""
        return await heard(body)

    async def _answer(self, handle: Handle, deadline: float, link: AttemptContext) -> Outcome:
        run = self._runs.get(handle.id)
        if run is None:
            await self.cancel(handle)
            raise Failed(f"{NAME}: the job is not of this process, and its result is lost")
        self._stay(run)
        done, _ = await asyncio.wait({run.task}, timeout=max(0.0, deadline - self._clock.now()))
        if not done:
            await self._end(run)
        if run.task.cancelled() or run.task.exception():
            self._forget(run)
            # A job that ended while it was being cancelled is a result like any other.
            if run.stopping:
                raise Expired(f"{NAME}: the job was cancelled" if done else f"{NAME}: the deadline passed")
        return await self._collected(run, run.task.result(), deadline if done else beyond(deadline, self._clock), link)

    async def _collected(self, run: HeldRun, made: PredictionResult, deadline: float, link: AttemptContext) -> Outcome:
        link.succeeded()
        # Whoever finds the pictures broken may come back for them, where they lie at an address.
        keep = not any(isinstance(item, bytes) for item in made.named)
        try:
            images = await self._collector.collect(made.named, deadline)
        except (Unfinished, asyncio.CancelledError):
            keep = True
            raise
        finally:
            (self._keep if keep else self._forget)(run)
        return Outcome(images=images, seconds=made.seconds, executed=made.executed, notes=made.notes)

    async def _fetch(self, address: str, cap: int, deadline: float) -> bytes:
        try:
            async with self._clock.timeout_at(deadline):
                return await fetch(self._http, address, cap=cap, least_bytes_per_s=self._least_bytes_per_s)
        except TimeoutError as exc:
            raise Expired(f"{NAME}: the deadline passed while the output was fetched") from exc

    @override
    async def cancel(self, handle: Handle) -> None:
        """End the job: at its worker, and in the queue. Does nothing for a job that has ended."""
        if run := self._runs.get(handle.id):
            await self._end(run)
        else:
            await self._stop_everywhere(handle.id)

    async def _work(self, run: HeldRun) -> PredictionResult:
        """Bring a job that holds a slot to its end, at one worker or another."""
        twice = False
        while True:
            worker = run.worker
            assert worker is not None
            began = self._clock.now()
            ran: float | None = None
            try:
                answered = await self._predict(worker, run)
                ran = self._clock.now() - began
                return answered
            except _NoPlace:
                self._pool.refused(worker)
            except Unreached:
                self._pool.lost(worker)
            except Unknown as exc:
                await self._tell_to_stop(worker.url, run.id)
                if twice or run.stopping:
                    raise Failed(f"{exc.told}; it was run again" if twice else exc.told, said=exc.said) from exc
                twice = True
                run.id = again(run.job.id)
            finally:
                run.worker = None
                self._pool.release(worker, run.turn.owner, ran_s=ran)
            run.worker = await self._pool.enter(run.turn, again=True)

    async def _predict(self, worker: LocalWorker, run: HeldRun) -> PredictionResult:
        """Run the job at a worker. Raises _NoPlace where it was not taken, and ProviderError."""
        payload, notes = fitted(run.job.payload, worker)
        body = json_body({"input": payload, **run.webhook_at(worker)})
        timeout = httpx.Timeout(_MOST_RUN_S, connect=5.0, pool=5.0)
        url = f"{worker.url}/predictions/{quote(run.id, safe='')}"
        with submitting(NAME, private=True):
            request = self._http.stream("PUT", url, content=body, headers=body.headers, timeout=timeout)
            async with request as response:
                answer = await read_body(response, self._max_output_bytes)
        # 409: all slots are taken. 503, and 409 of old servers: it is not ready.
        if response.status_code in {409, 503}:
            raise _NoPlace
        if response.status_code == 202:
            # This id runs already, from an earlier life, and its answer goes elsewhere.
            raise Unknown(f"{NAME}: the id was running already")
        if response.status_code != 200:
            raise refusal(NAME, response, answer, now=time.time())
        came = made(worker.url, await read_json(answer))
        return replace(came, notes=(*notes, *came.notes))

    async def _end(self, run: HeldRun) -> None:
        """Ask the worker to end the job and see it end, by force if need be: new workers stop when we hang up."""
        run.stopping = True
        if run.worker and not run.task.done() and await self._tell_to_stop(run.worker.url, run.id):
            await asyncio.wait({run.task}, timeout=self._cancel_timeout_s)
        run.task.cancel()
        await asyncio.wait({run.task})

    async def _stop_everywhere(self, job_id: str) -> None:
        """Stop a job of an earlier process: it may have moved to another worker, or have been run again."""
        ids = (job_id, again(job_id))
        await asyncio.gather(*(self._tell_to_stop(worker.url, one) for worker in self._pool.workers for one in ids))

    async def _tell_to_stop(self, url: str, job_id: str) -> bool:
        """Post the cancel, and say whether the worker knew the job. No answer is no obstacle: the job ends anyway."""
        with contextlib.suppress(NoAnswer), polling(NAME, private=True):
            where = f"{url}/predictions/{quote(job_id, safe='')}/cancel"
            response = await self._http.post(where, timeout=self._cancel_timeout_s)
            return response.is_success
        return False

    def _keep(self, run: HeldRun) -> None:
        """Keep an ended job for a while, for a `wait` that comes late."""
        if not run.task.cancelled():
            # Nobody may ever ask; asyncio calls that an error nobody saw.
            run.task.exception()
        if self._runs.get(run.job.id) is run:
            self._stay(run)
            run.expiry = asyncio.get_running_loop().call_later(_KEEP_S, self._forget, run)

    def _stay(self, run: HeldRun) -> None:
        if run.expiry:
            run.expiry.cancel()

    def _forget(self, run: HeldRun) -> None:
        self._stay(run)
        if self._runs.get(run.job.id) is run:
            del self._runs[run.job.id]
