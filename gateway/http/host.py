"""Where a request came from and what it is addressed to: proxy headers, the Host header, the path, loopback calls."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.http.errors import ApiError

Network: TypeAlias = "IPv4Network | IPv6Network"

NAMES = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"})
# A host as it may stand in an address: a name or an IPv4 address, or an IPv6 address in brackets; and a port.
_HOST = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


def networks(trusted: Iterable[str]) -> tuple[Network, ...]:
    """The networks that trusted proxies are in."""
    return tuple(ip_network(text) for text in trusted)


def seen_through(scope: Scope, trusted: Sequence[Network]) -> Scope:
    """The request as the caller made it, where a trusted proxy tells of it; else as it came.

    The client is the last address of `X-Forwarded-For` that is no trusted proxy's itself. `X-Forwarded-Proto` and
    `X-Forwarded-Host` count with one value each: of several, all but one may come from an untrusted sender.
    """
    client = scope.get("client")
    if not trusted or client is None or not _within(client[0], trusted):
        return scope
    headers = Headers(scope=scope)
    seen = dict(scope)
    hops = [hop.strip() for line in headers.getlist("x-forwarded-for") for hop in line.split(",")]
    if (first := next((hop for hop in reversed(hops) if not _within(hop, trusted)), None)) and _is_address(first):
        seen["client"] = (first, 0)
    if (scheme := _only(headers, "x-forwarded-proto").lower()) in ("http", "https"):
        seen["scheme"] = scheme
    if _HOST.fullmatch(host := _only(headers, "x-forwarded-host")):
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        seen["headers"] = [*others, (b"host", host.encode())]
    return seen


def _only(headers: Headers, name: str) -> str:
    values = headers.getlist(name)
    return values[0].strip() if len(values) == 1 else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _within(address: str, trusted: Sequence[Network]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in trusted)


# C0, DEL and C1. A path has them only as escapes, and programs differ in where they think that it ends then.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SLASHES = re.compile(rb"/{2,}")
_ABSOLUTE = re.compile(rb"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)


def normalize_host_header(target: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Leave one Host among the headers: the target's own where it names one, whatever else is said (RFC 9112, 3.2).

    Raises ApiError 400 where there are several, or none, which HTTP/1.0 alone allows.
    """
    named = [at for at, (name, _) in enumerate(headers) if name == b"host"]
    if len(named) > 1 or (not named and version == "1.1"):
        found = "several" if named else "none"
        raise ApiError(400, f"A request of HTTP/1.1 has one Host header; this one has {found}.", code="invalid_http")
    if (absolute := _ABSOLUTE.match(target)) is not None:
        for at in named:
            del headers[at]
        headers.insert(0, (b"host", absolute[1]))


def plain_path(raw: bytes) -> bytes:
    """A path as it came over the wire, without the slashes that name nothing: doubled ones, and those at its end.

    Escapes stay as they are, those of slashes too: an escaped slash is part of a name. So the response, and who
    may have it, is that of the remaining path, for every later reader.
    """
    if not raw.startswith(b"/"):
        return raw
    return _SLASHES.sub(b"/", raw).rstrip(b"/") or b"/"


def check_path(path: str) -> None:
    """Raise ApiError 400 for a control character in a path, whose escapes have been read."""
    if (found := _CONTROL.search(path)) is not None:
        escaped = quote(found[0], safe="")
        message = f"The path has a control character, {escaped}, as its character {found.start() + 1}: leave it out."
        raise ApiError(400, message, code="invalid_url")


_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def check_local(scope: Scope, headers: Headers) -> None:
    """Raise ApiError 403 for a request that did not come from this machine.

    A web page open in its browser is untrusted all the same, and so is a client behind a proxy that says so. One
    that says nothing cannot be told: where calls cost money, they need a key.
    """
    addresses = [f"//{headers.get('host', '')}", *filter(None, headers.getlist("origin"))]
    proxied = any(name in NAMES for name in headers)
    if proxied or not _is_local(scope.get("client")) or any(host_in(address) not in _NAMES for address in addresses):
        message = (
            "Without an API key this server serves its own machine only: send one of its keys, set DARKROOM_API_KEYS, "
            "or make one with `darkroom keys create`."
        )
        raise ApiError(403, message, code="loopback_only")


def host_in(address: str) -> str | None:
    """The host in an address; None where it has none, cannot be read, or comes behind a user's name."""
    try:
        parts = urlsplit(address)
        return None if "@" in parts.netloc else parts.hostname
    except ValueError:
        return None


def _is_local(client: tuple[str, int] | None) -> bool:
    """Whether a connection comes from the loopback: the server may listen elsewhere too."""
    if client is None:
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
