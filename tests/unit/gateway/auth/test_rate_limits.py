"""Requests a minute, counted in memory and in a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.auth.rate_limits import RateLimiter
from tests.support.redis import Redis, redis


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """A Redis for the tests of this module."""
    with redis() as running:
        yield running


async def test_in_memory() -> None:
    """So many calls are taken as there may be; what is told of the rest is true."""
    rates = RateLimiter()
    taken = [await rates.take("one", 3) for _ in range(4)]

    assert [rate.allowed for rate in taken] == [True, True, True, False]
    assert [rate.remaining for rate in taken] == [2, 1, 0, 0]
    assert all(59 < rate.reset_s <= 60 for rate in taken)
    assert taken[-1].retry_after == 60
    assert (await rates.take("another", 3)).allowed


async def test_headers() -> None:
    """OpenAI's names, and durations as OpenAI writes them."""
    headers = (await RateLimiter().take("one", 3)).headers()

    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-remaining-requests"] == "2"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert float(headers["x-ratelimit-reset-requests"][:-1]) <= 60


@pytest.mark.system
async def test_in_redis(server: Redis) -> None:
    """Two processes count together."""
    one, two = RateLimiter(server.url), RateLimiter(server.url)
    taken = [await rates.take("shared", 3) for rates in (one, two, one, two)]
    for rates in (one, two):
        await rates.aclose()

    assert [rate.allowed for rate in taken] == [True, True, True, False]
    assert taken[-1].remaining == 0
    assert 59 < taken[-1].reset_s <= 60


@pytest.mark.system
async def test_without_its_redis(server: Redis) -> None:
    """While the Redis is away, calls are counted here: neither refused nor uncounted."""
    rates = RateLimiter(server.url)
    assert (await rates.take("alone", 2)).allowed
    server.stop()
    try:
        taken = [await rates.take("alone", 2) for _ in range(3)]
    finally:
        server.start()
        await rates.aclose()

    assert [rate.allowed for rate in taken] == [True, True, False]


def test_calls_at_once() -> None:
    """As many as may; one that ends makes room for the next."""
    rates = RateLimiter()

    assert [rates.enter("one", 2) for _ in range(3)] == [True, True, False]
    assert rates.enter("another", 1)
    rates.leave("one")
    assert rates.enter("one", 2)
    assert not rates.enter("one", 2)
