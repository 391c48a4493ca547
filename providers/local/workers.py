"""The workers: what each announces of itself (engine, inputs, slots), and whether it can be given work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from normalization.values import Announced, Image, Value
from providers.base import Readiness, Upstream
from providers.errors import ProviderError, Rejected
from providers.http.bodies import Json, excerpt, read_body, read_json
from providers.http.errors import NoAnswer, polling


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker for a person to look at. `status` is Cog's word, or UNREACHABLE."""

    url: str
    status: str
    live: bool
    engine: str
    slots: int
    running: int


def states(workers: Sequence[LocalWorker]) -> tuple[WorkerState, ...]:
    """Return how each worker is."""
    return tuple(
        WorkerState(url=w.url, status=w.state, live=w.live, engine=w.engine, slots=w.slots, running=w.running)
        for w in workers
    )


def engines(workers: Sequence[LocalWorker]) -> tuple[str, ...]:
    """Return the engines that live workers announce."""
    return tuple(sorted({worker.engine for worker in workers if worker.live and worker.engine}))


def readiness(workers: Sequence[LocalWorker], upstream: Upstream) -> tuple[Readiness, str]:
    """Say whether one of the workers can serve a model now, with a sentence why not."""
    live = [worker for worker in workers if worker.live]
    if not workers:
        return Readiness.OFF, "no worker is configured"
    if any(worker.serves(upstream) for worker in live):
        return Readiness.READY, ""
    # One that starts, and one that has had this model and is away, may yet have it.
    if not live or any(w.may_serve(upstream) or (w.heard and w.serves(upstream)) for w in workers if not w.live):
        # Callers are told this: the addresses are the operator's, who has them in this order.
        states = ", ".join(f"worker {n} is {worker.state}" for n, worker in enumerate(workers, 1) if not worker.live)
        return Readiness.DOWN, f"no worker can take this model now: {states}"
    return (
        Readiness.OFF,
        f"no worker has {_wanted(upstream)}; there is {', '.join(engines(workers)) or 'none with a name'}",
    )


def _wanted(upstream: Upstream) -> str:
    inputs = upstream.options.get("inputs")
    names = ", ".join(str(name) for name in inputs) if isinstance(inputs, list) else ""
    return excerpt(" with the inputs ".join(filter(None, (upstream.model or "any model", names))))


def announced(workers: Sequence[LocalWorker], upstream: Upstream) -> Announced:
    """Return the inputs that all workers which serve a model now announce: any of them may get the job.

    They are not known while no such worker is up, nor where one was built without a schema.
    """
    sets = [worker.inputs for worker in workers if worker.live and worker.serves(upstream)]
    return Announced(frozenset.intersection(*sets) if sets and all(sets) else None)


def fitted(payload: Mapping[str, Value], worker: LocalWorker) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Return the payload as far as a worker takes it, with a note on what was left out.

    A request is planned for what was announced then; a worker that came up later may take less. Raises Rejected for a
    picture that it does not take.
    """
    if not worker.inputs:
        return dict(payload), ()
    left_out = [name for name in payload if name not in worker.inputs]
    if images := [name for name in left_out if isinstance(payload[name], Image)]:
        raise Rejected(f"{NAME}: the worker announces no input for the picture {images[0]}")
    notes = (f"{', '.join(left_out)} was left out: the worker announces no such input.",) if left_out else ()
    return {name: value for name, value in payload.items() if name in worker.inputs}, notes


NAME = "local"

LIVE = frozenset({"READY", "BUSY"})
_STATUSES = LIVE | {"UNKNOWN", "STARTING", "SETUP_FAILED", "DEFUNCT", "UNHEALTHY"}
_SILENT = "UNREACHABLE"
# A worker that is at work may answer late; a refused connection needs no second look.
_MISSES = 3
_ANSWER_BYTES = 8_000_000
_MOST_SLOTS = 1000


@dataclass(slots=True, eq=False)
class LocalWorker:
    """One worker at `url` (without a slash at the end). Times are in seconds of the event loop's clock."""

    url: str
    status: str = "UNKNOWN"
    engine: str = ""
    """The title of its OpenAPI document: what models are matched against."""
    inputs: frozenset[str] = frozenset()
    webhooks: bool = False
    """Whether its document says that a request may name a webhook."""
    slots: int = 1
    running: int = 0
    known: bool = field(default=False, init=False)
    """Whether engine and inputs were read since it last came up."""
    heard: bool = field(default=False, init=False)
    """Whether it has ever answered."""
    starting_since: float | None = field(default=None, init=False)
    stuck: bool = field(default=False, init=False)
    misses: int = field(default=0, init=False)
    paused_until: float = field(default=0.0, init=False)
    refusals: int = field(default=0, init=False)
    used_at: float = field(default=0.0, init=False)

    @property
    def live(self) -> bool:
        return self.status in LIVE and self.known

    @property
    def hopeful(self) -> bool:
        """Whether it is live or may be soon."""
        return self.status in LIVE or (self.status in {"UNKNOWN", "STARTING"} and not self.stuck)

    def free(self, now: float) -> bool:
        return self.live and self.running < self.slots and now >= self.paused_until

    def serves(self, upstream: Upstream) -> bool:
        """Whether it announced this model with the inputs that the route needs. An empty model is any."""
        needed = upstream.options.get("inputs")
        names = {name for name in needed if isinstance(name, str)} if isinstance(needed, list) else set()
        return (not upstream.model or upstream.model == self.engine) and names <= self.inputs

    def may_serve(self, upstream: Upstream) -> bool:
        """Whether a job may wait for it."""
        return self.hopeful and (self.serves(upstream) or not self.known)

    @property
    def state(self) -> str:
        return f"{self.status}, for too long" if self.stuck else self.status


async def look(
    http: httpx.AsyncClient, worker: LocalWorker, *, now: float, timeout_s: float, start_deadline_s: float
) -> None:
    """Ask a worker how it is, and what it is where that is not known. It is asked for `timeout_s` at most, twice."""
    try:
        _, said = await _get(http, f"{worker.url}/health-check", timeout_s)
    except NoAnswer as exc:
        missed(worker, certain=not exc.left)
        return
    except ProviderError:
        missed(worker, certain=False)
        return
    _heard(worker, said, now, start_deadline_s)
    if worker.status in LIVE and not worker.known:
        try:
            status, document = await _get(http, f"{worker.url}/openapi.json", timeout_s)
        except (NoAnswer, ProviderError):
            # Not live before it has said what it is; the next look asks again.
            return
        # A container that was built without a schema answers 503: it is a worker without a name.
        _learn(worker, document if status == 200 else None)


def missed(worker: LocalWorker, *, certain: bool) -> None:
    """Note that a worker gave no answer; it is out when that is `certain` (connection refused) or happened often."""
    worker.misses += 1
    if certain or worker.misses >= _MISSES or not worker.heard:
        worker.status = _SILENT
        worker.known = worker.stuck = False
        worker.starting_since = None


async def _get(http: httpx.AsyncClient, url: str, timeout_s: float) -> tuple[int, Json]:
    try:
        # httpx's own timeout starts anew with every byte.
        async with asyncio.timeout(timeout_s):
            with polling(NAME, private=True):
                async with http.stream("GET", url) as response:
                    body = await read_body(response, _ANSWER_BYTES)
    except TimeoutError as exc:
        raise NoAnswer(f"{NAME}: no answer in {timeout_s} seconds") from exc
    return response.status_code, await read_json(body)


def _heard(worker: LocalWorker, said: Json, now: float, start_deadline_s: float) -> None:
    # The status code says nothing: one generation answers 200 always, another 503 while it is not ready.
    status = dig(said, "status")
    if not isinstance(status, str) or status not in _STATUSES:
        missed(worker, certain=False)
        return
    worker.heard = True
    worker.misses = 0
    worker.status = status
    if status not in LIVE:
        worker.known = False
    if status != "STARTING":
        worker.starting_since = None
    elif worker.starting_since is None:
        worker.starting_since = now
    # A worker whose inner process died as it was started says STARTING for good.
    worker.stuck = worker.starting_since is not None and now - worker.starting_since >= start_deadline_s
    most = dig(said, "concurrency", "max")
    worker.slots = most if isinstance(most, int) and 1 <= most <= _MOST_SLOTS else 1


def _learn(worker: LocalWorker, document: Json) -> None:
    title = dig(document, "info", "title")
    properties = dig(document, "components", "schemas", "Input", "properties")
    worker.engine = excerpt(title) if isinstance(title, str) else ""
    worker.inputs = frozenset(properties) if isinstance(properties, dict) else frozenset()
    request = dig(document, "components", "schemas", "PredictionRequest", "properties")
    worker.webhooks = isinstance(request, dict) and {"webhook", "webhook_events_filter"} <= request.keys()
    worker.known = True


def dig(value: Json, *keys: str) -> Json:
    """Return what lies under `keys` in nested objects, None where there is no such thing."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
