"""The adapter for fal and a submit that goes wrong: refused, or lost, and then found again or not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from email.utils import formatdate

import pytest

from providers.errors import Blocked, Failed, ProviderError, Rejected, Throttled, Unknown, Unusable
from providers.fal.adapter import Fal
from tests.contract.fal_setup import SECRET, adapter, begun, job, soon
from tests.simulators.common import Fault, html, size
from tests.simulators.fal import FalAi


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
async def fal(sim: FalAi) -> AsyncIterator[Fal]:
    async with adapter(sim) as made:
        yield made


LIST = {
    "detail": [{"loc": ["body", "seed"], "msg": "Input should be a valid integer", "type": "int_type", "input": SECRET}]
}
POLICY = {
    "detail": [{"loc": ["body", "prompt"], "msg": "Flagged", "type": "content_policy_violation", "input": SECRET}]
}
LOCKED = {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault(status=400, body={"detail": f"Bad input: {SECRET}"}), Rejected, "fal: HTTP 400: Bad input"),
        (Fault(status=401, body={"detail": "invalid key"}), Unusable, "fal: HTTP 401: our account cannot be used"),
        (Fault(status=402, body={}), Unusable, "fal: HTTP 402: our account cannot be used"),
        (Fault(status=403, body=LOCKED), Unusable, "fal: HTTP 403: the account is locked or out of credit"),
        (Fault(status=403, body={"detail": "NSFW content"}), Blocked, "fal: HTTP 403: NSFW content"),
        (Fault(status=404, body={"detail": "Application not found"}), Failed, "fal: HTTP 404: Application not found"),
        (Fault(status=405, body={}), Rejected, "fal: HTTP 405"),
        (Fault(status=406, body={}), Rejected, "fal: HTTP 406"),
        (Fault(status=413, body=b"too large"), Rejected, "fal: HTTP 413"),
        (Fault(status=422, body=LIST), Rejected, "fal: HTTP 422: seed: Input should be a valid integer"),
        (Fault(status=422, body=POLICY), Blocked, "fal: HTTP 422: prompt: Flagged"),
        (Fault(status=429, body={"detail": "Queue is full"}), Throttled, "fal: HTTP 429: Queue is full"),
        (Fault(status=500, body={"detail": "Broken"}), Failed, "fal: HTTP 500: Broken"),
        (Fault(status=503, body={"detail": "Busy"}), Failed, "fal: HTTP 503: Busy"),
        (html(503), Failed, "fal: HTTP 503"),
    ],
)  # fmt: skip
async def test_a_refused_submit_is_the_right_error(
    fal: Fal, sim: FalAi, fault: Fault, kind: type[ProviderError], message: str
) -> None:
    """Nothing was taken, nothing is asked again, and the message has nothing of the input or of fal's advice to us."""
    sim.faults.script("submit", fault)
    with pytest.raises(kind) as caught:
        await fal.submit(job())
    assert type(caught.value) is kind
    assert caught.value.message == message
    assert caught.value.code == str(fault.status)
    assert len(sim.seen) == 1
    assert sim.books.taken == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "in an hour, as a date"}, 3600),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
async def test_how_long_to_leave_it_alone(fal: Fal, sim: FalAi, headers: dict[str, str], seconds: float | None) -> None:
    """429 with seconds, milliseconds, a date, nonsense, nothing."""
    # The date is made here: the tests are collected long before they run.
    hour = formatdate(time.time() + 3600, usegmt=True)
    headers = {name: hour if value.endswith("date") else value for name, value in headers.items()}
    sim.faults.script("submit", Fault(status=429, body={"detail": "x"}, headers=headers))
    with pytest.raises(Throttled) as caught:
        await fal.submit(job())
    assert caught.value.retry_after == pytest.approx(seconds, abs=120)


async def test_the_real_refusals(sim: FalAi) -> None:
    """A wrong key, a locked account and an unknown model, in fal's own words."""
    async with adapter(sim, key="wrong") as fal:
        with pytest.raises(Unusable):
            await fal.submit(job())
    async with adapter(sim) as fal:
        with pytest.raises(Failed, match="Application"):
            await fal.submit(job("fal-ai/nothing"))
        sim.locked = True
        with pytest.raises(Unusable, match="out of credit"):
            await fal.submit(job())


@pytest.mark.parametrize(
    "fault",
    [
        html(500),
        html(502),
        html(504),
        Fault(status=502, body={"detail": "x"}),
        Fault(status=200, body=b""),
        Fault(status=200, body=b"<html>"),
        Fault(status=200, body=b'{"request'),
        Fault(status=200, body=[]),
        Fault(status=200, body={"request_id": 5}),
        Fault(status=200, body={"request_id": "../../etc"}),
        Fault(status=200, body={"detail": "x"}),
        Fault(status=200, body=b"", headers={"x-fal-request-id": "00000000-0000-4000-8000-000000000000"}),
        Fault(status=200, body=b"", headers={"x-fal-request-id": "a/../../b"}),
        Fault(status=307, headers={"location": "https://evil.example"}),
        Fault(kind="cut"),
        Fault(kind="hang"),
        Fault(kind="endless"),
    ],
)
async def test_a_submit_without_a_proper_answer_is_unknown(sim: FalAi, fault: Fault) -> None:
    """The work may have been taken: it is posted once, and nobody is told that it may be bought again."""
    sim.faults.script("submit", fault)
    async with adapter(sim, submit_timeout_s=0.4) as fal:
        with pytest.raises(Unknown) as caught:
            await fal.submit(job())
    assert not caught.value.next_route
    assert len(sim.asked("POST")) == 1
    assert sim.books.billed <= 1


@pytest.mark.parametrize("fault", [Fault(kind="cut", after=True), Fault(kind="hang", after=True), html(502)])
async def test_an_answer_that_is_lost_is_unknown_where_fal_lists_nothing(sim: FalAi, fault: Fault) -> None:
    """Our requests cannot be listed, with a key that may not: then it stays Unknown, and is posted once."""
    sim.faults.script("submit", fault)
    sim.faults.always("list", Fault(status=403, body={}))
    async with adapter(sim, submit_timeout_s=0.4, reconcile_s=30) as fal:
        with pytest.raises(Unknown):
            await fal.submit(job())
    assert len(sim.asked("POST")) == len(sim.asked("GET", host="api")) == 1
    assert sim.books.billed <= 1


@pytest.mark.parametrize("fault", [Fault(kind="cut", after=True), Fault(kind="hang", after=True)])
async def test_an_answer_that_is_lost_as_a_whole_is_found_in_fals_list(sim: FalAi, fault: Fault) -> None:
    """What was posted is there, and its picture is had."""
    sim.faults.script("submit", fault)
    async with adapter(sim, submit_timeout_s=0.4) as fal:
        handle = await begun(fal)
        assert [handle.id] == sim.books.taken
        assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    assert len(sim.asked("POST")) == sim.books.billed == 1


@pytest.mark.parametrize("fault", [Fault(kind="cut_within"), Fault(kind="truncate"), Fault(kind="drip", seconds=0.05)])
async def test_an_answer_in_pieces_still_names_the_job(sim: FalAi, fault: Fault) -> None:
    """The header has the id, and fal says that there is such a job: it is paid for, and its picture is had."""
    sim.faults.script("submit", fault)
    async with adapter(sim, submit_timeout_s=0.5) as fal:
        handle = await begun(fal)
        assert [handle.id] == sim.books.taken
        assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    assert len(sim.asked("POST")) == 1
    assert sim.books.billed == 1


async def test_an_id_in_torn_json_is_found(fal: Fal, sim: FalAi) -> None:
    """An answer that lost its end has the id at its beginning."""
    id_ = "764cabcf-b745-4b3e-ae38-1200304cf45b"
    sim.faults.script("submit", Fault(status=200, body=f'{{"status":"IN_QUEUE", "request_id": "{id_}", "resp'.encode()))
    assert (await begun(fal)).id == id_


async def test_a_named_job_is_asked_for_until_fal_answers(sim: FalAi) -> None:
    """While nothing is heard of it, it may be there; without an answer it stays Unknown."""
    sim.faults.script("submit", Fault(kind="cut_within"))
    sim.faults.script("poll", html(502), Fault(kind="cut"), None)
    async with adapter(sim) as fal:
        assert [(await begun(fal)).id] == sim.books.taken
    sim.faults.script("submit", Fault(kind="cut_within"))
    sim.faults.always("poll", html(502))
    async with adapter(sim, reconcile_s=0.3) as fal:
        with pytest.raises(Unknown):
            await begun(fal)
