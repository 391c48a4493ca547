"""Finding a job of fal again: after a lost answer, after a crash, by webhook and by fal's own list."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from providers.base import Handle, PendingSubmit
from providers.errors import Unknown
from providers.fal.adapter import Fal
from providers.fal.recovery import fingerprint
from tests.contract.fal_setup import CLARITY, adapter, job, picture, run, soon
from tests.simulators.common import Fault, html, size, tiny
from tests.simulators.fal import KEY, FalAi
from tests.support.links import Told


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
async def fal(sim: FalAi) -> AsyncIterator[Fal]:
    async with adapter(sim) as made:
        yield made


async def crashed(sim: FalAi, *, name: str = "dr-1", taken: bool = True, **payload: Any) -> PendingSubmit:
    """Submit in a process that dies before it hears the answer, and return what it had written down."""
    told = Told()
    wanted = replace(job(**payload), id=name)
    sim.faults.script("submit", Fault(kind="cut", after=taken))
    async with adapter(sim, reconcile_s=0, api_url=f"{sim.api_url}/nowhere") as dying:
        with pytest.raises(Unknown):
            await dying.submit(wanted, told)
    stored = json.loads(json.dumps(told.notes[0]))
    return PendingSubmit(id=name, upstream=wanted.upstream, at=time.time(), data=stored)


async def test_a_submit_whose_answer_is_lost_is_found(fal: Fal, sim: FalAi) -> None:
    """fal lists it with our input: it is waited for, and paid for once."""
    sim.faults.script("submit", Fault(kind="cut", after=True))
    outcome = await run(fal, seed=7)
    assert size(outcome.images[0]) == (48, 32)
    assert outcome.cost is not None
    assert len(sim.books.taken) == sim.books.billed == 1


async def test_a_crash_between_the_submit_and_its_answer(sim: FalAi) -> None:
    """Another process finds the job with what was written down, and has its picture; fal has one job in its books."""
    sent = await crashed(sim, seed=7, upscale_factor=3)
    async with adapter(sim) as heir:
        handle = await heir.recover(sent)
        outcome = await heir.wait(handle, soon())
    assert [handle.id] == sim.books.taken
    assert size(outcome.images[0]) == (72, 48)
    assert outcome.cost == round(72 * 48 / 1e6 * 0.03 * 1e6)
    assert len(sim.asked("POST")) == sim.books.billed == 1


async def test_a_found_handle_is_as_good_as_any(sim: FalAi) -> None:
    """It is plain data, and has what the handle of an answered submit has."""
    sent = await crashed(sim, seed=7)
    async with adapter(sim) as heir:
        handle = await heir.recover(sent)
        again = await heir.recover(sent)
        other = await heir.submit(job(seed=8))
    assert handle == again
    assert handle.data.keys() == other.data.keys()
    stored = json.loads(json.dumps({"provider": handle.provider, "id": handle.id, "data": dict(handle.data)}))
    async with adapter(sim) as third:
        assert size((await third.wait(Handle(**stored), soon())).images[0]) == (48, 32)


async def test_a_picture_that_was_uploaded_is_told_by_its_address(sim: FalAi) -> None:
    """Then fal lists an address, which no other job has."""
    told = Told()
    sim.faults.script("submit", Fault(kind="cut", after=True))
    async with adapter(sim, data_uri_bytes=10) as fal:
        handle = await fal.submit(job(), told)
    assert [handle.id] == sim.books.taken
    assert len(sim.asked("POST")) == 1


async def test_a_job_that_was_never_taken_stays_unknown(sim: FalAi, fal: Fal) -> None:
    """That fal does not list it is no proof: it may not be listed yet."""
    sent = await crashed(sim, taken=False)
    with pytest.raises(Unknown):
        await fal.recover(sent)
    assert sim.books.taken == []
    assert len(sim.asked("POST")) == 1


async def test_a_job_that_still_runs_is_found_when_it_is_listed(sim: FalAi) -> None:
    """It is asked for again and again, for a while."""
    sim.run_s = 0.4
    sent = await crashed(sim)
    async with adapter(sim, reconcile_s=60) as heir:
        assert [(await heir.recover(sent)).id] == sim.books.taken
    assert len(sim.asked("GET", "by-endpoint", host="api")) > 2


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 8},
        {"seed": 7, "prompt": "something else"},
        {"seed": 7, "image_url": picture(tiny(24, 16, (1, 2, 3)))},
        {"seed": 7, "upscale_factor": 3},
    ],
)
async def test_the_job_of_another_input_is_not_taken_for_it(sim: FalAi, fal: Fal, other: dict[str, Any]) -> None:
    """A picture that somebody else ordered must never be handed out: each field counts, and the picture's bytes."""
    sent = await crashed(sim, taken=False, seed=7, upscale_factor=2)
    await run(fal, **{"upscale_factor": 2, **other})
    with pytest.raises(Unknown):
        await fal.recover(sent)
    assert len(sim.asked("GET", "by-endpoint", host="api")) >= 2


async def test_of_two_with_the_same_input_none_is_taken(sim: FalAi) -> None:
    """Which one it was cannot be told."""
    sent = await crashed(sim, seed=7)
    await crashed(sim, name="dr-2", seed=7)
    async with adapter(sim) as heir:
        with pytest.raises(Unknown):
            await heir.recover(sent)
    assert sim.books.billed == 2


async def test_a_request_that_is_known_to_be_another_jobs_is_not_taken(sim: FalAi, fal: Fal) -> None:
    """In one process the other one of two alike is told by its id."""
    first = await fal.submit(job(seed=7))
    sim.faults.script("submit", Fault(kind="cut", after=True))
    second = await fal.submit(replace(job(seed=7), id="dr-2"))
    assert [first.id, second.id] == sim.books.taken


async def test_a_request_of_another_time_is_not_taken(sim: FalAi, fal: Fal) -> None:
    """The same input an hour before or after was another order."""
    sent = await crashed(sim, seed=7)
    for away in (-3600, 3600):
        with pytest.raises(Unknown):
            await fal.recover(replace(sent, at=sent.at + away))
    assert (await fal.recover(replace(sent, at=sent.at - 5))).id == sim.books.taken[0]


async def test_without_its_input_no_request_is_taken(sim: FalAi, fal: Fal) -> None:
    """fal keeps inputs for a while, and perhaps not at all."""
    sent = await crashed(sim, seed=7)
    sim.history.withheld.update(sim.books.taken)
    with pytest.raises(Unknown):
        await fal.recover(sent)
    sim.history.withheld.clear()
    with pytest.raises(Unknown):
        await fal.recover(replace(sent, data={**sent.data, "input": "{}"}))
    with pytest.raises(Unknown):
        await fal.recover(replace(sent, data={**sent.data, "input": "?"}))
    with pytest.raises(Unknown):
        await fal.recover(replace(sent, data={}))


async def test_beside_one_that_cannot_be_judged_none_is_taken(sim: FalAi, fal: Fal) -> None:
    """Another request of that time, whose input cannot be seen, may be the one."""
    sent = await crashed(sim, seed=7)
    await run(fal, seed=8)
    sim.history.withheld.add(sim.books.taken[1])
    async with adapter(sim) as heir:
        with pytest.raises(Unknown):
            await heir.recover(sent)
        sim.history.withheld.clear()
        assert (await heir.recover(sent)).id == sim.books.taken[0]


async def test_the_list_is_read_to_its_end(sim: FalAi, fal: Fal) -> None:
    """Ours may be behind a hundred that came later."""
    sent = await crashed(sim, seed=7)
    template = sim.history._tasks[sim.books.taken[0]]
    for number in range(250):
        name = f"stranger-{number:04d}"
        sim._tasks[name] = replace(template, id=name, sent=template.sent + 100)
    assert (await fal.recover(sent)).id == sim.books.taken[0]
    looks = sim.asked("GET", "by-endpoint", host="api")
    assert sum("cursor=" in seen.query for seen in looks) == 2
    # Inputs may be large: only that of a request of the time is asked for.
    assert sum("expand=payloads" in seen.query for seen in looks) == 1


async def test_the_list_is_asked_for_like_this(sim: FalAi, fal: Fal) -> None:
    """Our key, the endpoint with its sub-path, the time, and nothing of the input."""
    sent = await crashed(sim, seed=7)
    await fal.recover(sent)
    first, second = sim.asked("GET", "by-endpoint", host="api")
    assert {seen.headers["authorization"] for seen in (first, second)} == {f"Key {KEY}"}
    assert first.path == "/v1/models/requests/by-endpoint"
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(sent.at) - 60)).replace(":", "%3A")
    assert first.query.replace(":", "%3A") in {
        f"endpoint_id={CLARITY}&start={start}&limit=100",
        f"endpoint_id={CLARITY.replace('/', '%2F')}&start={start}&limit=100",
    }
    assert f"request_id={sim.books.taken[0]}&expand=payloads" in second.query


@pytest.mark.parametrize(
    "fault",
    [
        html(502),
        Fault(status=429, body={}, headers={"retry-after": "0"}),
        Fault(status=200, body=b""),
        Fault(status=200, body={"items": 5}),
        Fault(kind="cut"),
    ],
)
async def test_a_list_that_does_not_come_is_asked_for_again(sim: FalAi, fault: Fault) -> None:
    """One bad answer says nothing."""
    sent = await crashed(sim, seed=7)
    sim.faults.script("list", fault)
    async with adapter(sim, reconcile_s=60) as heir:
        assert (await heir.recover(sent)).id == sim.books.taken[0]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=401, body={}),
        Fault(status=403, body={}),
        Fault(status=404, body={}),
        html(502),
        Fault(kind="hang"),
        Fault(kind="endless"),
        Fault(status=200, body={"items": [None, 5, {}, {"request_id": 5}, {"request_id": "../../etc/passwd"}]}),
        Fault(status=200, body={"items": [], "next_cursor": "same", "has_more": True}),
        Fault(status=200, body={"items": [{"request_id": "12345678", "endpoint_id": CLARITY, "sent_at": "soon"}]}),
    ],
)
async def test_a_list_that_cannot_be_had_is_unknown(sim: FalAi, fault: Fault) -> None:
    """Whatever it says: nothing is bought, and nothing is made up."""
    sent = await crashed(sim, seed=7)
    sim.faults.always("list", fault)
    async with adapter(sim, poll_timeout_s=0.3, reconcile_s=0.3) as heir:
        with pytest.raises(Unknown):
            await heir.recover(sent)
    assert len(sim.asked("POST")) == 1


async def test_a_webhook_names_the_job(sim: FalAi, fal: Fal) -> None:
    """With the id that was heard nothing has to be searched, be it at work or done."""
    sim.run_s = 0.3
    sent = await crashed(sim, seed=7)
    heard = replace(sent, heard=sim.books.taken[0])
    handle = await fal.recover(heard)
    outcome = await fal.wait(handle, soon())
    assert size(outcome.images[0]) == (48, 32)
    assert outcome.cost == round(48 * 32 / 1e6 * 0.03 * 1e6)
    assert sim.asked("GET", host="api") == []


@pytest.mark.parametrize("heard", ["00000000-0000-4000-8000-000000000000", "../../x", ""])
async def test_a_webhook_that_names_no_job_of_ours_is_unknown(sim: FalAi, fal: Fal, heard: str) -> None:
    """fal signs for all of its users: an id that is not known there with our key is not ours."""
    sent = await crashed(sim, seed=7)
    with pytest.raises(Unknown):
        await fal.recover(replace(sent, heard=heard))


async def test_a_request_held_open_cannot_be_found(sim: FalAi) -> None:
    """The synchronous host gives its result to the connection that asked, and to nobody else."""
    told = Told()
    async with adapter(sim, mode="run") as fal:
        wanted = job()
        handle = await fal.submit(wanted, told)
        await fal.wait(handle, soon())
        sent = PendingSubmit(id=wanted.id, upstream=wanted.upstream, at=time.time(), data=told.notes[0])
        with pytest.raises(Unknown):
            await fal.recover(sent)
        with pytest.raises(Unknown):
            await fal.recover(replace(sent, heard=sim.books.taken[0]))
    async with adapter(sim, key=None) as off:
        with pytest.raises(Unknown):
            await off.recover(replace(sent, data={**sent.data, "mode": "queue"}))


def test_a_fingerprint_is_of_values_and_not_of_their_spelling() -> None:
    """A picture counts by its bytes, 2.0 is 2; order matters in a list and not in an object; true is not 1."""
    ours = fingerprint({"image_url": picture(), "images": [picture()], "scale": 2.0, "o": {"a": 1, "b": None}})
    theirs = fingerprint({"o": {"b": None, "a": 1}, "scale": 2, "images": [tiny()], "image_url": tiny()})
    assert ours == theirs
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
    assert fingerprint({"a": True}) != fingerprint({"a": 1})
    assert fingerprint({"a": "1"}) != fingerprint({"a": 1})
    assert all(len(mark) == 16 for mark in ours.values())
