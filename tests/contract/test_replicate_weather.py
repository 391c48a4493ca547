"""The adapter for Replicate in bad weather: what each fault becomes, and that nothing is bought twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from normalization.values import Image
from providers.errors import (
    Expired,
    Failed,
    ProviderError,
    Rejected,
    Throttled,
    Undecodable,
    Unfetched,
    Unknown,
    Unreached,
    Unusable,
)
from providers.replicate.adapter import Replicate
from tests.contract.replicate_setup import IMAGE, adapter, job, run
from tests.simulators.common import Fault, html, size, tiny
from tests.simulators.replicate import Simulator
from tests.support.ports import dead_port


@pytest.fixture
def sim(running_replicate: Simulator) -> Simulator:
    running_replicate.reset()
    return running_replicate


@pytest.fixture
async def provider(sim: Simulator) -> AsyncIterator[Replicate]:
    async with adapter(sim) as made:
        yield made


THROTTLED = {"detail": "Request was throttled. Your rate limit resets in ~30s.", "status": 429}
CREDIT = "You have insufficient credit to run this model."
FORMAT = 'output_format must be one of the following: "webp", "jpg", "png"'


@pytest.mark.parametrize(
    ("fault", "kind", "message", "retry_after"),
    [
        (Fault(status=400, body={"detail": "bad"}), Rejected, "bad", None),
        (Fault(status=401, body={"detail": "Invalid token."}), Unusable, "Invalid token", None),
        (Fault(status=402, body={"title": "Insufficient credit", "detail": CREDIT}), Unusable, "credit", None),
        (Fault(status=403, body={"detail": "no"}), Unusable, "403", None),
        (Fault(status=404, body={"detail": "not found"}), Failed, "404", None),
        (Fault(status=413, body={"detail": "too large"}), Rejected, "413", None),
        (
            Fault(status=422, body={"title": "Invalid version or not permitted", "detail": "none"}),
            Failed,
            "none",
            None,
        ),
        (Fault(status=429, body=THROTTLED), Throttled, "throttled", 30.0),
        (Fault(status=429, body={**THROTTLED, "retry_after": 5}), Throttled, "throttled", 5.0),
        (Fault(status=429, body=THROTTLED, headers={"retry-after": "7"}), Throttled, "throttled", 7.0),
        (Fault(status=429, body=b""), Throttled, "429", None),
        (Fault(status=503, body={"detail": "busy"}), Failed, "503", None),
    ],
)
async def test_a_refused_submit(
    provider: Replicate,
    sim: Simulator,
    fault: Fault,
    kind: type[ProviderError],
    message: str,
    retry_after: float | None,
) -> None:
    """Each refusal is the error that carries its policy, after one request, and nothing was taken."""
    sim.faults.script("submit", fault)
    with pytest.raises(kind, match=message) as caught:
        await provider.submit(job())
    assert caught.value.retry_after == retry_after
    assert sim.books.count("POST", "") == 1
    assert sim.books.taken == []


async def test_an_input_that_the_model_refuses_names_the_parameter(provider: Replicate, sim: Simulator) -> None:
    """The log says which parameter it was and what would have been taken."""
    with pytest.raises(Rejected) as caught:
        await provider.submit(job(output_format="gif"))
    assert (caught.value.told, caught.value.said) == ("replicate: HTTP 422", FORMAT)


LOST = [
    Fault(kind="cut", after=True),
    Fault(kind="cut_within"),
    Fault(kind="hang", after=True),
    replace(html(502), after=True),
    replace(html(504), after=True),
    Fault(status=500, body={"detail": "Internal error"}, after=True),
    Fault(status=201, body=b"{'", after=True),
    Fault(status=201, body=b"", after=True),
    Fault(status=201, body=[1], after=True),
    Fault(status=201, body={"status": "starting"}, after=True),
    Fault(status=200, body={"error": "no"}, after=True),
]


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: f"{fault.kind}-{fault.status}")
async def test_a_job_whose_submit_was_not_answered_is_found_again(
    provider: Replicate, sim: Simulator, fault: Fault
) -> None:
    """The submit was taken and its answer lost: the job turns up in the list, and is bought once."""
    sim.faults.script("submit", fault)
    outcome = await run(provider)

    assert size(outcome.images[0]) == (48, 32)
    assert sim.books.count("POST", "/v1/predictions") == 1
    assert sim.books.billed == 1


@pytest.mark.parametrize("fault", [replace(fault, after=False) for fault in LOST if fault.kind != "cut_within"])
async def test_a_job_that_is_not_found_again_is_unknown(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """A list that does not have it proves nothing, but for a 500 that Replicate itself has said."""
    sim.faults.script("submit", fault)
    with pytest.raises(Failed if fault.status == 500 and fault.body else Unknown):
        await provider.submit(job())
    assert sim.books.count("POST", "") == 1
    assert sim.books.count("GET", "/v1/predictions") >= 1


async def test_a_list_that_cannot_be_read_leaves_a_lost_job_unknown(provider: Replicate, sim: Simulator) -> None:
    """Even after a 500: it may have been taken."""
    sim.faults.script("submit", Fault(status=500, body={"detail": "Internal error"}))
    sim.faults.always("list", Fault(body={"results": 3}, status=200))
    with pytest.raises(Unknown):
        await provider.submit(job())


async def test_a_lost_job_is_not_taken_for_another(provider: Replicate, sim: Simulator) -> None:
    """Same model, same parameters, same moment: another picture is another caller's job, and ours is ours already."""
    other = tiny(24, 16, (1, 2, 3))
    await provider.submit(job())
    stranger = await provider.submit(job(image=Image(data=other, header=IMAGE.header)))
    provider._ours.pop(stranger.id)
    sim.faults.script("submit", Fault(kind="cut"))
    with pytest.raises(Unknown):
        await provider.submit(job())
    assert len(sim.books.taken) == 2


async def test_a_submit_that_is_refused_a_connection_was_not_sent(sim: Simulator) -> None:
    """Nobody listens: the next route may be tried at once."""
    async with adapter(sim, base_url=f"http://127.0.0.1:{dead_port()}") as away:
        with pytest.raises(Unreached):
            await away.submit(job())


async def test_a_job_is_not_submitted_after_its_deadline(provider: Replicate, sim: Simulator) -> None:
    """Nobody waits for it any more."""
    with pytest.raises(Expired):
        await provider.submit(job(seconds=-1))
    assert sim.bodies == []


WEATHER = [
    html(500),
    html(502),
    html(503),
    html(504),
    Fault(kind="hang"),
    Fault(kind="cut"),
    Fault(kind="cut_within"),
    Fault(kind="drip", seconds=0.1),
    Fault(status=200, body=b"<html>"),
    Fault(status=200, body=b""),
    Fault(status=200, body=[]),
    Fault(status=200, body={"error": "no"}),
    Fault(status=200, body={"status": 7}),
    Fault(status=429, body={"detail": "slow", "retry_after": 0.1}),
    Fault(status=404, body={"detail": "The requested resource could not be found."}),
    Fault(status=401, body={"detail": "no"}),
    Fault(status=302, headers={"location": "https://example.com/"}),
]


@pytest.mark.parametrize("fault", WEATHER, ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.body!r:.12}")
async def test_a_poll_that_fails_is_polled_again(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """Two bad answers in a row cost time, never a second submit."""
    sim.faults.script("poll", fault, fault)
    outcome = await run(provider)

    assert size(outcome.images[0]) == (48, 32)
    assert len(sim.bodies) == 1
    assert sim.books.billed == 1


@pytest.mark.parametrize(
    "fault",
    [
        html(500),
        html(503),
        Fault(status=404),
        Fault(status=429),
        Fault(kind="cut"),
        Fault(kind="cut_within"),
        Fault(status=200, body=b""),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
async def test_a_download_that_fails_is_tried_again(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """A paid picture is not given up for a broken connection, and not bought again."""
    sim.faults.script("download", fault)
    outcome = await run(provider)

    assert size(outcome.images[0]) == (48, 32)
    assert sim.books.billed == 1
    assert len(sim.bodies) == 1


async def test_an_address_that_ran_out_is_asked_for_anew(provider: Replicate, sim: Simulator) -> None:
    """The job names its result again, each time; where none of the addresses is good, it stays to be fetched."""
    sim.faults.script("download", *[Fault(status=403)] * 4)
    assert len((await run(provider)).images) == 1
    sim.faults.always("download", Fault(status=403))
    with pytest.raises(Unfetched, match="HTTP 403") as caught:
        await run(provider)
    assert (caught.value.next_route, caught.value.billed) == (False, True)
    assert len(sim.bodies) == 2


@pytest.mark.parametrize("fault", [Fault(kind="endless"), Fault(status=200, body=bytes(1_000_001))])
async def test_an_endless_result_is_given_up(provider: Replicate, sim: Simulator, fault: Fault) -> None:
    """Bytes are counted while they come."""
    sim.faults.always("download", fault)
    with pytest.raises(Undecodable, match="larger than 1000000 bytes"):
        await run(provider)
