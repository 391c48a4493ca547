"""Which inputs a Cog worker takes: what it did not announce is not sent to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from normalization.values import Announced, Image, Value
from providers.base import Rejected, Upstream
from providers.local.workers import NAME, Worker


def announced(workers: Sequence[Worker], upstream: Upstream) -> Announced:
    """Return the inputs that all workers which serve a model now announce: any of them may get the job.

    They are not known while no such worker is up, nor where one was built without a schema.
    """
    sets = [worker.inputs for worker in workers if worker.live and worker.serves(upstream)]
    return Announced(frozenset.intersection(*sets) if sets and all(sets) else None)


def fitted(payload: Mapping[str, Value], worker: Worker) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Return the payload as far as a worker takes it, with a note on what was left out.

    A request is planned for what was announced then; a worker that came up later may take less. Raises Rejected for a
    picture that it does not take.
    """
    if not worker.inputs:
        return dict(payload), ()
    left_out = [name for name in payload if name not in worker.inputs]
    if pictures := [name for name in left_out if isinstance(payload[name], Image)]:
        raise Rejected(f"{NAME}: the worker announces no input for the picture {pictures[0]}")
    notes = (f"{', '.join(left_out)} was left out: the worker announces no such input.",) if left_out else ()
    return {name: value for name, value in payload.items() if name in worker.inputs}, notes
