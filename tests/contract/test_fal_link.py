"""The adapter for fal and whoever ordered the job: a note before the submit, a webhook, progress, a failure's bill."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import httpx
import pytest

from providers.errors import Blocked, Expired, Failed, ProviderError, Rejected, Undecodable, Unfetched
from providers.fal.adapter import Fal
from providers.fal.responses import failure
from providers.kit.polling import Pace
from tests.contract.fal_setup import CLARITY, SECRET, Joint, adapter, job, soon
from tests.simulators.common import Fault, size
from tests.simulators.fal import FalAi
from tests.support.links import Refused, Told, refuse


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
async def fal(sim: FalAi) -> AsyncIterator[Fal]:
    async with adapter(sim) as made:
        yield made


@pytest.mark.parametrize("mode", ["queue", "run"])
async def test_the_note_comes_once_and_after_all_that_is_free(sim: FalAi, mode: str) -> None:
    """Uploads are over and nothing was bought when it is given; there is nothing of the input in it."""
    seen: list[int] = []
    told = Told(before=lambda: seen.append(len(sim.asked("PUT", host="media")) * 10 + len(sim.books.taken)))
    async with adapter(sim, mode=mode, data_uri_bytes=10) as fal:
        handle = await fal.submit(job(seed=7), told)
        assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    assert seen == [10]
    (note,) = told.notes
    assert (note["mode"], note["model"], note["usd_per_unit"]) == (mode, CLARITY, "0.03")
    text = json.dumps(note)
    assert len(text) < 1000
    assert SECRET not in text
    assert "files" not in text
    assert handle.held is (mode == "run")
    assert len(sim.books.taken) == 1


@pytest.mark.parametrize("mode", ["queue", "run"])
async def test_without_its_note_a_job_is_not_submitted(sim: FalAi, mode: str) -> None:
    """What cannot be written down is not bought."""
    async with adapter(sim, mode=mode) as fal:
        with pytest.raises(Refused):
            await fal.submit(job(), Told(before=refuse))
    assert sim.seen == []
    assert sim.books.taken == []


async def test_nothing_is_noted_where_nothing_is_sent(sim: FalAi, fal: Fal) -> None:
    """No note for a job that is refused before its submit: who reads one must suspect a purchase."""
    told = Told()
    with pytest.raises(Expired):
        await fal.submit(job(seconds=-1), told)
    with pytest.raises(Rejected):
        await fal.submit(job(scale=float("inf")), told)
    assert told.notes == []


async def test_the_webhook_is_a_parameter_of_the_submit(fal: Fal, sim: FalAi) -> None:
    """It is escaped as a whole, and is no part of the input."""
    sim.hooks.way = "none"
    webhook = "https://gateway.example/hooks/x?secret=s+%2F&job=1#a"
    await fal.submit(job(), Told(webhook=webhook))
    (seen,) = sim.asked("POST")
    assert parse_qs(seen.query) == {"fal_webhook": [webhook]}
    assert "webhook" not in seen.body.decode()


async def test_the_link_sleeps_and_hears_how_far_it_is(sim: FalAi) -> None:
    """Shares come from the bars in fal's log, and only go up; its sleep is the one between two looks."""
    sim.run_s = 0.4
    told = Told()
    async with adapter(sim) as fal:
        handle = await fal.submit(job(), told)
        await fal.wait(handle, soon(), told)
    assert len(told.naps) >= 3
    assert told.shares == sorted(set(told.shares))
    assert told.shares[-1] == 1.0
    assert len(told.shares) >= 3
    assert all(0 < share <= 1 for share in told.shares)


async def test_a_sleep_that_is_cut_short_is_a_look(sim: FalAi) -> None:
    """A link that wakes early, as for a webhook, has the result long before the next look was due."""
    clock = Joint(sim)
    slow = Pace(clock)
    for _ in range(8):
        slow.learn(f"fal/{CLARITY}/9", 60)
    async with adapter(sim, clock=clock, pace=slow) as fal:
        told = Told()
        sim.run_s = 0.5
        handle = await fal.submit(job(), told)
        assert size((await fal.wait(handle, clock.after(1.5), told)).images[0]) == (48, 32)
    assert sim.asked("PUT") == []


async def test_logs_are_asked_for_only_where_somebody_listens(fal: Fal, sim: FalAi) -> None:
    """They grow with the job, and alone nobody reads them."""
    handle = await fal.submit(job())
    await fal.wait(handle, soon())
    assert {seen.query for seen in sim.asked("GET", "/status")} == {""}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=200, body={"status": "IN_PROGRESS", "logs": "x" * 1_100_000}),
        Fault(status=422, body={"detail": "no logs"}),
        Fault(status=200, body=b"{"),
    ],
)
async def test_logs_that_make_trouble_are_left_alone(fal: Fal, sim: FalAi, fault: Fault) -> None:
    """How far a job is must never cost the job: the next look asks without."""
    sim.run_s = 1
    sim.faults.script("poll", None, fault)
    told = Told()
    handle = await fal.submit(job(), told)
    assert size((await fal.wait(handle, soon(), told)).images[0]) == (48, 32)
    queries = [seen.query for seen in sim.asked("GET", "/status")]
    assert queries[:2] == ["logs=1", "logs=1"]
    assert set(queries[2:]) == {""}


@pytest.mark.parametrize("logs", [5, {"a": 1}, [1, None, {}, {"message": 5}, {"message": "x" * 9000}], None])
async def test_a_log_that_is_none_is_no_matter(fal: Fal, sim: FalAi, logs: object) -> None:
    """Garbage tells nothing and breaks nothing."""
    told = Told()
    body = {"status": "COMPLETED", "logs": logs, "metrics": {"inference_time": 1}}
    sim.faults.always("poll", Fault(status=200, body=body))
    handle = await fal.submit(job(), told)
    assert size((await fal.wait(handle, soon(), told)).images[0]) == (48, 32)
    assert told.shares == []


@pytest.mark.parametrize(
    ("headers", "usd", "detail", "cost", "billed"),
    [
        ({"x-fal-billable-units": "2"}, "0.03", "x", 60_000, True),
        ({"x-fal-billable-units": "0"}, "0.03", "x", 0, False),
        ({"x-fal-billable-units": "0"}, "", "x", 0, False),
        ({"x-fal-billable-units": "2"}, "", "x", None, None),
        ({}, "0.03", "x", None, None),
        ({"x-fal-billable-units": "many"}, "0.03", "x", None, None),
    ],
)
@pytest.mark.parametrize(("status", "kind"), [(422, Rejected), (500, Failed)])
def test_the_bill_of_a_failure(
    headers: dict[str, str], usd: str, detail: str, cost: int | None, billed: bool | None, status: int, kind: type
) -> None:
    """What fal says of it is on the error; a refused input that it says nothing of may be billed."""
    error = failure(httpx.Response(status, headers=headers), {"detail": detail}, now=0, ended=True, usd=usd)
    assert (type(error), error.cost, error.billed) == (kind, cost, billed)


def test_a_refused_submit_is_not_billed() -> None:
    """A submit's 422 is no job's end."""
    error = failure(httpx.Response(422), {"detail": "x"}, now=0, ended=False)
    assert (error.cost, error.billed) == (None, False)


@pytest.mark.parametrize("mode", ["queue", "run"])
@pytest.mark.parametrize(
    ("word", "kind", "cost"),
    [("FAILED", Failed, 0), ("POLICY", Blocked, 0), ("SLOW_START", Expired, 0), ("RUNNER", Failed, None)],
)
async def test_wait_tells_the_bill_of_a_failed_job(
    sim: FalAi, mode: str, word: str, kind: type[ProviderError], cost: int | None
) -> None:
    """Units that are told count, and a job that never began costs nothing; else nobody knows."""
    sim.faults.script("job", Fault(kind="job", word=word))
    async with adapter(sim, mode=mode) as fal:
        handle = await fal.submit(job())
        with pytest.raises(kind) as caught:
            await fal.wait(handle, soon())
    assert caught.value.cost == cost
    assert caught.value.billed is (None if cost is None else bool(cost))


async def test_a_picture_that_cannot_be_had_costs_what_it_cost(sim: FalAi) -> None:
    """It is paid for: the bill is on the error."""
    bill = round(48 * 32 / 1e6 * 0.03 * 1e6)
    for word, kind in (("LOST", Unfetched), ("EMPTY", Undecodable)):
        sim.faults.script("job", Fault(kind="job", word=word))
        async with adapter(sim) as fal:
            handle = await fal.submit(job())
            with pytest.raises(kind) as caught:
                await fal.wait(handle, soon())
        assert (caught.value.cost, caught.value.billed) == (bill, True)
    async with adapter(sim, max_result_bytes=50) as fal:
        handle = await fal.submit(job())
        with pytest.raises(Undecodable, match="larger") as caught:
            await fal.wait(handle, soon())
    assert caught.value.cost == bill
