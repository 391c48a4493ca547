"""Several keys of one provider: which one is used, and who remembers it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from typing_extensions import override

from providers.accounts import AccountKey, Accounts
from providers.base import (
    NO_CONTEXT,
    AttemptContext,
    Handle,
    Outcome,
    PendingSubmit,
    Readiness,
    Upstream,
    UpstreamJob,
    WebhookEvent,
)
from providers.errors import Failed, ProviderError, Rejected, Throttled, Unknown, Unusable

UP = Upstream(model="m")
KEYS = [AccountKey("sim", "sim-secret-one"), AccountKey("sim", "sim-secret-two")]


@dataclass
class Account:
    """One account at a provider, which answers every submit with `says`."""

    key: str
    log: list[str]
    says: ProviderError | None = None
    lost: ProviderError | None = None
    name: str = "sim"
    cancels: bool = True
    queue_depth: int = 1
    data: dict[str, str] = field(default_factory=dict)

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        return Readiness.READY, ""

    def announced(self, upstream: Upstream) -> None:
        return None

    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        await link.sending({"pace": "x"})
        self.log.append(f"submit {self.key}")
        if self.says:
            raise self.says
        return Handle(provider="sim", id=f"of {self.key}", data=self.data)

    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        self.log.append(f"wait {self.key}")
        if self.lost:
            raise self.lost
        return Outcome(images=(b"x",))

    async def recover(self, sent: PendingSubmit) -> Handle | None:
        self.log.append(f"find {self.key}")
        return Handle(provider="sim", id="found")

    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        return WebhookEvent(id=self.key) if body == self.key.encode() else None

    async def cancel(self, handle: Handle) -> None:
        self.log.append(f"cancel {self.key}")

    async def start(self) -> None:
        self.log.append(f"start {self.key}")

    async def aclose(self) -> None:
        self.log.append(f"close {self.key}")


class Told(AttemptContext):
    def __init__(self) -> None:
        self.sent: list[Mapping[str, str]] = []

    @override
    async def sending(self, data: Mapping[str, str]) -> None:
        self.sent.append(data)


class Bench:
    """Two accounts behind one provider, with a clock that the test moves."""

    def __init__(self, *says: ProviderError | None) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self.by_key = {
            key.reveal(): Account(key.reveal()[-3:], self.log, error) for key, error in zip(KEYS, says, strict=True)
        }
        make = self.by_key.__getitem__
        self.accounts = Accounts(KEYS, lambda key: make(key.reveal()), park_s=300, clock=lambda: self.now)

    async def submit(self, link: AttemptContext = NO_CONTEXT) -> Handle:
        deadline = asyncio.get_running_loop().time() + 60
        return await self.accounts.submit(UpstreamJob(id="j", upstream=UP, payload={}, deadline=deadline), link)


@pytest.mark.parametrize("error", [Unusable("no money"), Throttled("slow down", retry_after=20)])
async def test_next_key_and_the_old_one_rests(error: ProviderError) -> None:
    bench, told = Bench(error, None), Told()

    handle = await bench.submit(told)
    await bench.accounts.wait(handle, 0)
    await bench.accounts.cancel(handle)
    await bench.submit()
    bench.now = 301
    await bench.submit()

    assert bench.log == [
        "submit one", "submit two", "wait two", "cancel two", "submit two", "submit one", "submit two",
    ]  # fmt: skip
    assert handle.data["account"] == KEYS[1].id
    # What is written down before each request names the key that it goes with.
    assert [data["account"] for data in told.sent] == [key.id for key in KEYS]


@pytest.mark.parametrize("error", [Unknown("lost"), Failed("500"), Rejected("422"), Throttled("paid", cost=1)])
async def test_nothing_else_is_sent_twice(error: ProviderError) -> None:
    bench = Bench(error, None)

    with pytest.raises(type(error)):
        await bench.submit()

    assert bench.log == ["submit one"]


async def test_all_refused_parks_and_one_throttled_cools() -> None:
    with pytest.raises(Unusable):
        await Bench(Unusable("a"), Unusable("b")).submit()
    with pytest.raises(Throttled) as caught:
        await Bench(Throttled("a", retry_after=7), Unusable("b")).submit()
    assert caught.value.retry_after == 7


async def test_refused_key_does_not_park_a_throttled_one() -> None:
    bench = Bench(Throttled("a", retry_after=20), None)
    await bench.submit()
    bench.by_key[KEYS[1].reveal()].says = Unusable("b")

    with pytest.raises(Throttled) as caught:
        await bench.submit()

    assert caught.value.retry_after == 20


async def test_lost_submit_is_looked_for_with_its_own_key_alone() -> None:
    bench = Bench(None, None)
    sent = PendingSubmit(id="j", upstream=UP, at=0, data={"account": KEYS[1].id})

    handle = await bench.accounts.recover(sent)
    with pytest.raises(Unknown, match="not configured any more"):
        await bench.accounts.recover(replace(sent, data={"account": "gone"}))

    assert handle is not None
    assert handle.data["account"] == KEYS[1].id
    assert bench.log == ["find two"]


async def test_job_of_a_key_that_is_gone() -> None:
    bench = Bench(None, None)
    handle = Handle(provider="sim", id="x", data={"account": "gone"})
    assert (await bench.accounts.wait(handle, 0)).images

    bench.by_key[KEYS[0].reveal()].lost = Failed("no such job", unbilled=True)
    with pytest.raises(Unknown, match="not configured any more"):
        await bench.accounts.wait(handle, 0)


async def test_webhook_of_either_account() -> None:
    bench = Bench(None, None)

    assert await bench.accounts.parse_webhook({}, b"two") == WebhookEvent(id="two")
    assert await bench.accounts.parse_webhook({}, b"evil") is None


def test_key_never_shows_itself() -> None:
    assert "secret" not in f"{KEYS[0]!r} {KEYS[0]} {KEYS}"
    assert KEYS[0].id != KEYS[1].id
    assert len(KEYS[0].id) == 12
