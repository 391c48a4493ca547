"""The client, its errors and the statuses, against real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import Failed, ProviderError, Rejected, Throttled, Unknown, Unreached, Unusable
from providers.http.bodies import json_body, read_body
from providers.http.client import client
from providers.http.errors import ERRORS, NoAnswer, polling, refusal, retry_after, submitting
from tests.support.fake_cog import FakeCog, hold, until
from tests.support.ports import dead_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """Serve connections byte by byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def request_read(reader: asyncio.StreamReader) -> bytes:
    """Read one request with its body and return its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    await reader.readexactly(length)
    return head


def replying(reply: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_read(reader)
        writer.write(reply)
        await writer.drain()

    return handler


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def submit(http: httpx.AsyncClient, url: str, method: str = "POST") -> bytes:
    body = json_body({"prompt": "x"})
    timeout = httpx.Timeout(0.2, connect=2)
    with submitting("fal"):
        async with http.stream(method, url, content=body, headers=body.headers, timeout=timeout) as response:
            return await read_body(response, 1000)


def exceptions_of_httpx() -> list[type[Exception]]:
    return [kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)]


def test_every_exception_of_httpx_has_a_meaning_of_its_own() -> None:
    """An exception that a new httpx brings must be looked at before it is trusted."""
    assert len(exceptions_of_httpx()) > 20
    assert set(exceptions_of_httpx()) == set(ERRORS)


@pytest.mark.parametrize("kind", exceptions_of_httpx(), ids=lambda kind: kind.__name__)
def test_an_exception_becomes_ours_and_tells_no_address(kind: type[Exception]) -> None:
    """Around a submit and around a poll, the map decides and the message keeps the address out."""
    text = "https://key@queue.example/?token=abc"
    exc = kind.__new__(kind)
    Exception.__init__(exc, text)
    with pytest.raises(ERRORS[kind]) as submitted, submitting("fal"):
        raise exc
    with pytest.raises(NoAnswer) as polled, polling("fal"):
        raise exc
    assert "example" not in str(submitted.value)
    assert "example" not in str(polled.value)
    assert submitted.value.__cause__ is exc
    assert polled.value.left == (ERRORS[kind] is not Unreached)


def test_a_new_kind_of_an_old_exception_takes_the_nearest_meaning() -> None:
    """What httpx's transports derive from its classes is no hole in the map."""

    class Refused(httpx.ConnectError):
        pass

    with pytest.raises(Unreached), submitting("fal"):
        raise Refused("no")


async def test_a_dead_port_was_never_reached(client: httpx.AsyncClient) -> None:
    """A refused connection leaves the money where it is."""
    url = f"http://127.0.0.1:{dead_port()}/"
    with pytest.raises(Unreached):
        await submit(client, url)
    with pytest.raises(NoAnswer) as polled, polling("fal"):
        await client.get(url)
    assert not polled.value.left


async def test_a_name_that_does_not_resolve_was_never_reached(client: httpx.AsyncClient) -> None:
    """Nor is anything sent to a host that is not there."""
    with pytest.raises(Unreached):
        await submit(client, "http://nobody.invalid/")


async def test_a_failed_handshake_was_never_reached(client: httpx.AsyncClient) -> None:
    """The request goes out only after TLS stands."""
    async with listening(replying(b"this is not TLS")) as url:
        with pytest.raises(Unreached):
            await submit(client, url.replace("http", "https"))


async def test_no_free_connection_was_never_reached() -> None:
    """A request that waited for a connection of the pool in vain was not sent."""
    async with listening(silent) as url, client(max_connections=1) as http:
        first = asyncio.create_task(http.get(url, timeout=5))
        await asyncio.sleep(0.05)
        with pytest.raises(Unreached), submitting("fal"):
            await http.post(url, timeout=httpx.Timeout(5, pool=0.1))
        first.cancel()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd",
    ],
    ids=["nothing", "half a head", "half a body", "half a chunk", "no chunk", "not HTTP", "not gzip"],
)
async def test_an_answer_that_broke_off_may_have_bought_something(client: httpx.AsyncClient, reply: bytes) -> None:
    """The request had been read, so the outcome is unknown, whatever aiohttp calls it."""
    async with listening(replying(reply)) as url:
        with pytest.raises(Unknown):
            await submit(client, url)


async def test_a_body_that_breaks_its_encoding_half_way_ends(client: httpx.AsyncClient) -> None:
    """Aiohttp waits for ever then; the timeout of the request holds all the same."""

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"zz\r\n")
        await reader.read()

    async with listening(broken) as url, asyncio.timeout(3):
        with pytest.raises(Unknown):
            await submit(client, url)


async def test_a_reset_connection_may_have_bought_something(client: httpx.AsyncClient) -> None:
    """A connection that is reset after the request was read is not one that could not be made."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_read(reader)
        writer.transport.abort()

    async with listening(reset) as url:
        with pytest.raises(Unknown):
            await submit(client, url)


async def test_silence_may_have_bought_something(client: httpx.AsyncClient) -> None:
    """A timeout after the request was sent is an unknown outcome."""
    async with listening(silent) as url:
        with pytest.raises(Unknown):
            await submit(client, url)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_submit_on_a_connection_that_dies_is_not_sent_twice(client: httpx.AsyncClient, method: str) -> None:
    """Aiohttp repeats idempotent requests on its own when a kept connection breaks; a submit must not be."""
    seen = 0

    async def once_then_break(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await request_read(reader)
        seen += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await request_read(reader)
        seen += 1

    async with listening(once_then_break) as url:
        assert await submit(client, url, method) == b"{}"
        with pytest.raises(Unknown):
            await submit(client, url, method)
    assert seen == 2


async def test_a_cancelled_request_hangs_up(client: httpx.AsyncClient, cog: FakeCog) -> None:
    """A worker that stops when we hang up must see us hang up."""
    cog.play = hold
    task = asyncio.create_task(client.put(f"{cog.url}/predictions/a", json={"input": {}}))
    await until(lambda: cog.at_work)
    assert cog.connections == 1
    task.cancel()
    await until(lambda: cog.connections == 0)


async def test_an_answer_that_is_not_read_to_its_end_hangs_up(client: httpx.AsyncClient) -> None:
    """Giving up on a huge answer must not read the rest of it."""
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        gone.set()

    async with listening(endless) as url:
        with pytest.raises(ProviderError, match="larger than 1000 bytes"):
            await submit(client, url)
        async with asyncio.timeout(5):
            await gone.wait()


async def test_closing_the_client_closes_its_connections(cog: FakeCog) -> None:
    """Nothing is left open behind the gateway."""
    async with client() as http:
        await http.get(f"{cog.url}/health-check")
        assert cog.connections == 1
    await until(lambda: cog.connections == 0)


async def test_no_cookie_is_kept_and_no_redirect_followed(client: httpx.AsyncClient) -> None:
    """What one answer sets must not travel with the next request, nor lead it elsewhere."""
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await request_read(reader))
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: /next\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with listening(handler) as url:
        for _ in range(2):
            # By name: cookies of a bare address are kept by nobody.
            assert (await client.get(url.replace("127.0.0.1", "localhost"))).status_code == 302
    assert len(heads) == 2
    assert all(b"cookie" not in head.lower() for head in heads)
    assert all(b"accept-encoding: identity" in head.lower() for head in heads)
    assert not client.cookies


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch, cog: FakeCog) -> None:
    """Whoever can set a variable must not get to read the keys."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{dead_port()}")
    async with client() as http:
        assert (await http.get(f"{cog.url}/health-check")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": format_datetime(NOW.replace(second=30), usegmt=True)}, 30.0),
        ({"retry-after": format_datetime(NOW.replace(hour=11), usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates are understood; nonsense is not a pause."""
    assert retry_after(httpx.Response(429, headers=headers), NOW.timestamp()) == seconds


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_no_retry_after_breaks_the_reader(text: str) -> None:
    """A header is a stranger's text: the answer is None or a time that can be waited."""
    seconds = retry_after(httpx.Response(429, headers={"retry-after": text}), NOW.timestamp())
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"detail": "bad"}', Rejected),
        (401, b"", Unusable),
        (402, b"", Unusable),
        (403, b"", Unusable),
        (404, b"", Failed),
        (409, b"", Throttled),
        (410, b"", Failed),
        (413, b"too large", Rejected),
        (418, b"", Rejected),
        (422, b'{"detail": []}', Rejected),
        (429, b"", Throttled),
        (500, b'{"error": "out of memory"}', Failed),
        (500, b"<html>", Unknown),
        (502, b"", Unknown),
        (503, b"<html>", Failed),
        (504, b"{}", Unknown),
        (302, b"", Unknown),
        (200, b"{}", Unknown),
    ],
)
def test_a_status_has_a_meaning(status: int, body: bytes, kind: type[ProviderError]) -> None:
    """Only an answer that surely comes from the provider says that nothing was taken."""
    error = refusal("fal", httpx.Response(status), body, now=0)
    assert type(error) is kind
    assert error.code == str(status)


def test_a_provider_has_its_own_meanings() -> None:
    """Segmind says "no credit" with 406, and the pause it asks for is passed on."""
    response = httpx.Response(406, headers={"retry-after": "3"})
    error = refusal("segmind", response, b'{"error": "Insufficient credits"}', now=0, statuses={406: Unusable})
    assert isinstance(error, Unusable)
    assert error.message == "segmind: HTTP 406: Insufficient credits"
    assert error.retry_after == 3


@pytest.mark.parametrize("more", [{"auth": ("name", "password")}, {"follow_redirects": True}])
async def test_what_the_client_does_without(more: dict[str, Any]) -> None:
    """Asking it for that is an error, and not passed over."""
    async with client() as http:
        with pytest.raises(TypeError, match="does without"):
            await http.get("http://127.0.0.1:9/", **more)
