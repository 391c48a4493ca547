"""The gateway's own client, a scripted Cog server, and simulated providers, each of which serves all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from providers.http import client as http
from tests.simulators.apiframe import Apiframe
from tests.simulators.segmind import Segmind
from tests.support.clock import Skipping
from tests.support.fake_cog import FakeCog, served


@pytest.fixture(scope="session")
def segmind_host() -> Iterator[Segmind]:
    """Segmind, which is to be reset before each test: to start it takes longer than most of them do."""
    with Segmind().running() as running:
        yield running


@pytest.fixture(scope="session")
def apiframe_host() -> Iterator[Apiframe]:
    """Apiframe, which is to be reset before each test."""
    with Apiframe().running() as running:
        yield running


@pytest.fixture
def clock() -> Skipping:
    """The time of the adapter that is tested: its waits take none."""
    return Skipping()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The gateway's own client, over real sockets."""
    async with http.client() as made:
        yield made


@pytest.fixture
async def cog() -> AsyncIterator[FakeCog]:
    async with served(FakeCog()) as fake:
        yield fake
