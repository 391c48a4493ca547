"""A gateway under many calls, in a process of its own: what a call was given and what it gave is forgotten with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import pictures, processes
from tests.bench.load import Task
from tests.bench.processes import Server

CALLS = 160
# A tenth of the pictures of so many calls: some of what the heap holds is only kept for the next ones.
MOST_MB = 20


@pytest.mark.parametrize("shape", [processes.via_fal, processes.via_replicate, processes.via_cog])
def test_memory_stays_flat(tmp_path: Path, shape: Callable[[Server], dict[str, str]]) -> None:
    """With each kind of provider: one whose answer is the result, one that is polled, one's own worker."""
    sent, given = tmp_path / "sent.png", tmp_path / "given.png"
    sent.write_bytes(pictures.upload(*pictures.SIDES))
    given.write_bytes(pictures.result(*(side * pictures.FACTOR for side in pictures.SIDES)))
    with (
        processes.upstream(given) as upstream,
        processes.darkroom(tmp_path / "data", upstream, environ=shape(upstream)) as (server, key),
    ):

        def call(calls: int) -> None:
            task = Task(
                url=server.url, key=key, image=str(sent), wanted=str(given), calls=calls, concurrent=8, factor=2
            )
            processes.call(task)

        call(CALLS // 2)
        before = server.resident
        call(CALLS)

        assert server.resident - before < MOST_MB
