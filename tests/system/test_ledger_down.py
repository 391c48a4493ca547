"""A gateway whose disk is full: what cannot be written down is not bought, and callers are told to come again."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from tests.service.clients.test_python_errors import check
from tests.support.photo import flat, picture
from tests.support.running import Served, serving, until
from tests.support.scripted_cog import as_workers, container

PNG = flat(20, 10)


@contextmanager
def full_disk(served: Served, folder: Path) -> Iterator[None]:
    """Let no file of the gateway's process become longer than its database's journal is."""
    longest = max(path.stat().st_size for path in (folder / "data").glob("darkroom.db*"))
    # The log has to go on.
    assert longest > served.log.stat().st_size + 50_000
    before = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (longest, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, before)


def readiness(served: Served) -> tuple[int, str]:
    """The status of /readyz, and what it says of the ledger."""
    answer = httpx.get(f"{served.root}/readyz")
    return answer.status_code, answer.json()["ledger"]


def test_a_full_disk(tmp_path: Path) -> None:
    """A call is refused before anything reaches a worker, and the gateway serves again when there is space again."""
    # It beats once in 100 s: what brings it back here is the next call.
    patient = {"DARKROOM_GATEWAY__LEASE_S": "300"}
    with (
        container() as cog,
        serving(tmp_path, environ={"DARKROOM_PROVIDERS__LOCAL__WORKERS": as_workers(cog), **patient}) as served,
        OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
    ):
        assert picture(client.images.edit(image=PNG, prompt="")).size == (40, 20)
        until(lambda: readiness(served) == (200, "up"), "ready")
        asked = len(cog.bodies)
        with full_disk(served, tmp_path):
            for _ in range(3):
                with pytest.raises(openai.InternalServerError) as caught:
                    client.images.edit(image=PNG, prompt="")
                check(caught.value, 503, "ledger_unavailable", None)
                assert int(caught.value.response.headers["retry-after"]) >= 1
            assert readiness(served) == (503, "down")
            assert len(cog.bodies) == asked
        assert picture(client.images.edit(image=PNG, prompt="")).size == (40, 20)
        assert len(cog.bodies) == asked + 1
        until(lambda: readiness(served) == (200, "up"), "ready again")
