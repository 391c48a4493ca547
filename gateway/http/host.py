"""What proxies say of a request: believed where the one that speaks is trusted, and of nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.types import Scope

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
    `X-Forwarded-Host` count with one value each: of several, all but one are a stranger's.
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
