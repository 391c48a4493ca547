"""Webhooks from fal: what is believed, and what is not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from typing_extensions import override

from providers.base import WebhookEvent
from providers.clock import Clock
from providers.fal.adapter import Fal
from providers.fal.api import FalApi
from providers.fal.webhooks import FalSignatures, public_keys, signed, verified
from providers.http import client as http
from providers.http.bodies import Json
from tests.contract.fal_setup import adapter, job, soon
from tests.simulators.common import Fault, html, size
from tests.simulators.fal import FalAi
from tests.support.fake_cog import until
from tests.support.links import Letterbox, Told, letterbox

REQUEST = "764cabcf-b745-4b3e-ae38-1200304cf45b"
BODY = b'{"request_id":"764cabcf-b745-4b3e-ae38-1200304cf45b","status":"OK","payload":{}}'


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
async def fal(sim: FalAi) -> AsyncIterator[Fal]:
    async with adapter(sim) as made:
        yield made


@pytest.fixture
def box() -> Iterator[Letterbox]:
    with letterbox() as made:
        yield made


def fetches(sim: FalAi) -> int:
    return len(sim.asked("GET", "jwks", host="rest"))


async def test_a_known_answer() -> None:
    """A signature that was made elsewhere, by the key of the private bytes 0 to 31."""
    body = b'{"request_id":"r-1","gateway_request_id":"r-1","status":"OK","payload":{"ok":true}}'
    headers = {
        "x-fal-webhook-request-id": "r-1",
        "x-fal-webhook-user-id": "user-1",
        "x-fal-webhook-timestamp": "1700000000",
    }
    keys = public_keys({"keys": [{"x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}]})
    signature = bytes.fromhex(
        "136c25552369638dbb247441b6640440588eb12c5ac5320a74dfc062e7d7a825"
        "fdc4602b4fc14b7c04e12bd3a0346369ad2d5ad3a82e9269c27c7b8b98fd200f"
    )
    message = await signed(headers, body, now=1700000000)
    assert message is not None
    assert verified(keys, message, signature)
    assert not verified(keys, message + b"x", signature)
    assert not verified((), message, signature)


@pytest.mark.parametrize(
    ("now", "believed"), [(1700000300, True), (1699999700, True), (1700000301, False), (1699999699, False)]
)
async def test_a_webhook_is_of_now(now: float, believed: bool) -> None:
    """Five minutes to either side, and no second more: an old one may be somebody's recording."""
    headers = {f"x-fal-webhook-{name}": "12345678" for name in ("request-id", "user-id")}
    message = await signed(headers | {"x-fal-webhook-timestamp": "1700000000"}, b"", now=now)
    assert (message is not None) is believed


@pytest.mark.parametrize("word", ["", "FAILED"])
async def test_what_the_simulator_delivers_is_heard(fal: Fal, sim: FalAi, box: Letterbox, word: str) -> None:
    """The end of a job, good or bad, is a hint which one it was; the keys were fetched once, and without our key."""
    sim.run_s = 0.05
    sim.faults.script("job", Fault(kind="job", word=word))
    handle = await fal.submit(job(), Told(webhook=box.url))
    await until(lambda: box.got)
    ((headers, body),) = box.got
    assert await fal.parse_webhook(headers, body) == WebhookEvent(id=handle.id)
    assert await fal.parse_webhook(headers, body) == WebhookEvent(id=handle.id)
    assert fetches(sim) == 1
    assert "authorization" not in sim.asked("GET", "jwks", host="rest")[0].headers


async def test_twice_and_late_is_the_same(fal: Fal, sim: FalAi, box: Letterbox) -> None:
    """A second one, one that was refused first, and one after the result was had say nothing new."""
    box.refusals = [500]
    sim.hooks.way = "twice"
    handle = await fal.submit(job(), Told(webhook=box.url))
    await until(lambda: len(box.got) == 3)
    assert [await fal.parse_webhook(*got) for got in box.got] == [WebhookEvent(id=handle.id)] * 3
    sim.hooks.way, sim.hooks.late_s = "late", 0.1
    late = await fal.submit(job(), Told(webhook=box.url))
    assert size((await fal.wait(late, soon())).images[0]) == (48, 32)
    await until(lambda: len(box.got) == 4)
    assert await fal.parse_webhook(*box.got[-1]) == WebhookEvent(id=late.id)


async def test_none_costs_nothing_but_time(fal: Fal, sim: FalAi, box: Letterbox) -> None:
    """A job whose webhook never comes is polled to its end."""
    sim.hooks.way = "none"
    handle = await fal.submit(job(), Told(webhook=box.url))
    assert size((await fal.wait(handle, soon())).images[0]) == (48, 32)
    assert box.got == []


async def test_a_forged_one_is_not_believed(fal: Fal, sim: FalAi, box: Letterbox) -> None:
    """A signature by a key that fal does not publish is none."""
    sim.hooks.way = "forged"
    await fal.submit(job(), Told(webhook=box.url))
    await until(lambda: box.got)
    assert await fal.parse_webhook(*box.got[0]) is None


@pytest.mark.parametrize(
    "bent",
    [
        {"x-fal-webhook-request-id": "864cabcf-b745-4b3e-ae38-1200304cf45b"},
        {"x-fal-webhook-user-id": "somebody"},
        {"x-fal-webhook-timestamp": "0"},
        {"x-fal-webhook-timestamp": "-1"},
        {"x-fal-webhook-timestamp": "now"},
        {"x-fal-webhook-timestamp": "9" * 400},
        {"x-fal-webhook-timestamp": "\u0661" * 10},
        {"x-fal-webhook-signature": "00" * 64},
        {"x-fal-webhook-signature": "00" * 63},
        {"x-fal-webhook-signature": "zz" * 64},
        {"x-fal-webhook-signature": ""},
        {"x-fal-webhook-request-id": "../../etc/passwd"},
        {"x-fal-webhook-user-id": ""},
        {"x-fal-webhook-user-id": "a\nb"},
        {"x-fal-webhook-user-id": "\udcff"},
    ],
)
async def test_what_was_bent_is_not_believed(fal: Fal, sim: FalAi, bent: dict[str, str]) -> None:
    """Each signed part matters, and nonsense is no reason to fall over."""
    headers = sim.hooks.headers(REQUEST, BODY)
    assert await fal.parse_webhook(headers, BODY) == WebhookEvent(id=REQUEST)
    assert await fal.parse_webhook(headers | bent, BODY) is None
    assert await fal.parse_webhook(headers, BODY + b" ") is None


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b"null", bytes(5_000_000)])
async def test_garbage_is_not_believed(fal: Fal, sim: FalAi, body: bytes) -> None:
    """Neither without headers nor with those of another webhook; nobody asks fal because of it twice."""
    assert await fal.parse_webhook({}, body) is None
    assert await fal.parse_webhook(sim.hooks.headers(REQUEST, BODY), body) is None
    assert await fal.parse_webhook(sim.hooks.headers(REQUEST, BODY), body) is None
    assert fetches(sim) == 1


async def test_an_old_recording_is_not_believed(fal: Fal, sim: FalAi) -> None:
    """A good signature of ten minutes ago."""
    assert await fal.parse_webhook(sim.hooks.headers(REQUEST, BODY, moment=time.time() - 600), BODY) is None
    assert fetches(sim) == 0


class Turned(Clock):
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.at = 1000.0

    @override
    def now(self) -> float:
        return self.at


@pytest.fixture
async def kept(sim: FalAi) -> AsyncIterator[tuple[FalSignatures, Turned]]:
    """The keys as the adapter keeps them, by a clock that the test turns."""
    clock = Turned()
    async with http.client() as client:
        url = f"{sim.rest_url}/.well-known/jwks.json"
        yield FalSignatures(FalApi(client, None), url, timeout_s=0.5, clock=clock), clock


async def test_a_new_key_is_learned(sim: FalAi, kept: tuple[FalSignatures, Turned]) -> None:
    """When fal signs with another key it is fetched, and asked for once a minute at most."""
    signatures, clock = kept
    assert await signatures.request(sim.hooks.headers(REQUEST, BODY), BODY) == REQUEST
    sim.hooks.rotate()
    headers = sim.hooks.headers(REQUEST, BODY)
    assert await signatures.request(headers, BODY) is None
    clock.at += 59
    assert await signatures.request(headers, BODY) is None
    assert fetches(sim) == 1
    clock.at += 2
    assert await signatures.request(headers, BODY) == REQUEST
    assert await signatures.request(headers, BODY) == REQUEST
    assert fetches(sim) == 2


async def test_keys_are_not_kept_for_a_day(sim: FalAi, kept: tuple[FalSignatures, Turned]) -> None:
    """A key that was taken back makes no webhooks a day later, even if it still fits."""
    signatures, clock = kept
    headers = sim.hooks.headers(REQUEST, BODY)
    assert await signatures.request(headers, BODY) == REQUEST
    sim.hooks.published = sim.hooks.published[:1]
    assert await signatures.request(headers, BODY) == REQUEST
    clock.at += 24 * 3600
    assert await signatures.request(headers, BODY) is None
    assert fetches(sim) == 2


@pytest.mark.parametrize(
    "fault",
    [
        html(500),
        Fault(status=404, body={}),
        Fault(status=200, body=b""),
        Fault(status=200, body={"keys": "none"}),
        Fault(status=200, body={"keys": [None, 5, {}, {"x": 5}, {"x": "AAAA"}, {"x": "\u00e9"}]}),
        Fault(kind="cut_within"),
        Fault(kind="hang"),
        Fault(kind="endless"),
    ],
)
async def test_keys_that_cannot_be_had(sim: FalAi, kept: tuple[FalSignatures, Turned], fault: Fault) -> None:
    """Then nothing is believed, and a minute later it is tried again."""
    signatures, clock = kept
    sim.faults.script("list", fault)
    headers = sim.hooks.headers(REQUEST, BODY)
    assert await signatures.request(headers, BODY) is None
    assert await signatures.request(headers, BODY) is None
    clock.at += 61
    assert await signatures.request(headers, BODY) == REQUEST
    assert fetches(sim) == 2


def test_keys_are_read_with_and_without_padding() -> None:
    """32 bytes each; what is not a key is left out."""
    key = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
    document: Json = {"keys": [{"x": key}, {"x": f"{key}="}, {"x": "AAAA"}]}
    assert [len(raw) for raw in public_keys(document)] == [32, 32]
    nothing: list[Any] = [None, [], {"keys": {}}, {"keys": None}]
    assert [public_keys(answer) for answer in nothing] == [()] * 4
