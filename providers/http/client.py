"""One place each for what every adapter says over HTTP: the client, its errors, the statuses."""

from __future__ import annotations

import asyncio
import functools
import math
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream
from typing_extensions import override

from providers.base import Failed, ProviderError, Rejected, Throttled, Unknown, Unreached, Unusable
from providers.http.agent import USER_AGENT
from providers.http.bodies import detail
from providers.http.cause import host_of, why
from providers.http.inflate import ENCODINGS, Inflated
from providers.kit.departure import watched

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


class Unanswered(Exception):
    """A request that changes nothing got no answer: ask again. For the loops inside of adapters, never raised by them.

    `left` is false where the request surely never left.
    """

    def __init__(self, message: str, *, left: bool = True) -> None:
        super().__init__(message)
        self.left = left


# Which of our errors a failed submit is: total over httpx's exceptions, the most specific wins. Only what surely
# happened before the first byte was sent is Unreached; everything else may have bought something.
ERRORS: Mapping[type[Exception], type[ProviderError]] = {
    httpx.HTTPError: Unknown,
    httpx.RequestError: Unknown,
    httpx.TransportError: Unknown,
    httpx.TimeoutException: Unknown,
    httpx.ConnectTimeout: Unreached,
    httpx.ReadTimeout: Unknown,
    httpx.WriteTimeout: Unknown,
    httpx.PoolTimeout: Unreached,
    httpx.NetworkError: Unknown,
    httpx.ConnectError: Unreached,
    httpx.ReadError: Unknown,
    httpx.WriteError: Unknown,
    httpx.CloseError: Unknown,
    httpx.ProtocolError: Unknown,
    httpx.LocalProtocolError: Unknown,
    httpx.RemoteProtocolError: Unknown,
    httpx.ProxyError: Unreached,
    httpx.UnsupportedProtocol: Unreached,
    httpx.DecodingError: Unknown,
    httpx.TooManyRedirects: Unknown,
    httpx.HTTPStatusError: Unknown,
    httpx.InvalidURL: Unreached,
    httpx.CookieConflict: Unreached,
    httpx.StreamError: Unknown,
    httpx.StreamConsumed: Unknown,
    httpx.StreamClosed: Unknown,
    httpx.ResponseNotRead: Unknown,
    httpx.RequestNotRead: Unknown,
}


def _error_for(exc: Exception) -> type[ProviderError]:
    return next((ERRORS[kind] for kind in type(exc).__mro__ if kind in ERRORS), Unknown)


@contextmanager
def submitting(provider: str, *, private: bool = False) -> Iterator[None]:
    """Turn httpx's exceptions around a submit and the reading of its answer into Unreached or Unknown.

    They say what happened and at which host; where that is `private`, a machine of the operator's, not the host.
    """
    try:
        yield
    except tuple(ERRORS) as exc:
        kind = _error_for(exc)
        host = None if private else host_of(exc)
        if kind is Unreached:
            what = f"no connection to {host}" if host else "no connection"
        else:
            what = f"the answer from {host} was lost" if host else "the answer was lost"
        raise kind(f"{provider}: {what}: {why(exc)}") from exc


@contextmanager
def polling(provider: str, *, private: bool = False) -> Iterator[None]:
    """Turn httpx's exceptions around a request that changes nothing into Unanswered, likewise."""
    try:
        yield
    except tuple(ERRORS) as exc:
        left = _error_for(exc) is not Unreached
        host = None if private else host_of(exc)
        what = f"no answer from {host}" if host else "no answer"
        raise Unanswered(f"{provider}: {what}: {why(exc)}", left=left) from exc


STATUSES: Mapping[int, type[ProviderError]] = {
    400: Rejected,
    401: Unusable,
    402: Unusable,
    403: Unusable,
    404: Failed,  # the model is not there; another one of the provider may be
    408: Throttled,
    409: Throttled,
    410: Failed,
    413: Rejected,
    414: Rejected,
    415: Rejected,
    422: Rejected,
    425: Throttled,
    429: Throttled,
    500: Failed,
    503: Failed,
}


def refusal(
    provider: str,
    response: httpx.Response,
    body: bytes,
    *,
    now: float,
    statuses: Mapping[int, type[ProviderError]] | None = None,
) -> ProviderError:
    """Return the error that a submit's answer other than success stands for.

    `now` is in seconds of the wall clock. `statuses` are the provider's own meanings, which win. What is in neither
    map (502, 504, a redirect) comes from something between, which cannot say whether the provider took the work; so
    does a 500 that is not the provider's own JSON.
    """
    status = response.status_code
    text = detail(body)
    kind = {**STATUSES, **(statuses or {})}.get(status)
    if kind is None:
        kind = Rejected if 400 <= status < 500 else Unknown
    if status == 500 and kind is Failed and not body.lstrip().startswith(b"{"):
        kind = Unknown
    # A submit that was refused with a status was not taken: only what is Unknown may have been.
    unbilled = kind is not Unknown
    message = f"{provider}: HTTP {status}"
    return kind(message, said=text, retry_after=retry_after(response, now), code=str(status), unbilled=unbilled)


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


_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")


def retry_after(response: httpx.Response, now: float) -> float | None:
    """Return for how many seconds the answer asks to be left alone; None if it does not say.

    Read are `retry-after-ms` and `retry-after`, as seconds or as a date. `now` is in seconds of the wall clock.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = response.headers.get(name, "").strip()
        if _SECONDS.fullmatch(text):
            return float(text) * unit
    try:
        then = parsedate_to_datetime(response.headers.get("retry-after", ""))
        seconds = then.timestamp() - now
    except (ValueError, OverflowError):
        return None
    return max(0.0, math.ceil(seconds))


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
            response.stream = Inflated(response.stream, encodings[0].lower())
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
