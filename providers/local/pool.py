"""The queue before the local workers: one job for each free slot, API keys in turn, first come, first served in each.

The queue is here and not in the workers: here a waiting job can be cancelled, moved to another worker and counted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from providers.base import Upstream
from providers.clock import Clock
from providers.errors import Crowded, ProviderError, Unreached
from providers.fairness import FairQueue, SharedCapacity, Shares
from providers.local.workers import NAME, LocalWorker, look, missed

# How long a worker is left alone after it had no place. Short at first: Cog frees a slot a moment after its answer.
# Doubled each time: each try sends the pictures again, and somebody else's job may be long.
_PAUSE_S = 0.05
_MOST_PAUSE_S = 4.0
_FIRST_LOOKS_S = 0.1
# A guess at one run's length until there are some to learn from.
_RUN_S = 10.0
_LEARN = 0.2


@dataclass(slots=True, eq=False)
class QueueTurn:
    """A job's turn. `owner` is the API key that the job is for."""

    upstream: Upstream
    deadline: float
    owner: str
    place: asyncio.Future[LocalWorker] = field(init=False)


class WorkerPool:
    """The workers and who waits for them.

    `max_queue` bounds the jobs that wait, and is shared out among their owners as `room_for` says. A worker is looked
    at every `health_interval_s`, ten times a second until it is first ready, for `health_timeout_s` at most; one that
    is STARTING longer than `start_deadline_s` is out. Seconds of `clock` throughout.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        urls: Sequence[str],
        *,
        max_queue: int,
        health_interval_s: float,
        health_timeout_s: float,
        start_deadline_s: float,
        clock: Clock,
    ) -> None:
        self.workers = tuple(LocalWorker(url.rstrip("/")) for url in dict.fromkeys(urls))
        self._http = http
        self._shares = Shares(max_queue, clock.now)
        self._health_interval_s = health_interval_s
        self._health_timeout_s = health_timeout_s
        self._start_deadline_s = start_deadline_s
        self._clock = clock
        self._waiting = FairQueue[QueueTurn]()
        self._run_s = _RUN_S
        self._watchers: list[asyncio.Task[None]] = []
        self._alarms: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return sum(worker.running for worker in self.workers)

    def start(self) -> None:
        """Begin to look after the workers."""
        if not self._watchers:
            self._watchers = [asyncio.create_task(self._watch(worker)) for worker in self.workers]

    async def aclose(self) -> None:
        """Stop looking after the workers, and turn away whoever waits."""
        self._closed = True
        for alarm in self._alarms.values():
            alarm.cancel()
        for watcher in self._watchers:
            watcher.cancel()
        self._dispatch()
        await asyncio.gather(*self._watchers, *self._alarms.values(), return_exceptions=True)
        self._watchers = []

    def turn(self, upstream: Upstream, deadline: float, owner: str = "") -> QueueTurn:
        return QueueTurn(upstream, deadline, owner)

    async def enter(self, turn: QueueTurn, *, again: bool = False) -> LocalWorker:
        """Wait for a free slot at a worker that serves `turn`, and take it; `release` gives it back.

        `again` is for a job that was already let in: it is the next, and the queue's bound is not for it. Raises
        Crowded when the queue is full or the deadline passes, Unreached when no worker is left that could serve it.
        """
        turn.place = asyncio.get_running_loop().create_future()
        (self._waiting.put_back if again else self._waiting.put)(turn.owner, turn)
        try:
            self._dispatch()
            if not (again or turn.place.done()):
                self._check_room(turn)
            async with self._clock.timeout_at(turn.deadline):
                return await turn.place
        except TimeoutError:
            self._leave(turn)
            message = f"{NAME}: no worker was free in time"
            raise Crowded(message, retry_after=self.estimate(turn)) from None
        except BaseException:
            self._leave(turn)
            raise

    def _check_room(self, turn: QueueTurn) -> None:
        others = {**self._waiting.waiting}
        others[turn.owner] -= 1
        room = self._shares.ask(1, turn.owner, others)
        if room is SharedCapacity.FREE:
            return
        full = (
            "is full"
            if room is SharedCapacity.FULL
            else "has this key's share of jobs, and keeps the rest for other keys"
        )
        raise Crowded(f"{NAME}: the queue {full}", retry_after=self.estimate(turn))

    def _leave(self, turn: QueueTurn) -> None:
        # The place may have been given in the very moment of leaving.
        left = self._waiting.remove(turn.owner, turn)
        if not left and turn.place.done() and not turn.place.cancelled() and turn.place.exception() is None:
            self.release(turn.place.result(), turn.owner)

    def release(self, worker: LocalWorker, owner: str = "", *, ran_s: float | None = None) -> None:
        """Give a slot back that a job of this owner had. `ran_s` is how long it ran, where it ran to its end."""
        worker.running -= 1
        self._waiting.give_back(owner)
        if ran_s is not None:
            self._run_s += _LEARN * (ran_s - self._run_s)
            worker.refusals = 0
        self._dispatch()

    def refused(self, worker: LocalWorker) -> None:
        """Note that a worker had no place after all (somebody else uses it too): leave it alone for a moment."""
        pause = min(_MOST_PAUSE_S, _PAUSE_S * 2**worker.refusals)
        worker.refusals = min(worker.refusals + 1, 16)
        worker.paused_until = self._clock.now() + pause
        if previous := self._alarms.get(worker.url):
            previous.cancel()
        if not self._closed:
            self._alarms[worker.url] = asyncio.create_task(self._dispatch_in(pause))

    async def _dispatch_in(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._dispatch()

    def lost(self, worker: LocalWorker) -> None:
        """Note that a worker takes no connections: it is out until it is seen again."""
        missed(worker, certain=True)

    def estimate(self, turn: QueueTurn) -> float:
        """Return in how many seconds a place may be free, for a caller who is sent away."""
        slots = sum(worker.slots for worker in self.workers if worker.may_serve(turn.upstream))
        return float(math.ceil(self._run_s * (self._waiting.ahead_of(turn.owner) + 1) / max(1, slots)))

    def _dispatch(self) -> None:
        """Give the free slots to those who wait, in turn; turn away those whom nobody can serve any more."""
        for owner, turn in list(self._waiting.in_turn()):
            if turn.place.done():
                # Cancelled, and not yet awake to leave.
                continue
            worker = None if self._closed else self._free_for(turn.upstream)
            if worker is not None:
                worker.running += 1
                worker.used_at = self._clock.now()
                turn.place.set_result(worker)
                self._waiting.take(owner, turn)
            elif problem := self._hopeless(turn.upstream):
                turn.place.set_exception(problem)
                self._waiting.remove(owner, turn)

    def _free_for(self, upstream: Upstream) -> LocalWorker | None:
        now = self._clock.now()
        free = (worker for worker in self.workers if worker.free(now) and worker.serves(upstream))
        # The emptiest, and among equals the one that has rested longest.
        return min(free, key=lambda worker: (worker.running / worker.slots, worker.used_at), default=None)

    def _hopeless(self, upstream: Upstream) -> ProviderError | None:
        if self._closed:
            return Unreached(f"{NAME}: shutting down")
        if not any(worker.may_serve(upstream) for worker in self.workers):
            return Unreached(f"{NAME}: no worker is up that could serve this")
        return None

    async def _watch(self, worker: LocalWorker) -> None:
        began = self._clock.now()
        ready = False
        while True:
            await look(
                self._http,
                worker,
                now=self._clock.now(),
                timeout_s=self._health_timeout_s,
                start_deadline_s=self._start_deadline_s,
            )
            self._dispatch()
            ready = ready or worker.live
            hurry = not ready and self._clock.now() - began < self._start_deadline_s
            await self._clock.sleep(min(_FIRST_LOOKS_S, self._health_interval_s) if hurry else self._health_interval_s)
