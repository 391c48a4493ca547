"""The gateway's own client, for adapters before real workers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from providers.http import client as http


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The gateway's own client, over real sockets."""
    async with http.client() as made:
        yield made
