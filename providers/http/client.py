"""The HTTP client of all adapters: connections, exceptions mapped to the error tree, status codes, retry times."""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream
from typing_extensions import override

from providers.http.bodies import TooLarge
from providers.http.send_hook import watched

VERSION = "0.1.0"

PAGE: str | None = None
"""The project's page, where it has one: what a host's operator looks up (RFC 9110, 10.1.5)."""

USER_AGENT = f"darkroom/{VERSION}" + (f" (+{PAGE})" if PAGE else "")


# What is inflated at once.
_PIECE_BYTES = 256 * 1024
# How often over an answer may grow, and how large it may be in any case: a picture is compressed already, and JSON with
# a long log becomes thirty times as large. A bomb grows a thousandfold.
_GROWTH, _SMALL_BYTES = 100, 1 << 20
# The bits of a window that zlib takes with a gzip header, with a zlib header, and with none.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS

ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})


class DecompressedStream(httpx.AsyncByteStream):
    """A body in one of ENCODINGS, as what it was before. Raises TooLarge where it grows out of all proportion, and
    httpx.DecodingError where it is not in that encoding."""

    def __init__(self, stream: httpx.AsyncByteStream, encoding: str) -> None:
        self._stream = stream
        self._kinds = iter((_ZLIB, _RAW) if encoding == "deflate" else (_GZIP,))
        self._inflater = zlib.decompressobj(next(self._kinds))
        self._came = self._made = 0

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._came += len(piece)
            for made in self._inflated(piece):
                self._made += len(made)
                if self._made > max(_SMALL_BYTES, _GROWTH * self._came):
                    raise TooLarge(f"grows more than {_GROWTH} times as it is inflated")
                yield made
        if not self._inflater.eof and self._made:
            raise httpx.DecodingError("a compressed answer that breaks off")

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()

    def _inflated(self, piece: bytes) -> Iterator[bytes]:
        while piece and not self._inflater.eof:
            try:
                made = self._inflater.decompress(piece, _PIECE_BYTES)
            except zlib.error as exc:
                # Some servers mean by "deflate" the bare stream.
                kind = None if self._made else next(self._kinds, None)
                if kind is None:
                    raise httpx.DecodingError("an answer that is not compressed as it says") from exc
                self._inflater = zlib.decompressobj(kind)
                continue
            piece = self._inflater.unconsumed_tail
            if made:
                yield made


_CONNECT_S = 5.0
READ_BYTES = 256 * 1024
_ANSWER_S = 30.0
# An answer may be long in coming; once it has begun it does not pause for longer than this.
_STALL_S = 30.0
# Under the 5 seconds after which uvicorn and Node close an idle connection: a submit that meets a connection in the
# moment it closes is a submit whose answer is lost.
_KEEPALIVE_S = 4.0


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return what every client of ours verifies its hosts with. Nothing in it is from the environment.

    There is one for all of them, as nobody changes it: reading the root certificates took 57 ms of CPU each time.
    """
    return httpx.create_ssl_context(trust_env=False)


# What one server takes for a step up or another path, and another one for a name.
_TWO_READINGS = re.compile(r"%2e|%2f|%5c|\\|;|/\.{0,2}(?=/|$)", re.IGNORECASE)


def beneath(address: str, base_url: str) -> bool:
    """Say whether an address is at a configured one: of its origin, and below its path where it has one.

    At one origin an egress gateway has several providers: there another path is somebody else, whom our key is not for.
    """
    try:
        there, base = httpx.URL(address), httpx.URL(base_url)
    except (httpx.InvalidURL, ValueError):
        return False
    if (there.scheme, there.host, there.port) != (base.scheme, base.host, base.port) or there.userinfo:
        return False
    path = base.path.rstrip("/")
    if not path:
        return True
    written = address.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]
    return there.path.startswith(f"{path}/") and not _TWO_READINGS.search(f"/{written}")


# aiohttp's exceptions as what they are, the most specific first.
_CAUSES: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.ClientConnectionError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
    (TimeoutError, httpx.ReadTimeout),
    (OSError, httpx.ReadError),
)


@contextmanager
def _truthful(request: httpx.Request) -> Iterator[None]:
    """Set right what httpx-aiohttp says of a broken connection.

    It calls every lost connection a ConnectTimeout, a request that was cut off after it had been sent too, and lets
    some of aiohttp's exceptions through. Who trusts that buys twice. Each exception knows its request afterwards,
    without the body: it may be kept for long, and pictures with it.
    """
    try:
        yield
    except (httpx.TransportError, aiohttp.ClientError, OSError) as exc:
        cause = exc.__cause__ if isinstance(exc, httpx.TransportError) else exc
        sent = httpx.Request(request.method, request.url)
        for kind, meaning in _CAUSES:
            if isinstance(cause, kind):
                raise meaning(type(cause).__name__, request=sent) from cause
        if isinstance(exc, httpx.TransportError):
            exc.request = sent
        raise


class _Stream(httpx.AsyncByteStream):
    """A body that raises what httpx would, and ends.

    aiohttp forgets its own timeout, and the end of the connection, when a body breaks its encoding half-way.
    """

    def __init__(self, stream: httpx.AsyncByteStream, stall_s: float, request: httpx.Request) -> None:
        self._stream = stream
        self._request = request
        self._stall_s = stall_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        now = asyncio.get_running_loop().time
        with _truthful(self._request):
            async with asyncio.timeout(None) as limit:
                while True:
                    limit.reschedule(now() + self._stall_s)
                    chunk = await anext(chunks, b"")
                    # Whoever takes the piece may take his time.
                    limit.reschedule(None)
                    if not chunk:
                        return
                    yield chunk

    async def aclose(self) -> None:
        with _truthful(self._request):
            await self._stream.aclose()


class Transport(AiohttpTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with _truthful(request):
            response = await super().handle_async_request(request)
        assert isinstance(response.stream, AiohttpResponseStream)
        encodings = [name for name in response.headers.get_list("content-encoding", True) if name != "identity"]
        if len(encodings) > 1:
            # Compressed twice, a piece may grow a millionfold; nobody honest does that.
            await response.aclose()
            raise httpx.DecodingError("an answer that is compressed several times")
        # Its own 16 KiB cost twice the time for a picture.
        response.stream.CHUNK_SIZE = READ_BYTES
        read_s = request.extensions.get("timeout", {}).get("read")
        response.stream = _Stream(response.stream, min(read_s or _STALL_S, _STALL_S), request)
        if encodings:
            # Nobody else inflates it: what is not known here stays as it came.
            del response.headers["content-encoding"]
        if encodings and encodings[0].lower() in ENCODINGS:
            response.headers.pop("content-length", None)
            response.stream = DecompressedStream(response.stream, encodings[0].lower())
        return response


class Client(httpx.AsyncClient):
    """httpx's client without what these clients never do: authentication, redirects, cookies, hooks.

    All of that is looked for at each request, at the price of a quarter of it.
    """

    def __init__(self, transport: Transport, *, timeout: httpx.Timeout, headers: Mapping[str, str]) -> None:
        super().__init__(
            transport=transport,
            timeout=timeout,
            headers=headers,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            trust_env=False,
        )
        self._straight = transport

    @override
    async def send(self, request: httpx.Request, *, stream: bool = False, **more: Any) -> httpx.Response:
        """Send a request as it is. Raises TypeError where it is to be more than that: `auth`, `follow_redirects`."""
        if wanted := [name for name, value in more.items() if value and value is not httpx.USE_CLIENT_DEFAULT]:
            raise TypeError(f"this client does without {', '.join(wanted)}")
        response = await self._straight.handle_async_request(request)
        response.request = request
        if not stream:
            try:
                await response.aread()
            except BaseException:
                await response.aclose()
                raise
        return response


def client(*, max_connections: int = 1000) -> httpx.AsyncClient:
    """Return the client that all adapters share. The caller closes it.

    It follows no redirects, keeps no cookies, reads no proxies or keys from the environment, and asks for answers
    that are not compressed: pictures would gain nothing, and a compressed answer may grow a thousandfold.
    """
    tls = tls_context()

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=tls, limit=max_connections, keepalive_timeout=_KEEPALIVE_S)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_BYTES,
            trust_env=False,
            trace_configs=[watched()],
        )

    return Client(
        Transport(verify=tls, trust_env=False, client=session),
        timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S, pool=_CONNECT_S),
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
    )
