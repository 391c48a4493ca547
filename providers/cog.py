"""The local provider: the user's own GPU workers, which speak Cog's HTTP API.

A Cog worker keeps no queue and no results: the answer to the request that submits a job is its result. So a job here
is a task of this process that holds that request open.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

from providers.base import Expired, Failed, Handle, Job, Outcome, Readiness, Rejected, Unknown, Unreached, Upstream
from providers.cog_answer import outcome
from providers.cog_pool import Pool, Turn
from providers.cog_worker import NAME, Worker
from providers.http import Unanswered, polling, refusal, submitting
from providers.wire import encoded_size, excerpt, json_body, read_body, read_json

# How long the result of a job that nobody waits for is kept.
_KEEP_S = 600.0
_MOST_RUN_S = 3600.0


class _NoPlace(Exception):
    """The worker had no free place after all."""


@dataclass(slots=True, eq=False)
class _Run:
    """One job of this process, wherever it is."""

    job: Job
    turn: Turn
    id: str
    """Its id at the worker; another one when it is run again."""
    worker: Worker | None
    """Whose slot it holds; None while it waits to be let in again."""
    stopping: bool = False
    expiry: asyncio.TimerHandle | None = None
    task: asyncio.Task[Outcome] = field(init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker for a person to look at. `status` is Cog's word, or UNREACHABLE."""

    url: str
    status: str
    live: bool
    engine: str
    slots: int
    running: int


class Cog:
    """The adapter for Cog workers: one queue before all of them.

    `workers` are base URLs. `max_queue` bounds the jobs that wait; a job waits to its deadline at most. A worker that
    is STARTING longer than `start_deadline_s` is out. `cancel_timeout_s` is how long a worker is given to end a job
    that was cancelled before its connection is closed. Pictures above `max_input_bytes` (as base64, together) are
    rejected, as a container would; answers above `max_output_bytes` are Undecodable.

    A broken connection leaves open whether the worker goes on. Nothing is billed here, so the adapter settles that by
    itself: it cancels the job and runs it once more under a new id, and only then gives up with Failed.

    When the caller of `wait` is cancelled the job goes on: `cancel` ends it, and `wait` may be called again.
    """

    name = NAME

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        workers: Sequence[str],
        max_queue: int = 64,
        start_deadline_s: float = 600.0,
        health_interval_s: float = 2.0,
        health_timeout_s: float = 2.0,
        cancel_timeout_s: float = 5.0,
        max_input_bytes: int = 100 * 1024 * 1024,
        max_output_bytes: int = 400 * 1024 * 1024,
    ) -> None:
        self._http = http
        self._cancel_timeout_s = cancel_timeout_s
        # The container's limit is on the body; a little of it is for what is not pictures.
        self._max_input_bytes = max_input_bytes - 64 * 1024
        self._max_output_bytes = max_output_bytes
        self._runs: dict[str, _Run] = {}
        self._pool = Pool(
            http,
            workers,
            max_queue=max_queue,
            health_interval_s=health_interval_s,
            health_timeout_s=health_timeout_s,
            start_deadline_s=start_deadline_s,
        )

    @property
    def queue_depth(self) -> int:
        """How many jobs wait for a worker."""
        return self._pool.waiting

    @property
    def in_flight(self) -> int:
        """How many jobs are at a worker."""
        return self._pool.running

    def describe(self) -> tuple[WorkerState, ...]:
        """Return how each worker is, for a readiness page."""
        return tuple(
            WorkerState(url=w.url, status=w.state, live=w.live, engine=w.engine, slots=w.slots, running=w.running)
            for w in self._pool.workers
        )

    def engines(self) -> tuple[str, ...]:
        """Return the engines that live workers announce."""
        return tuple(sorted({worker.engine for worker in self._pool.workers if worker.live and worker.engine}))

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        workers = self._pool.workers
        live = [worker for worker in workers if worker.live]
        if not workers:
            return Readiness.OFF, "no worker is configured"
        if any(worker.serves(upstream) for worker in live):
            return Readiness.READY, ""
        # One that starts, and one that has had this model and is away, may yet have it.
        if not live or any(w.may_serve(upstream) or (w.heard and w.serves(upstream)) for w in workers if not w.live):
            states = ", ".join(f"{worker.url} is {worker.state}" for worker in workers if not worker.live)
            return Readiness.DOWN, f"no worker can take this model now: {states}"
        return (
            Readiness.OFF,
            f"no worker has {_wanted(upstream)}; there is {', '.join(self.engines()) or 'none with a name'}",
        )

    async def start(self) -> None:
        self._pool.start()

    async def aclose(self) -> None:
        await self._pool.aclose()
        await asyncio.gather(*map(self._end, self._runs.values()))
        for run in list(self._runs.values()):
            self._forget(run)

    async def submit(self, job: Job) -> Handle:
        """Wait for a free worker and begin to send it the job; what the worker says to it, `wait` tells.

        Raises Rejected for pictures that are too large, Throttled when the queue is full or no worker was free before
        the job's deadline, Unreached when there is no worker for it. A job whose id is at work already is joined.
        """
        size = encoded_size(job.payload)
        if size > self._max_input_bytes:
            raise Rejected(f"{NAME}: pictures of {size} bytes are more than the {self._max_input_bytes} a worker takes")
        if (run := self._runs.get(job.id)) is None:
            turn = self._pool.turn(job.upstream, job.deadline)
            worker = await self._pool.enter(turn)
            run = _Run(job=job, turn=turn, id=job.id, worker=worker)
            run.task = asyncio.create_task(self._work(run))
            run.task.add_done_callback(lambda _: self._keep(run))
            self._runs[job.id] = run
        return Handle(provider=NAME, id=job.id, data={"worker": run.worker.url if run.worker else ""})

    async def wait(self, handle: Handle, deadline: float) -> Outcome:
        """Wait for the answer; at `deadline` the job is ended and Expired raised.

        Raises Failed for a job of another process or an earlier life: its answer went to the connection that is gone.
        """
        run = self._runs.get(handle.id)
        if run is None:
            await self.cancel(handle)
            raise Failed(f"{NAME}: the job is not of this process, and its result is lost")
        now = asyncio.get_running_loop().time()
        done, _ = await asyncio.wait({run.task}, timeout=max(0.0, deadline - now))
        if not done:
            await self._end(run)
        self._forget(run)
        # A job that ended while it was being cancelled is a result like any other.
        if run.stopping and (run.task.cancelled() or run.task.exception()):
            raise Expired(f"{NAME}: the job was cancelled" if done else f"{NAME}: the deadline passed")
        return run.task.result()

    async def cancel(self, handle: Handle) -> None:
        """End the job: at its worker, and in the queue. Does nothing for a job that has ended."""
        if run := self._runs.get(handle.id):
            await self._end(run)
        elif (url := handle.data.get("worker")) in {worker.url for worker in self._pool.workers}:
            await self._tell_to_stop(str(url), handle.id)

    async def _work(self, run: _Run) -> Outcome:
        """Bring a job that holds a slot to its end, at one worker or another."""
        again = False
        while True:
            worker = run.worker
            assert worker is not None
            began = time.monotonic()
            ran: float | None = None
            try:
                made = await self._predict(worker, run)
                ran = time.monotonic() - began
                return made
            except _NoPlace:
                self._pool.refused(worker)
            except Unreached:
                self._pool.lost(worker)
            except Unknown as exc:
                await self._tell_to_stop(worker.url, run.id)
                if again or run.stopping:
                    raise Failed(f"{exc.message}; it was run again" if again else exc.message) from exc
                again = True
                run.id = f"{run.job.id}-again"
            finally:
                run.worker = None
                self._pool.release(worker, ran_s=ran)
            run.worker = await self._pool.enter(run.turn, again=True)

    async def _predict(self, worker: Worker, run: _Run) -> Outcome:
        """Run the job at a worker. Raises _NoPlace where it was not taken, and ProviderError."""
        body = await json_body({"input": dict(run.job.payload)})
        timeout = httpx.Timeout(_MOST_RUN_S, connect=5.0, pool=5.0)
        url = f"{worker.url}/predictions/{quote(run.id, safe='')}"
        with submitting(NAME):
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
        return await outcome(self._http, worker.url, await read_json(answer), cap=self._max_output_bytes)

    async def _end(self, run: _Run) -> None:
        """Ask the worker to end the job and see it end, by force if need be: new workers stop when we hang up."""
        run.stopping = True
        if run.worker and not run.task.done() and await self._tell_to_stop(run.worker.url, run.id):
            await asyncio.wait({run.task}, timeout=self._cancel_timeout_s)
        run.task.cancel()
        await asyncio.wait({run.task})

    async def _tell_to_stop(self, url: str, job_id: str) -> bool:
        """Post the cancel, and say whether the worker knew the job. No answer is no obstacle: the job ends anyway."""
        with contextlib.suppress(Unanswered), polling(NAME):
            where = f"{url}/predictions/{quote(job_id, safe='')}/cancel"
            response = await self._http.post(where, timeout=self._cancel_timeout_s)
            return response.is_success
        return False

    def _keep(self, run: _Run) -> None:
        """Keep an ended job for a while, for a `wait` that comes late."""
        if not run.task.cancelled():
            # Nobody may ever ask; asyncio calls that an error nobody saw.
            run.task.exception()
        if self._runs.get(run.job.id) is run:
            run.expiry = asyncio.get_running_loop().call_later(_KEEP_S, self._forget, run)

    def _forget(self, run: _Run) -> None:
        if run.expiry:
            run.expiry.cancel()
        if self._runs.get(run.job.id) is run:
            del self._runs[run.job.id]


def _wanted(upstream: Upstream) -> str:
    inputs = upstream.options.get("inputs")
    names = ", ".join(str(name) for name in inputs) if isinstance(inputs, list) else ""
    return excerpt(" with the inputs ".join(filter(None, (upstream.model or "any model", names))))
