"""A gateway over a real Postgres that falls ill at any moment of a call: what is paid for is delivered all the same,
nothing new is bought, and when the database is well again every row ends without a restart."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import override

from gateway.settings.loader import SHIPPED
from tests.simulators.replicate import Simulator
from tests.support.hooked import around, ask, caller
from tests.support.postgres import Postgres, postgres
from tests.support.running import until
from tests.support.sick_postgres import ILLNESSES, ledger_for_role
from tests.support.world import gateway


class Held(Simulator):
    """A Replicate whose answers to submits wait until `answer` is set, and whose jobs run until `finish` is."""

    answer = threading.Event()
    finish = threading.Event()
    polled = threading.Event()

    @override
    async def _create(self, request: Request) -> Response:
        response = await super()._create(request)
        await asyncio.to_thread(self.answer.wait, 60)
        return response

    @override
    async def _get(self, request: Request) -> Response:
        self.polled.set()
        await asyncio.to_thread(self.finish.wait, 60)
        return await super()._get(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A gateway, its provider and its database."""

    server: Postgres
    name: str
    replicate: Held
    client: httpx.Client
    root: str

    def readiness(self) -> tuple[int, str]:
        """The status of /readyz, and what it says of the ledger."""
        answer = httpx.get(f"{self.root}/readyz", timeout=30)
        return answer.status_code, answer.json()["ledger"]

    def rows(self) -> list[tuple[str, str]]:
        """The state of every job and of every attempt."""
        import psycopg

        with psycopg.connect(f"{self.server.url.rpartition('/')[0]}/{self.name}") as connection:
            query = "SELECT jobs.state, attempts.state FROM jobs LEFT JOIN attempts ON attempts.job = jobs.id"
            return [(str(job), str(attempt)) for job, attempt in connection.execute(query).fetchall()]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A Postgres of its own: what makes it ill is for all of its databases."""
    with postgres() as running:
        yield running


@pytest.fixture
def place(server: Postgres) -> Iterator[Place]:
    """A gateway that has made a picture, so that everything in it has been used once."""
    name = f"t_{secrets.token_hex(4)}"
    with ExitStack() as stack:
        replicate = Held(boot_s=0.0, run_s=0.05)
        stack.enter_context(replicate.running())
        stack.callback(replicate.finish.set)
        stack.callback(replicate.answer.set)
        more = {
            "DARKROOM_DATA": str(stack.enter_context(_folder())),
            "DARKROOM_GATEWAY__LEDGER_URL": ledger_for_role(server, name),
            "DARKROOM_GATEWAY__LEASE_S": "3",
            "DARKROOM_GATEWAY__DEADLINE_S": "60",
            "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "60",
            "DARKROOM_GATEWAY__SUBMIT_TIMEOUT_S": "30",
            "DARKROOM_GATEWAY__POLL_TIMEOUT_S": "30",
        }
        served = stack.enter_context(gateway(SHIPPED, around({"replicate": replicate}, **more)))
        client = stack.enter_context(caller(served.url))
        replicate.answer.set()
        replicate.finish.set()
        assert ask(client).status_code == 200
        for event in (replicate.answer, replicate.finish, replicate.polled):
            event.clear()
        yield Place(server=server, name=name, replicate=replicate, client=client, root=served.url)


def _folder() -> Any:
    from tempfile import TemporaryDirectory

    return TemporaryDirectory()


def at_moment(place: Place, moment: str) -> None:
    """Wait until a call is where its database is to fall ill."""
    if moment == "submitting":
        until(lambda: len(place.replicate.books.taken) == 2, "the job is taken")
        return
    place.replicate.answer.set()
    until(place.replicate.polled.is_set, "it is waited for")


@pytest.mark.parametrize("moment", ["submitting", "waiting"])
@pytest.mark.parametrize("illness", ILLNESSES)
def test_a_database_that_falls_ill(place: Place, illness: str, moment: str) -> None:
    """The caller has the picture, new calls are told 503, and afterwards each row has its end."""
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(ask, place.client)
        at_moment(place, moment)
        with ILLNESSES[illness](place.server, place.name):
            if illness != "revoked":  # of jobs; leases are written
                until(lambda: place.readiness() == (503, "down"), "seen by the heartbeat")
            place.replicate.answer.set()
            place.replicate.finish.set()
            answer = calling.result(60)
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"]
            if illness != "killed":  # between two kills there may be time for a write
                refused = ask(place.client)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
                assert ask(place.client, headers={"idempotency-key": "k"}).status_code == 503
                assert place.readiness() == (503, "down")
                assert len(place.replicate.books.taken) == 2
        until(lambda: place.readiness() == (200, "up"), "well again")
        until(lambda: {job for job, _ in place.rows()} <= {"completed", "failed"}, "every job has its end", 30)
    assert [row for row in place.rows() if row[1] != "None"] == 2 * [("completed", "ended")]
    assert ask(place.client, headers={"idempotency-key": "k"}).status_code == 200


@pytest.mark.parametrize("illness", ["read-only", "revoked"])
def test_a_database_that_is_ill_before_a_call(place: Place, illness: str) -> None:
    """Nothing is bought that cannot be written down; a job in the background is not taken."""
    with ILLNESSES[illness](place.server, place.name):
        for background in ("false", "true"):
            answer = ask(place.client, background=background)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert len(place.replicate.books.taken) == 1
        until(lambda: place.readiness() == (503, "down"), "seen")
    until(lambda: place.readiness() == (200, "up"), "well again")
    place.replicate.answer.set()
    place.replicate.finish.set()
    assert ask(place.client).status_code == 200
    until(lambda: not any(job in ("queued", "in_progress") for job, _ in place.rows()), "every row ends", 30)


def test_jobs_in_the_background(place: Place) -> None:
    """A job in the background that ends while the database is read-only has its picture when it is well again."""
    job = str(ask(place.client, background="true").json()["id"])
    at_moment(place, "waiting")
    with ILLNESSES["read-only"](place.server, place.name):
        until(lambda: place.readiness() == (503, "down"), "seen by the heartbeat")
        place.replicate.finish.set()
    found = place.client.get(f"/images/jobs/{job}?wait=30").json()
    assert found["status"] == "completed", found
    assert found["result"]["data"]
