"""Whoever waits for a job, or follows it: progress, silence, a client that leaves, a server that ends."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.simulators.common import Fault
from tests.simulators.replicate import Simulator
from tests.support.hooked import around, ask, caller, ended
from tests.support.running import Served, serving, until
from tests.support.world import World, world

STREAM = {"accept": "text/event-stream"}


@pytest.fixture
def there() -> Iterator[World]:
    """A gateway before Replicate, that breaks the silence often."""
    with world("replicate", environ={"DARKROOM_GATEWAY__KEEP_ALIVE_S": "0.05"}) as found:
        yield found


def replicate(there: World) -> Simulator:
    """The one provider."""
    sim = there.sims["replicate"]
    assert isinstance(sim, Simulator)
    return sim


def begun(client: httpx.Client) -> str:
    """Begin a job in the background; its id."""
    answer = ask(client, background="true")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def follow(client: httpx.Client, job: str) -> list[tuple[str, Any]]:
    """Follow a job to the end of the stream: each event's name and body, and ("", None) for each comment."""
    with client.stream("GET", f"/images/jobs/{job}", headers=STREAM) as stream:
        assert stream.headers["x-darkroom-job"] == job
        return list(_events(stream.iter_lines()))


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in lines:
        if line.startswith(":"):
            yield "", None
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@contextmanager
def stuck(there: World) -> Iterator[tuple[httpx.Client, str]]:
    """A job that never ends at its provider, until the block does."""
    replicate(there).faults.script("job", Fault(kind="job", word="stuck"))
    with caller(there.url) as client:
        job = begun(client)
        until(lambda: there.taken("replicate"), "its provider has it")
        yield client, job
        assert client.post(f"/images/jobs/{job}/cancel").json()["status"] == "cancelled"


def test_progress_and_silence(there: World) -> None:
    """The provider's progress is told as it grows, and comments keep the connection open in between."""
    replicate(there).run_s = 2.5
    with caller(there.url) as client:
        told = follow(client, begun(client))
    bodies = [body for _, body in told if body]
    shares = [body["progress"] for body in bodies if body["status"] == "in_progress" and body["progress"]]

    assert shares
    assert shares == sorted(set(shares))
    assert 0 < shares[0] < 1
    assert [body["result"] is None for body in bodies] == [True] * (len(bodies) - 1) + [False]
    assert sum(not name for name, _ in told) > 5


def test_a_cancelled_job_is_told(there: World) -> None:
    """Who follows a job hears that another one cancelled it."""
    with ThreadPoolExecutor(1) as pool, stuck(there) as (client, job):
        told = pool.submit(follow, client, job)
        until(lambda: there.metric("darkroom_requests_in_flight") > 1, "it is followed")
        client.post(f"/images/jobs/{job}/cancel")
        name, body = told.result()[-1]
    assert (name, body["error"]["code"]) == ("image.job.cancelled", "job_cancelled")


@pytest.mark.parametrize(("query", "headers"), [("", STREAM), ("?wait=60", {})], ids=["follows", "waits"])
def test_a_client_that_leaves(there: World, query: str, headers: dict[str, str]) -> None:
    """Nothing waits on for a client that is gone, and the job goes on."""
    with stuck(there) as (client, job):
        with (
            suppress(httpx.ReadTimeout),
            httpx.Client(base_url=client.base_url, timeout=0.5) as other,
            other.stream("GET", f"/images/jobs/{job}{query}", headers=headers) as stream,
        ):
            # The one that waits hears nothing, and gives up; the other one has seen enough.
            assert next(line for line in stream.iter_lines() if line.startswith("event: "))
        # The one that is left is this very question.
        until(lambda: there.metric("darkroom_requests_in_flight") == 1, "nobody waits", 5)
        assert client.get(f"/images/jobs/{job}").json()["status"] == "in_progress"


@pytest.mark.system
def test_a_server_that_ends(tmp_path: Path) -> None:
    """Streams and waits end in good order when the server does, and the next one knows the job."""
    sim = Simulator(boot_s=0.01, run_s=0.05)
    with sim.running(), ThreadPoolExecutor(2) as pool:
        sim.faults.script("job", Fault(kind="job", word="stuck"))
        environ = around({"replicate": sim}, DARKROOM_GATEWAY__GRACE_S="3", DARKROOM_GATEWAY__DEADLINE_S="60")
        with serving(tmp_path, (), environ) as served, caller(served.root) as client:
            job = begun(client)
            until(lambda: sim.jobs, "its provider has it")
            waits = pool.submit(client.get, f"/images/jobs/{job}?wait=60")
            follows = pool.submit(follow, client, job)
            until(lambda: _in_flight(served) == 3, "both are there")
            served.process.send_signal(signal.SIGTERM)
            answer = waits.result()
            assert (answer.status_code, answer.json()["status"]) == (200, "in_progress")
            assert {name for name, _ in follows.result()} == {"", "image.job.in_progress"}
        next(iter(sim.jobs.values())).word = ""
        with serving(tmp_path, (), environ) as served, caller(served.root) as client:
            assert ended(client, job)["status"] == "completed"
        assert len(sim.jobs) == 1


def _in_flight(served: Served) -> float:
    time.sleep(0.05)
    return served.metric("darkroom_requests_in_flight")
