"""What one Cog worker says of itself, and whether it can be given work."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import httpx

from providers.base import ProviderError, Upstream
from providers.http.bodies import Json, excerpt, read_body, read_json
from providers.http.client import Unanswered, polling

NAME = "local"

LIVE = frozenset({"READY", "BUSY"})
_STATUSES = LIVE | {"UNKNOWN", "STARTING", "SETUP_FAILED", "DEFUNCT", "UNHEALTHY"}
_SILENT = "UNREACHABLE"
# A worker that is at work may answer late; a refused connection needs no second look.
_MISSES = 3
_ANSWER_BYTES = 8_000_000
_MOST_SLOTS = 1000


@dataclass(slots=True, eq=False)
class Worker:
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
    http: httpx.AsyncClient, worker: Worker, *, now: float, timeout_s: float, start_deadline_s: float
) -> None:
    """Ask a worker how it is, and what it is where that is not known. It is asked for `timeout_s` at most, twice."""
    try:
        _, said = await _get(http, f"{worker.url}/health-check", timeout_s)
    except Unanswered as exc:
        missed(worker, certain=not exc.left)
        return
    except ProviderError:
        missed(worker, certain=False)
        return
    _heard(worker, said, now, start_deadline_s)
    if worker.status in LIVE and not worker.known:
        try:
            status, document = await _get(http, f"{worker.url}/openapi.json", timeout_s)
        except (Unanswered, ProviderError):
            # Not live before it has said what it is; the next look asks again.
            return
        # A container that was built without a schema answers 503: it is a worker without a name.
        _learn(worker, document if status == 200 else None)


def missed(worker: Worker, *, certain: bool) -> None:
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
        raise Unanswered(f"{NAME}: no answer in {timeout_s} seconds") from exc
    return response.status_code, await read_json(body)


def _heard(worker: Worker, said: Json, now: float, start_deadline_s: float) -> None:
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


def _learn(worker: Worker, document: Json) -> None:
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
