"""Why a host gave no answer, in words that go behind its name: nothing of an address is in them."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator

import aiohttp
import httpx

UNKNOWN = "gave no whole answer"
_TLS = "could not be spoken to over TLS"
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
# The most specific first: total over what the clients of strangers raise.
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "has a name that leads nowhere (DNS)"),
    (aiohttp.ClientSSLError, _TLS),
    (ssl.SSLError, _TLS),
    (ConnectionRefusedError, "refused the connection"),
    (aiohttp.ConnectionTimeoutError, "did not take the connection in time"),
    (httpx.ConnectTimeout, "did not take the connection in time"),
    (httpx.TimeoutException, "did not go on with its answer in time"),
    (aiohttp.ServerDisconnectedError, "ended the connection without an answer"),
    (aiohttp.ClientPayloadError, "broke off its answer"),
    (httpx.DecodingError, "sent an answer that cannot be unpacked"),
)


def cause_of(error: BaseException) -> str:
    """What a request that got no answer met with: `refused the connection`, `did not take the connection in time`."""
    chain = list(_chain(error))
    # aiohttp's own error of this class has no message, and holds the one that has.
    reasons = (getattr(one, "verify_message", "") for one in chain if isinstance(one, ssl.SSLCertVerificationError))
    if reason := next(filter(None, reasons), ""):
        return f"has a TLS certificate that is not accepted: {reason.rstrip('.')}"
    for kind, words in _KINDS:
        if any(isinstance(one, kind) for one in chain):
            return words
    numbers = {one.errno for one in chain if isinstance(one, OSError)}
    if errno.ECONNREFUSED in numbers:
        return "refused the connection"
    if numbers & _UNREACHABLE:
        return "cannot be reached from here"
    return "could not be connected" if any(isinstance(one, httpx.ConnectError) for one in chain) else UNKNOWN


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was made of, and what these hold; each of them once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [getattr(one, "os_error", None), getattr(one, "certificate_error", None)]
        waiting += [one.__cause__, *(held for held in inner if isinstance(held, BaseException))]
