"""Calls without an API key: served to this machine alone, as far as a server can tell that."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.http import host
from gateway.http.errors import ApiError

_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def check_local(scope: Scope, headers: Headers) -> None:
    """Raise ApiError 403 for a call that did not come from this machine.

    A web page open in its browser is a stranger all the same, and so is whoever stands behind a proxy that says so. One
    that says nothing cannot be told: where calls cost money, they need a key.
    """
    addresses = [f"//{headers.get('host', '')}", *filter(None, headers.getlist("origin"))]
    proxied = any(name in host.NAMES for name in headers)
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
