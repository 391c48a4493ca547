"""Failed requests: exceptions and status codes mapped to the error tree, and why a request got no answer.

The reason is a sentence that clients may read: what happened, and at which host; never an address.
"""

from __future__ import annotations

import errno
import math
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import aiohttp
import httpx

from providers.errors import Failed, ProviderError, Rejected, Throttled, Unknown, Unreached, Unusable
from providers.http.bodies import detail

UNKNOWN = "no whole answer came"
_RESOLVED = "the name could not be resolved"
_CERTIFICATE = "the TLS certificate is not trusted"
_HANDSHAKE = "the TLS handshake failed"
_REFUSED = "the connection was refused"
_UNREACHABLE = "the host cannot be reached from here"
_SLOW = "the connection took too long"
_BROKEN = "the connection broke off"
_LATE = "the answer took too long"
# The most specific first: an exception is what the first of these is that it, or something it was raised from, is.
_WORDS: tuple[tuple[type[BaseException] | int, str], ...] = (
    (aiohttp.ClientConnectorDNSError, _RESOLVED),
    (socket.gaierror, _RESOLVED),
    (ssl.SSLCertVerificationError, _CERTIFICATE),
    (aiohttp.ClientSSLError, _HANDSHAKE),
    (ssl.SSLError, _HANDSHAKE),
    (ConnectionRefusedError, _REFUSED),
    (errno.ECONNREFUSED, _REFUSED),
    (errno.ENETUNREACH, _UNREACHABLE),
    (errno.EHOSTUNREACH, _UNREACHABLE),
    (errno.ENETDOWN, _UNREACHABLE),
    (errno.EHOSTDOWN, _UNREACHABLE),
    (errno.ETIMEDOUT, _SLOW),
    (aiohttp.ConnectionTimeoutError, _SLOW),
    (httpx.ConnectTimeout, _SLOW),
    (httpx.PoolTimeout, "no connection was free"),
    (TimeoutError, _LATE),
    (httpx.TimeoutException, _LATE),
    (aiohttp.ServerDisconnectedError, "the connection was closed without an answer"),
    (aiohttp.ClientPayloadError, "the answer broke off"),
    (ConnectionError, _BROKEN),
    (aiohttp.ClientConnectorError, "no connection could be made"),
    (httpx.ConnectError, "no connection could be made"),
    (aiohttp.ClientConnectionError, _BROKEN),
    (httpx.NetworkError, _BROKEN),
    (httpx.DecodingError, "the answer could not be decompressed"),
    (httpx.RemoteProtocolError, "the answer was no HTTP, or broke off"),
)


def why(exc: BaseException) -> str:
    """What happened: `the connection was refused`.

    An exception of the clients that is not known here is told by its class's name, for its message may hold an address.
    """
    chain = list(_chain(exc))
    for kind, words in _WORDS:
        if any(_is(found, kind) for found in chain):
            return f"{words}{_reason(chain)}" if words == _CERTIFICATE else words
    foreign = (type(found) for found in chain if type(found).__module__.partition(".")[0] in ("httpx", "aiohttp"))
    return next((kind.__name__ for kind in foreign), UNKNOWN)


def host_of(exc: BaseException) -> str | None:
    """The host of the request that an exception of httpx is about; None where it knows of none."""
    request = getattr(exc, "_request", None)
    return host_in(request.url) if isinstance(request, httpx.Request) else None


def host_in(address: str | httpx.URL) -> str:
    """The host in an address, without port, user, path and query. Raises httpx.InvalidURL where it is none."""
    return httpx.URL(address).raw_host.decode("ascii", "replace")[:100]


def _is(exc: BaseException, kind: type[BaseException] | int) -> bool:
    if isinstance(kind, int):
        return isinstance(exc, OSError) and exc.errno == kind
    return isinstance(exc, kind)


def _reason(chain: list[BaseException]) -> str:
    """What OpenSSL has against a certificate. Of one for other names it also says for which: they are left out."""
    # aiohttp's own error of this class has no message, and holds the one that has.
    said = (getattr(found, "verify_message", "") for found in chain)
    reason = next(filter(None, said), "").partition(", certificate is not valid for")[0].rstrip(".")
    return f": {reason}" if reason else ""


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """An exception, what it was raised from, and what aiohttp's hold; each of them once."""
    seen: set[int] = set()
    waiting: list[object] = [exc]
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [getattr(found, "os_error", None), getattr(found, "certificate_error", None), found.__cause__]


class NoAnswer(Exception):
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
        raise NoAnswer(f"{provider}: {what}: {why(exc)}", left=left) from exc


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
