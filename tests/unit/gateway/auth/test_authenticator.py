"""Who is let in: what the register says, for as long as it is remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.auth.authenticator import Authenticator
from gateway.auth.keys import ApiKey, AuthPolicy, StaticKeys, digest, draw, id_of
from gateway.auth.rate_limits import RateLimiter
from gateway.database.writer import Database
from gateway.ledger.store import Ledger
from tests.support.ledgers import ledger


@dataclass(slots=True)
class House:
    """Two processes' doors over one register, and a clock that is set by hand."""

    here: Authenticator
    there: Authenticator
    ledger: Ledger
    now: float = 1000.0

    async def key(self, **given: Any) -> tuple[str, str]:
        """Make a key; its id, and itself."""
        number, key = draw()
        await self.here.add(ApiKey(id=number, name="made", digest=digest(key), **given))
        return number, key


def bearing(key: str) -> dict[str, str]:
    """The headers of a call with a key."""
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A house without keys."""
    async with ledger(tmp_path) as opened:
        made: list[House] = []
        here, there = (
            Authenticator(
                StaticKeys(None),
                opened.database,
                RateLimiter(),
                policy=AuthPolicy.WHILE_KEYS_EXIST,
                cache_s=2,
                clock=lambda: made[0].now,
            )
            for _ in range(2)
        )
        made.append(House(here, there, opened))
        yield made[0]


async def test_open_until_there_is_a_key(house: House) -> None:
    """The first key closes the doors, revoking the last one opens them: here at once, elsewhere within seconds."""
    assert not await house.here.closed({})
    assert not await house.there.closed({})
    number, _ = await house.key()
    assert await house.here.closed({})
    assert not await house.there.closed({})
    house.now += 2
    assert await house.there.closed({})
    another, _ = await house.key()
    await house.there.revoke(number)
    house.now += 10
    assert await house.there.closed({})
    await house.there.revoke(another)
    assert not await house.there.closed({})
    house.now += 2
    assert not await house.here.closed({})


async def test_a_key_that_is_over_is_not_no_key(house: House) -> None:
    """One that is revoked is refused where calls need none; one that has expired keeps the doors closed."""
    number, revoked = await house.key()
    await house.here.revoke(number)
    assert not await house.here.closed({})
    assert not await house.here.closed(bearing("any text"))
    assert not await house.here.closed(bearing(draw()[1]))
    assert await house.here.closed(bearing(revoked))
    await house.key(expires_at=1001.0)
    house.now = 1500.0
    assert await house.here.closed({})


@pytest.mark.parametrize(("policy", "closed"), [(AuthPolicy.REQUIRED, True), (AuthPolicy.OFF, False)])
async def test_the_policy_decides(house: House, policy: AuthPolicy, closed: bool) -> None:
    """Whatever keys there are: a call without one is always refused, or never; one with a good one is that key's."""
    authenticator = Authenticator(
        StaticKeys(None), house.ledger.database, RateLimiter(), policy=policy, cache_s=2, clock=lambda: house.now
    )
    assert await authenticator.closed({}) is closed
    number, key = await house.key(rpm=3)
    house.now += 10
    assert await authenticator.closed({}) is closed
    assert (api_key := await authenticator.admit(bearing(key))) is not None
    assert api_key.rpm == 3
    await house.here.revoke(number)
    house.now += 10
    assert await authenticator.admit(bearing(key)) is None
    assert await authenticator.closed(bearing(key))


async def test_a_key_opens(house: House) -> None:
    """A key is known in every process; one that differs in its secret alone is not."""
    number, key = await house.key(rpm=7)
    api_key = await house.there.admit(bearing(key))

    assert api_key is not None
    assert (api_key.id, api_key.rpm) == (number, 7)
    other = draw()[1]
    assert await house.there.admit(bearing(other)) is None
    assert await house.there.admit(bearing(key[:-43] + other[-43:])) is None
    assert await house.there.admit(bearing(key[:-1])) is None
    assert await house.there.admit({}) is None
    assert id_of(key) == number


async def test_a_revoked_key(house: House) -> None:
    """Here it is refused at once, elsewhere within the time that is remembered."""
    number, key = await house.key()
    assert await house.there.admit(bearing(key))
    house.now += 1
    assert await house.here.revoke(number)
    assert await house.here.admit(bearing(key)) is None
    house.now += 1
    assert await house.there.admit(bearing(key)) is None
    assert not await house.here.revoke("key_none")


async def test_a_key_that_is_over(house: House) -> None:
    """At its time a key ends, also where it is remembered."""
    _, key = await house.key(expires_at=1001.0)
    assert await house.there.admit(bearing(key))
    house.now = 1001.0
    assert await house.there.admit(bearing(key)) is None


async def test_keys_that_are_none_cost_no_memory() -> None:
    """Whoever tries keys fills no more than a bounded memory."""

    class Nobody:
        """A register without keys, which says so at once: thousands of real queries would take seconds."""

        asked = 0

        async def read(self, operation: object) -> None:
            self.asked += 1

    register = Nobody()
    authenticator = Authenticator(
        StaticKeys(None), cast("Database", register), RateLimiter(), policy=AuthPolicy.REQUIRED, cache_s=2
    )
    for _ in range(4200):
        assert await authenticator.admit(bearing(draw()[1])) is None

    assert register.asked == 4200
    assert len(authenticator._cached) <= 4096


def test_a_key_is_nowhere_in_its_repr() -> None:
    """Neither it nor what is kept of it."""
    number, key = draw()
    api_key = ApiKey(id=number, digest=digest(key))

    assert key not in repr(api_key)
    assert digest(key).hex() not in repr(api_key)
    assert repr(digest(key)) not in repr(api_key)
