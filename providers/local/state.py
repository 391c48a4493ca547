"""How the workers are: for a person to look at, and for whoever wants to know whether a model can be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from providers.base import Readiness, Upstream
from providers.http.bodies import excerpt
from providers.local.workers import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker for a person to look at. `status` is Cog's word, or UNREACHABLE."""

    url: str
    status: str
    live: bool
    engine: str
    slots: int
    running: int


def states(workers: Sequence[Worker]) -> tuple[WorkerState, ...]:
    """Return how each worker is."""
    return tuple(
        WorkerState(url=w.url, status=w.state, live=w.live, engine=w.engine, slots=w.slots, running=w.running)
        for w in workers
    )


def engines(workers: Sequence[Worker]) -> tuple[str, ...]:
    """Return the engines that live workers announce."""
    return tuple(sorted({worker.engine for worker in workers if worker.live and worker.engine}))


def readiness(workers: Sequence[Worker], upstream: Upstream) -> tuple[Readiness, str]:
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
