"""Many calls at once: each gets its own picture."""

from __future__ import annotations

import asyncio
import base64

from openai import AsyncOpenAI
from openai.types import ImagesResponse

from tests.support.photo import flat, near, opened, picture
from tests.support.running import Served

CALLS = 20


def colour(number: int) -> tuple[int, int, int]:
    """A colour that no other call has."""
    return (12 * number, 255 - 12 * number, 40 + 5 * number)


async def test_at_once(server: Served) -> None:
    """Twenty calls at once, each with another picture: every answer is of the picture that was sent with it."""
    async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:

        async def call(number: int) -> ImagesResponse:
            sent = flat(20 + number, 60 - number, colour(number))
            return await client.images.edit(
                image=sent, prompt=str(number), model="lanczos-bp", response_format="b64_json"
            )

        answers = await asyncio.gather(*map(call, range(CALLS)))

    for number, answer in enumerate(answers):
        made = picture(answer)
        assert made.size == (2 * (20 + number), 2 * (60 - number))
        assert near(made.convert("RGB").getpixel((20, 20)), colour(number), 1)
    assert len({answer._request_id for answer in answers}) == CALLS


async def test_streams_at_once(server: Served) -> None:
    """The same holds for streams, of several pictures each."""
    async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:

        async def call(number: int) -> list[tuple[int, int]]:
            stream = await client.images.edit(
                image=flat(20 + number, 30), prompt="", model="lanczos-bp", n=2, stream=True
            )
            return [opened(base64.b64decode(str(event.b64_json))).size async for event in stream]

        sizes = await asyncio.gather(*map(call, range(8)))

    assert sizes == [[(2 * (20 + number), 60)] * 2 for number in range(8)]
