"""Replicate's webhooks: what they are asked to tell, and which of them are believed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from typing_extensions import override

from providers.base import WebhookEvent
from providers.clock import CLOCK, Clock
from providers.kit.polling import Pace
from providers.replicate.adapter import Replicate
from tests.contract.replicate_setup import Joint, adapter, job, soon
from tests.simulators.common import Fault, html
from tests.simulators.replicate import Simulator
from tests.simulators.replicate_hooks import new_secret, signed
from tests.support.fake_cog import until
from tests.support.linked import Door, Told, door


@pytest.fixture
def sim(running_replicate: Simulator) -> Simulator:
    running_replicate.reset()
    return running_replicate


@pytest.fixture
async def provider(sim: Simulator) -> AsyncIterator[Replicate]:
    """Over a real clock: the messages come by one, and would miss what a job was in time that is skipped."""
    async with adapter(sim, clock=CLOCK) as made:
        yield made


@pytest.fixture
def clock(sim: Simulator) -> Joint:
    return Joint(sim)


@pytest.fixture
async def hasty(sim: Simulator, clock: Joint) -> AsyncIterator[Replicate]:
    """Over a clock that skips time."""
    async with adapter(sim, clock=clock) as made:
        yield made


@pytest.fixture
def hooks() -> Iterator[Door]:
    with door() as made:
        yield made


def message(sim: Simulator, body: bytes | str, *, age: float = 0.0, secret: str = "") -> tuple[dict[str, str], bytes]:
    """A webhook as Replicate signs it."""
    raw = body if isinstance(body, bytes) else body.encode()
    return signed(secret or sim.hooks.secret, "msg_1", raw, time.time() - age), raw


GOOD = json.dumps({"id": "p1", "status": "processing", "logs": "  5%|▌ | 1/20\n 45%|████▌     | 9/20 [00:03<00:04]\n"})


async def test_a_job_with_a_webhook_tells_of_itself(provider: Replicate, sim: Simulator, hooks: Door) -> None:
    """What it began, how far it is and that it ended come signed; each is read, and leads to the job."""
    sim.run_s = 0.3
    handle = await provider.submit(job(), Told(hooks.url))
    await provider.wait(handle, soon())
    await until(lambda: "succeeded" in hooks.events("status"))

    assert sim.bodies[0]["webhook"] == hooks.url
    assert hooks.events("status")[0] == "processing"
    assert sim.jobs[handle.id].webhook == hooks.url
    heard = [await provider.parse_webhook(headers, body) for headers, body in hooks.came]
    assert {item.id for item in heard if item} == {handle.id}
    assert len([item for item in heard if item]) == len(hooks.came)
    assert heard[-1] == WebhookEvent(id=handle.id, progress=1.0)
    assert sim.books.count("GET", "/v1/webhooks/default/secret") == 1


@pytest.mark.parametrize(
    ("settings", "events"),
    [({}, ["start", "completed"]), ({"data_uri_bytes": 10}, ["start", "logs", "completed"])],
    ids=["inline", "uploaded"],
)
async def test_logs_are_heard_where_the_picture_does_not_come_with_each(
    sim: Simulator, hooks: Door, settings: dict[str, int], events: list[str]
) -> None:
    """Every message repeats the input."""
    sim.run_s = 0.3
    async with adapter(sim, **settings) as provider:
        await provider.submit(job(), Told(hooks.url))
        assert sim.bodies[0]["webhook_events_filter"] == events
        await until(lambda: "succeeded" in hooks.events("status"))
        heard = [await provider.parse_webhook(headers, body) for headers, body in hooks.came]
    shares = [item.progress for item in heard if item and item.progress]
    assert shares == sorted(shares)
    assert (len(set(shares)) > 2) == ("logs" in events)


async def test_only_a_safe_address_is_given_away(hooks: Door) -> None:
    """Replicate itself takes HTTPS; plain HTTP is for the simulator."""
    with Simulator().running() as sim:
        async with adapter(sim, base_url="https://api.replicate.example") as real:
            assert real._webhook(Told(hooks.url)) is None
            assert real._webhook(Told("https://gateway.example/h")) == "https://gateway.example/h"
            assert real._webhook(Told()) is None
        async with adapter(sim) as played:
            await played.submit(job())
    assert "webhook" not in sim.bodies[0]


async def test_forged_messages_are_not_believed(provider: Replicate, sim: Simulator, hooks: Door) -> None:
    """They come to the same door, and are signed with another's secret."""
    sim.hooks.postman.forged = True
    handle = await provider.submit(job(), Told(hooks.url))
    await until(lambda: "succeeded" in hooks.events("status"))
    assert [await provider.parse_webhook(headers, body) for headers, body in hooks.came] == [None] * len(hooks.came)
    assert len((await provider.wait(handle, soon())).images) == 1


async def test_messages_that_come_twice_or_late_are_heard_all_the_same(
    provider: Replicate, sim: Simulator, hooks: Door
) -> None:
    """They are hints, and a hint may come again, out of order, or after the job was fetched."""
    sim.hooks.postman.copies, sim.hooks.postman.shuffled, sim.hooks.postman.late_s = 2, True, 0.05
    handle = await provider.submit(job(), Told(hooks.url))
    await provider.wait(handle, soon())
    await until(lambda: len(hooks.came) == 4)
    assert hooks.events("status") == ["succeeded", "succeeded", "processing", "processing"]
    assert len({headers["webhook-id"] for headers, _ in hooks.came}) == 2
    heard = [await provider.parse_webhook(headers, body) for headers, body in hooks.came]
    assert [item.id for item in heard if item] == [handle.id] * 4


async def test_a_door_that_is_shut_for_a_moment_hears_of_the_end(sim: Simulator, hooks: Door) -> None:
    """The last message is tried again; those in between are not."""
    hooks.status = 503
    async with adapter(sim) as provider:
        await provider.submit(job(), Told(hooks.url))
        await until(lambda: hooks.events("status").count("succeeded") >= 2)
        hooks.status = 200
        await until(lambda: sim.hooks.postman.tries[-1][2] == 200)
    assert [event for event, _, _ in sim.hooks.postman.tries].count("start") == 1


async def test_a_webhook_cuts_a_wait_short(sim: Simulator, hooks: Door) -> None:
    """The link's own sleep is what is slept between two looks."""

    class Woken(Told):
        @override
        async def sleep(self, seconds: float, clock: Clock = CLOCK) -> None:
            self.slept += 1
            await until(lambda: "succeeded" in hooks.events("status"))

    class Never(Pace):
        @override
        def delays(self, key: str, *, age: float = 0.0) -> Iterator[float]:
            while True:
                yield 3600.0

    link = Woken(hooks.url)
    clock = Joint(sim)
    async with adapter(sim, clock=clock, pace=Never(clock)) as provider:
        handle = await provider.submit(job(), link)
        assert len((await provider.wait(handle, soon(3600), link)).images) == 1
    assert link.slept == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"\x80" * 100,
        b"[" * 200_000,
        b'{"id": "../x"}',
        b'{"id": 7}',
        b"{}",
        b'{"type": "x", "data": {"id": "p1"}}',
    ],
    ids=lambda body: str(body[:12]),
)
async def test_a_signed_message_that_makes_no_sense_is_none(provider: Replicate, sim: Simulator, body: bytes) -> None:
    """It is not the provider's as far as we know it, and raises nothing."""
    assert await provider.parse_webhook(*message(sim, body)) is None


async def test_a_huge_message_is_borne(provider: Replicate, sim: Simulator) -> None:
    """Signed or not."""
    body = json.dumps({"id": "p1", "logs": "x" * 5_000_000})
    assert await provider.parse_webhook(*message(sim, body)) == WebhookEvent(id="p1", ended=False)
    assert await provider.parse_webhook(*message(sim, body, secret=new_secret())) is None


async def test_what_is_not_signed_leads_to_no_question(provider: Replicate, sim: Simulator) -> None:
    """Anybody may knock: neither without headers, nor with old ones, is Replicate asked for its secret."""
    assert await provider.parse_webhook({}, GOOD.encode()) is None
    assert await provider.parse_webhook(*message(sim, GOOD, age=301)) is None
    assert await provider.parse_webhook(*message(sim, GOOD, age=-302)) is None
    headers, body = message(sim, GOOD)
    for name in headers:
        assert await provider.parse_webhook({**headers, name: "größer"}, body) is None
    assert sim.books.count("GET", "secret") == 1, "for the signature alone, which is one that can be asked about"


async def test_a_message_tells_the_share_that_is_done(provider: Replicate, sim: Simulator) -> None:
    """By the last bar in its logs."""
    assert await provider.parse_webhook(*message(sim, GOOD)) == WebhookEvent(id="p1", progress=0.45, ended=False)
    assert await provider.parse_webhook(*message(sim, '{"id": "p1", "logs": 7}')) == WebhookEvent(id="p1", ended=False)


async def test_a_secret_that_was_changed_is_fetched_anew_and_not_too_often(
    hasty: Replicate, sim: Simulator, clock: Joint
) -> None:
    """Once a minute at the most, however many wrong messages come."""

    def asked() -> int:
        return sim.books.count("GET", "secret")

    assert await hasty.parse_webhook(*message(sim, GOOD))
    sim.hooks.rotate()
    wrong = [await hasty.parse_webhook(*message(sim, GOOD)) for _ in range(5)]
    assert (wrong, asked()) == ([None] * 5, 1)
    clock.skipped += 60
    heard = await asyncio.gather(*(hasty.parse_webhook(*message(sim, GOOD)) for _ in range(5)))
    assert all(heard)
    assert asked() == 2
    strange = [await hasty.parse_webhook(*message(sim, GOOD, secret=new_secret())) for _ in range(5)]
    assert (strange, asked()) == ([None] * 5, 2)


@pytest.mark.parametrize(
    "fault",
    [html(502), Fault(kind="truncate"), Fault(status=200, body={"key": 7}), Fault(status=404), Fault(status=429)],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
async def test_a_secret_that_cannot_be_fetched_costs_a_hint(
    hasty: Replicate, sim: Simulator, clock: Joint, fault: Fault
) -> None:
    """Nothing is raised, the question is not repeated at once, and later it is."""
    sim.faults.script("result", fault)
    assert [await hasty.parse_webhook(*message(sim, GOOD)) for _ in range(3)] == [None] * 3
    assert sim.books.count("GET", "secret") == 1
    clock.skipped += 60
    assert await hasty.parse_webhook(*message(sim, GOOD))


async def test_without_a_key_nothing_is_heard(sim: Simulator) -> None:
    """And nobody is asked."""
    async with adapter(sim, key=None) as off:
        assert await off.parse_webhook(*message(sim, GOOD)) is None
    assert sim.books.requests == []
