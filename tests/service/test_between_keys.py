"""Two keys of one server, of which one asks for all that there is: the other one is served all the same."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from starlette.responses import Response

from tests.simulators.common import serve, tiny
from tests.support.fake_cog import FakeCog, data_uri, succeeded
from tests.support.hooked import ask, caller, ended
from tests.support.photo import flat
from tests.support.raw import form, head, line
from tests.support.running import until
from tests.support.scripted_cog import announced
from tests.support.world import World, world

ADMIN = "the-key-of-the-admin-and-of-nobody-else"
MUCH, LITTLE = "the-key-of-the-one-who-asks-for-much", "the-key-of-the-one-who-asks-for-little"
KEYS = {"DARKROOM_ADMIN_KEY": ADMIN, "DARKROOM_API_KEYS": f"{MUCH},{LITTLE}"}
MODEL = {"model": "clarity-upscaler", "prompt": "a cup"}


def begun(client: httpx.Client, **fields: str) -> httpx.Response:
    """Ask for a job in the background."""
    return ask(client, headers=None, background="true", **fields)


def refused(answer: httpx.Response) -> tuple[int, str]:
    """How a call was turned away, with a time to come again."""
    assert answer.headers["retry-after"] == "5"
    return answer.status_code, answer.json()["error"]["code"]


def metric(here: World, name: str, **labels: str) -> float:
    return here.metric(name, key=ADMIN, **labels)


def test_jobs() -> None:
    """A key that has filled `max_jobs` keeps no other one out, nor takes again what that one was refused."""
    with world("replicate", environ={**KEYS, "DARKROOM_GATEWAY__MAX_JOBS": "8"}) as here:
        here.sims["replicate"].run_s = 60.0
        with caller(here.url, key=MUCH) as much, caller(here.url, key=LITTLE) as little:
            jobs = [begun(much).json()["id"] for _ in range(8)]
            assert refused(begun(much)) == (503, "overloaded")
            first = begun(little)
            assert first.status_code == 202
            assert refused(begun(little)) == (503, "overloaded")

            for job in jobs[:2]:
                much.post(f"/images/jobs/{job}/cancel")
                ended(much, job)
            answer = begun(much)
            assert refused(answer) == (429, "rate_limit_exceeded")
            assert "reserved for other keys" in answer.json()["error"]["message"]
            second = begun(little)
            assert second.status_code == 202
            assert metric(here, "darkroom_refused_total", reason="share") >= 1
            for client, job in [(much, job) for job in jobs[2:]] + [(little, a.json()["id"]) for a in (first, second)]:
                client.post(f"/images/jobs/{job}/cancel")


def test_one_key_alone_has_every_job() -> None:
    """Nothing is kept for keys that do not call."""
    with world("replicate", environ={**KEYS, "DARKROOM_GATEWAY__MAX_JOBS": "3"}) as here:
        here.sims["replicate"].run_s = 60.0
        with caller(here.url, key=MUCH) as much:
            jobs = [begun(much) for _ in range(3)]
            assert [answer.status_code for answer in jobs] == [202] * 3
            for answer in jobs:
                much.post(f"/images/jobs/{answer.json()['id']}/cancel")


def test_bytes() -> None:
    """A key whose bodies fill the room keeps no small body of another one out."""
    environ = {**KEYS, "DARKROOM_GATEWAY__MAX_IN_FLIGHT_BYTES": "40000", "DARKROOM_GATEWAY__BODY_TIMEOUT_S": "60"}
    with world("replicate", environ=environ) as here, line(here.url) as first, line(here.url) as second:
        body = form(tiny() + bytes(38_500), **MODEL)
        first.say(head(here.url, len(body), f"authorization: Bearer {MUCH}"))
        first.say(body[:-20])
        until(lambda: metric(here, "darkroom_request_bytes_held") > 38_000, "the bytes are counted")
        large = form(flat(8, 8) + bytes(3_000), **MODEL)
        second.say(head(here.url, len(large), f"authorization: Bearer {MUCH}", "expect: 100-continue"))
        assert second.receive().error["code"] == "overloaded"
        with caller(here.url, key=LITTLE) as little:
            fields = {"padding": "x" * 3_000, "routing": json.dumps({"only": ["replicate"]})}
            answer = ask(little, headers=None, **fields)
        assert answer.status_code == 200, answer.text


class Recorded(FakeCog):
    """A worker that writes down whose job it works on, and works on each until it is let go."""

    def __init__(self) -> None:
        super().__init__(play=self.work, schema=announced())
        self.order: list[str] = []
        self.free = threading.Semaphore(0)

    async def work(self, cog: FakeCog, job: str, given: dict[str, Any]) -> Response:
        """Wait to be let go."""
        self.order.append(given["prompt"])
        while not self.free.acquire(blocking=False):  # noqa: ASYNC110 - it is let go from another thread
            await asyncio.sleep(0.005)
        return succeeded(data_uri(tiny(48, 32)))


@contextmanager
def at_home() -> Iterator[tuple[World, Recorded]]:
    """A gateway before one worker."""
    worker = Recorded()
    with serve(worker.app) as served:
        environ = {
            **KEYS,
            "DARKROOM_PROVIDERS__LOCAL__WORKERS": json.dumps([served.url]),
            "DARKROOM_PROVIDERS__LOCAL__MAX_QUEUE": "8",
            "DARKROOM_GATEWAY__DEADLINE_S": "120",
            "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "100",
        }
        with world(environ=environ) as here:
            until(lambda: httpx.get(f"{here.url}/readyz").status_code == 200, "the worker is seen")
            try:
                yield here, worker
            finally:
                worker.free.release(100)


def test_the_local_queue() -> None:
    """A job waits for one of another key's jobs, and not for all that are there; a full queue has a place for it."""
    with at_home() as (here, worker), caller(here.url, key=MUCH) as much, caller(here.url, key=LITTLE) as little:
        jobs = [begun(much, prompt=f"much {n}").json()["id"] for n in range(9)]
        until(lambda: metric(here, "darkroom_queue_depth", provider="local") == 8, "the queue is full")
        crowded = ended(much, begun(much, prompt="too much").json()["id"])
        assert crowded["error"]["code"] == "rate_limit_exceeded"
        mine = begun(little, prompt="little").json()["id"]
        until(lambda: metric(here, "darkroom_queue_depth", provider="local") == 9, "it waits with the others")
        worker.free.release(2)
        assert ended(little, mine)["status"] == "completed"
        assert worker.order[:2] == ["much 0", "little"]
        worker.free.release(100)
        assert [ended(much, job)["status"] for job in jobs] == ["completed"] * 9
        assert worker.order == ["much 0", "little", *(f"much {n}" for n in range(1, 9))]
