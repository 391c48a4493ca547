"""A job that has succeeded is paid for: whatever its delivery does, it is fetched, and nothing is bought in its place.

Seven shapes of trouble at each of five providers, alone and with a second route at hand: the caller is answered at the
deadline, there is one bill, and the picture is there once the delivery is well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.simulators.base import Simulated
from tests.simulators.clouds import ALL
from tests.simulators.cog import CogWorker
from tests.simulators.common import Fault, Op, html, size, tiny
from tests.support.clock import Faster
from tests.support.faults import says
from tests.support.running import until
from tests.support.world import Answer, world

pytestmark = pytest.mark.early
_AT_ONCE = 8
# The gateways' clock goes faster than ours by this; the timeouts of a single request do not.
_TIMES = 10
_DEADLINE_S = 40
# What a busy machine may take besides, by the gateways' clock.
_SLACK_S = 80
_ENVIRON = {
    "DARKROOM_GATEWAY__DEADLINE_S": str(_DEADLINE_S),
    "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "25",
    "DARKROOM_GATEWAY__DOWNLOAD_TIMEOUT_S": "1",
    "DARKROOM_GATEWAY__POLL_TIMEOUT_S": "1",
}
PROVIDERS = (*ALL, "local")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with each request of a kind. With `once` it does so once, and the caller has his picture."""

    op: Op
    fault: Fault
    once: bool = False
    word: str = "generated and billed"
    """What the caller is told of it, among others."""


_PICTURE = tiny(48, 32)
TROUBLES: Mapping[str, Trouble] = {
    "nothing comes": Trouble("download", Fault(kind="hang")),
    "a byte at a time": Trouble("download", Fault(kind="drip", seconds=0.3)),
    "forbidden": Trouble("download", says(403, b"expired")),
    "not found": Trouble("download", says(404, b"NoSuchKey")),
    "cut off": Trouble("download", Fault(kind="cut_within")),
    "broken once": Trouble("download", says(200, b"\x89PNG" + bytes(len(_PICTURE) - 4)), once=True),
    "the job's own page fails": Trouble("poll", html(502), word="can be read by its id"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a call came to: its answer, in how many seconds of the gateway's, and the job as it was in the end."""

    answer: Answer
    seconds: float
    before: Any
    after: Any
    image: bytes
    taken: tuple[int, int]
    billed: tuple[int, int]


CASES = [
    (name, victim, alone)
    for name, trouble in TROUBLES.items()
    for victim in PROVIDERS
    for alone in (True, False)
    # A worker has no page for a job.
    if not (victim == "local" and trouble.op == "poll")
]
IDS = [f"{name}-{victim}-{'alone' if alone else 'second'}" for name, victim, alone in CASES]


@pytest.fixture(scope="module")
def plays(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Played]]]:
    """All cases that are to be tested, each in a world of its own, several at once: most of them wait."""
    chosen = {item.name for item in request.session.items}
    cases = {
        id_: case for id_, case in zip(IDS, CASES, strict=True) if f"test_what_is_paid_is_fetched[{id_}]" in chosen
    }
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {id_: pool.submit(_play, *case) for id_, case in cases.items()}


def _params() -> Iterator[object]:
    """Of each trouble at each provider one case runs every time: with a second route or without."""
    for id_, (_, victim, alone) in zip(IDS, CASES, strict=True):
        often = alone == (victim in ("fal", "local"))
        yield pytest.param(id_, id=id_, marks=() if often else pytest.mark.slow)


@pytest.mark.parametrize("case", list(_params()))
def test_what_is_paid_is_fetched(case: str, plays: Mapping[str, Future[Played]]) -> None:
    """One bill, an answer in time that says what is so, and the picture later."""
    played = plays[case].result()
    answer, trouble = played.answer, TROUBLES[case.partition("-")[0]]
    told = f"{answer.status} {answer.body.get('error')} {answer.attempts} {played.seconds} {played.after}"
    assert played.taken == (1, 0), told
    # A worker of one's own bills nothing.
    assert played.billed == (0 if "-local-" in case else 1, 0), told
    assert size(played.image) == (48, 32), told
    assert played.after["status"] == "completed", told
    assert [attempt["outcome"] for attempt in played.after["result"]["metadata"]["attempts"]] == ["ok"], told
    if trouble.once or answer.status == 200:
        assert answer.status == 200, told
        # A cancel that comes too late is answered with the result itself.
        assert trouble.once or trouble.op == "poll", told
        return
    assert (answer.status, answer.code) == (504, "deadline_exceeded"), told
    assert played.seconds < _DEADLINE_S + _SLACK_S, told
    assert answer.headers["x-should-retry"] == "false"
    assert trouble.word in answer.body["error"]["message"], told
    assert played.before["status"] == "in_progress", told


def _play(name: str, victim: str, alone: bool) -> Played:
    trouble = TROUBLES[name]
    rescue = "replicate" if victim == "fal" else "fal"
    clouds = [one for one in (victim, "" if alone else rescue) if one and one != "local"]
    with ExitStack() as stack:
        environ = dict(_ENVIRON)
        worker: Simulated | None = None
        if victim == "local":
            worker = stack.enter_context(CogWorker().running())
            environ["DARKROOM_PROVIDERS__LOCAL__WORKERS"] = worker.addresses["workers"]
        there = stack.enter_context(world(*clouds, environ=environ, clock=Faster(_TIMES)))
        sim = worker or there.sims[victim]
        if worker is not None:
            until(lambda: httpx.get(f"{there.url}/readyz").status_code == 200, "the worker is seen")
        if trouble.once:
            sim.faults.script(trouble.op, trouble.fault)
        else:
            sim.faults.always(trouble.op, trouble.fault)
        began = time.monotonic()
        answer = there.edit(routing=json.dumps({"order": [victim]}), retries=0)
        seconds = (time.monotonic() - began) * _TIMES
        job = f"{there.url}/openai/v1/images/jobs/{answer.headers['x-darkroom-job']}"
        before = httpx.get(job).json()
        sim.faults.clear()
        until(lambda: httpx.get(job).json()["status"] != "in_progress", "the job has ended")
        after = httpx.get(job).json()
        picture = httpx.get(after["result"]["data"][0]["url"]).content if after["result"] else b""
        books = [sim.books] if alone else [sim.books, there.sims[rescue].books]
        return Played(
            answer=answer,
            seconds=seconds,
            before=before,
            after=after,
            image=picture,
            taken=(len(books[0].taken), 0 if alone else len(books[1].taken)),
            billed=(books[0].billed, 0 if alone else books[1].billed),
        )


def test_the_caller_is_answered_at_the_deadline() -> None:
    """Cancelling is inside of it, also where the provider does not answer to that; what goes on is told as it is."""
    environ = {"DARKROOM_GATEWAY__DEADLINE_S": "5", "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "60"}
    with world("replicate", environ=environ) as there:
        sim = there.sims["replicate"].timed(run_s=60)
        sim.faults.always("cancel", Fault(kind="hang"))
        sim.faults.always("poll", html(502))
        began = time.monotonic()
        answer = there.edit(retries=0)
        seconds = time.monotonic() - began

    assert (answer.status, answer.code, answer.story) == (504, "deadline_exceeded", ["replicate unfinished"])
    assert answer.headers["x-darkroom-job"]
    # It took ten seconds more for the cancel, and fifteen for a result.
    assert 5 <= seconds < 10
