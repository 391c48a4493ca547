"""Server-sent events: comments while it is silent, events in pieces, errors in the envelope, a client that leaves."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

from starlette.types import Message

from gateway.http.errors import ApiError
from gateway.http.streaming import EventStream


async def collect(events: AsyncIterator[Sequence[bytes]], keep_alive: float = 30) -> tuple[Message, str]:
    """Run a stream; return its start and its whole text."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError

    await EventStream(
        events, keep_alive=keep_alive, headers={"x-test": "1"}, gone=lambda: False, closed=lambda whole: None
    )({"type": "http"}, receive, send)
    assert [m.get("more_body") for m in sent[1:]] == [True] * (len(sent) - 2) + [False]
    return sent[0], b"".join(m["body"] for m in sent[1:]).decode()


async def test_events() -> None:
    """Pieces are sent in order under the type of an event stream, without a length."""

    async def events() -> AsyncIterator[Sequence[bytes]]:
        yield [b"event: a\ndata: {", b'"x":1', b"}\n\n"]
        yield [b"event: b\ndata: {}\n\n"]

    start, text = await collect(events())
    headers = {key.decode(): value.decode() for key, value in start["headers"]}

    assert headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in headers
    assert headers["x-test"] == "1"
    assert text.endswith('event: a\ndata: {"x":1}\n\nevent: b\ndata: {}\n\n')


async def test_keep_alive() -> None:
    """While nothing happens, comments are sent: proxies and clients hear that the work goes on."""

    async def events() -> AsyncIterator[Sequence[bytes]]:
        await asyncio.sleep(0.2)
        yield [b"data: {}\n\n"]

    _, text = await collect(events(), keep_alive=0.02)
    before, _, _ = text.partition("data:")

    assert before.count("\n\n") > 3
    assert all(line.startswith(":") for line in before.split("\n\n") if line)


async def test_errors() -> None:
    """An error after the start is an event with the whole envelope, which every SDK raises."""

    async def events() -> AsyncIterator[Sequence[bytes]]:
        for piece in (b"data: {}\n\n", None):
            if piece is None:
                raise ApiError(502, "It failed.", type="server_error", code="all_providers_failed")
            yield [piece]

    _, text = await collect(events())
    _, _, data = text.partition("event: error\ndata: ")

    assert json.loads(data)["error"] == {
        "message": "It failed.", "type": "server_error", "param": None, "code": "all_providers_failed",
    }  # fmt: skip


async def test_a_client_that_leaves() -> None:
    """A client that is gone ends the stream without an error of ours."""
    sent: list[str] = []

    async def events() -> AsyncIterator[Sequence[bytes]]:
        yield [b"data: {}\n\n"]

    async def send(message: Message) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            raise OSError("the connection is gone")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    told: list[bool] = []
    stream = EventStream(events(), keep_alive=1, headers={}, gone=lambda: False, closed=told.append)
    await stream({"type": "http"}, receive, send)

    assert told == [False]
    assert sent == ["http.response.start", "http.response.body"]
