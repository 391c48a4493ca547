"""The last look before a submit's bytes leave, over real HTTP: on a new connection, and on one that is there."""

from __future__ import annotations

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from providers.http import client as http
from providers.http.send_hook import before_departure
from tests.simulators.common import serve


class Lost(Exception):
    """The lease is gone."""


async def test_a_look_before_the_bytes() -> None:
    """What the look raises is raised by the request, of which nothing has arrived; it is for one request alone."""
    seen: list[str] = []
    looks: list[str] = []

    async def take(request: Request) -> Response:
        seen.append(request.url.path)
        return JSONResponse({})

    async def good() -> None:
        looks.append("good")

    async def lost() -> None:
        looks.append("lost")
        raise Lost

    async def within(client: object, path: str) -> None:
        await client.post(path, content=b"x")  # type: ignore[attr-defined]

    with serve(Starlette(routes=[Route("/{path}", take, methods=["POST"])])) as served:
        async with http.client() as client:
            for number in range(2):  # a new connection, and the same again
                before_departure(lost)
                with pytest.raises(Lost):
                    await client.post(f"{served.url}/lost", content=b"x")
                before_departure(good)
                await client.post(f"{served.url}/good{number}", content=b"x")
                await client.post(f"{served.url}/free{number}", content=b"x")
            before_departure(lost)
            with pytest.raises(Lost):  # also in a task that is begun for it
                await asyncio.create_task(within(client, f"{served.url}/held"))
            await within(client, f"{served.url}/after")

    assert seen == ["/good0", "/free0", "/good1", "/free1", "/after"]
    assert looks == ["lost", "good", "lost", "good", "lost"]
