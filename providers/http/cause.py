"""Why a request got no answer, in words that callers may read: what happened, and at which host. Never an address."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

import aiohttp
import httpx

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
