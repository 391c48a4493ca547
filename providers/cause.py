"""Why a request got no answer, in words that callers may read: what happened, and at which host. Never an address."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

import aiohttp
import httpx

# The most specific first: an exception is what the first of these is that it, or something it was raised from, is.
_WORDS: tuple[tuple[type[BaseException] | int, str], ...] = (
    (aiohttp.ClientConnectorDNSError, "the name could not be resolved"),
    (socket.gaierror, "the name could not be resolved"),
    (aiohttp.ClientConnectorCertificateError, "the TLS certificate is not trusted"),
    (ssl.SSLCertVerificationError, "the TLS certificate is not trusted"),
    (aiohttp.ClientSSLError, "the TLS handshake failed"),
    (ssl.SSLError, "the TLS handshake failed"),
    (errno.ECONNREFUSED, "the connection was refused"),
    (errno.ENETUNREACH, "the host cannot be reached from here"),
    (errno.EHOSTUNREACH, "the host cannot be reached from here"),
    (aiohttp.ConnectionTimeoutError, "the connection took too long"),
    (httpx.ConnectTimeout, "the connection took too long"),
    (httpx.PoolTimeout, "no connection was free"),
    (TimeoutError, "no answer in time"),
    (httpx.TimeoutException, "no answer in time"),
    (ConnectionError, "the connection broke off"),
    (aiohttp.ClientConnectionError, "the connection broke off"),
    (aiohttp.ClientPayloadError, "the connection broke off"),
    (httpx.NetworkError, "the connection broke off"),
    (httpx.RemoteProtocolError, "the answer was no HTTP, or broke off"),
)
_DEEPEST = 6


def why(exc: BaseException) -> str:
    """What happened; an exception that is not known here by its class's name, for its message may hold an address."""
    chain = list(_chain(exc))
    for kind, words in _WORDS:
        if any(found.errno == kind for found in chain if isinstance(kind, int) and isinstance(found, OSError)):
            return words
        if not isinstance(kind, int) and any(isinstance(found, kind) for found in chain):
            return words
    return type(exc).__name__


def host_of(exc: BaseException) -> str | None:
    """The host of the request that an exception of httpx is about; None where it knows of none."""
    request = getattr(exc, "_request", None)
    return host_in(request.url) if isinstance(request, httpx.Request) else None


def host_in(address: str | httpx.URL) -> str:
    """The host in an address, without port, user, path and query."""
    return httpx.URL(address).raw_host.decode("ascii", "replace")[:100]


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """An exception, what it was raised from, and the operating system's own word where aiohttp keeps one."""
    found: BaseException | None = exc
    for _ in range(_DEEPEST):
        if found is None:
            return
        yield found
        if isinstance(found, aiohttp.ClientConnectorError):
            yield found.os_error
        found = found.__cause__
