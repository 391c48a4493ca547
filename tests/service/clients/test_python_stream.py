"""Server-sent events, as the Python SDK reads them."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI

from tests.support.photo import coffee, flat, opened
from tests.support.running import Serve, Served, until


@pytest.fixture(scope="module")
def hasty(serve: Serve) -> Served:
    """A gateway that sends keep-alives every few milliseconds."""
    return serve(DARKROOM_GATEWAY__KEEP_ALIVE_S="0.005")


def check(events: list[Any], count: int) -> None:
    """These are `count` whole pictures, and nothing else."""
    assert [event.type for event in events] == ["image_edit.completed"] * count
    for event in events:
        made = opened(base64.b64decode(event.b64_json, validate=True))
        assert made.size == (40, 20)
        assert event.size == "40x20"
        assert made.format == "WEBP"
        assert event.output_format == "webp"
        assert event.background == "opaque"
        assert event.created_at > 1_700_000_000
        assert event.usage.total_tokens == 0
        assert event.metadata["executed_model"] == "lanczos-bp"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sync(client: OpenAI, count: int) -> None:
    """One event a picture, and then the end."""
    with client.images.edit(
        image=flat(20, 10), prompt="", model="lanczos-bp", n=count, output_format="webp", stream=True
    ) as stream:
        check(list(stream), count)


@pytest.mark.parametrize("count", [1, 3])
async def test_async(server: Served, count: int) -> None:
    """The same events come to the client that is awaited."""
    async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
        stream = await client.images.edit(
            image=flat(20, 10), prompt="", model="lanczos-bp", n=count, output_format="webp", stream=True
        )
        check([event async for event in stream], count)


def test_stream_false(client: OpenAI) -> None:
    """`stream=False` in words is a plain call."""
    response = client.images.edit(image=flat(20, 10), prompt="", model="lanczos-bp", stream=False)

    assert response.data
    assert response.data[0].b64_json


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_address_in_an_event(client: OpenAI, form: Any) -> None:
    """Base64 is in every event as at OpenAI; the address is there when it was asked for."""
    with client.images.edit(
        image=flat(20, 10), prompt="", model="lanczos-bp", response_format=form, stream=True
    ) as stream:
        event: Any = next(iter(stream))

    encoded = base64.b64decode(event.b64_json, validate=True)
    assert ("url" in event.model_extra) == (form == "url")
    if form == "url":
        assert httpx.get(event.url).content == encoded


def test_keep_alives(hasty: Served) -> None:
    """While a picture is being made comments keep the connection open, and the SDK does not show them."""
    fields: dict[str, Any] = {"image": coffee(600, 400), "prompt": "", "model": "lanczos-bp", "output_format": "webp"}
    with OpenAI(base_url=hasty.base_url, api_key="none") as client:
        with client.images.with_streaming_response.edit(**fields, stream=True) as raw:
            lines = list(raw.iter_lines())
            assert raw.headers["content-type"].startswith("text/event-stream")
            assert raw.headers["cache-control"] == "no-store"
            assert raw.headers["x-darkroom-job"].startswith("img_")
            assert raw.headers["x-request-id"]
        with client.images.edit(**fields, stream=True) as stream:
            events = list(stream)

    assert sum(line.startswith(":") for line in lines) > 3
    assert sum(line.startswith("event:") for line in lines) == 1
    assert [event.type for event in events] == ["image_edit.completed"]


def test_refused_before_it_begins(client: OpenAI) -> None:
    """What is wrong with a request is told by its status, before there is a stream."""
    with pytest.raises(BadRequestError) as caught:
        client.images.edit(image=b"no picture", prompt="", stream=True)

    assert caught.value.code == "invalid_image_file"
    assert caught.value.response.headers["content-type"] == "application/json"


async def test_a_client_that_leaves(server: Served) -> None:
    """A client that leaves in the middle of a stream harms nobody, and its job ends."""
    async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
        stream = await client.images.edit(
            image=coffee(600, 400), prompt="", model="lanczos-bp", output_format="webp", stream=True
        )
        await stream.close()
        response = await client.images.edit(image=flat(20, 10), prompt="", model="lanczos-bp")
    assert response.data
    until(lambda: not server.metric("darkroom_jobs_in_progress"), "the job ends")
