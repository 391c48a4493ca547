"""The gateway's own client, and a scripted Cog server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from providers import http
from tests.support.fake_cog import FakeCog, served


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The gateway's own client, over real sockets."""
    async with http.client() as made:
        yield made


@pytest.fixture
async def cog() -> AsyncIterator[FakeCog]:
    async with served(FakeCog()) as fake:
        yield fake
