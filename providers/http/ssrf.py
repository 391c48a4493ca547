"""Which addresses may be fetched (a guard against SSRF): public ones over https, and those the operator allows.

The address that is checked is the address that is connected: the check sits in the resolver of the connector, so that
a name that resolves differently the second time (DNS rebinding) gains nothing. Names are resolved on threads of their
own: an unresponsive name server delays nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

# A thread waits as long as the system does for an answer, 10 to 30 seconds, also when nobody waits for it any more.
_THREADS = 64
_FLAGS = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class NameResolver(AbstractResolver):
    """Asks the system, as aiohttp's own resolver does, but not on the threads that the whole process shares."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="lookup")

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError for a name that leads nowhere."""
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._pool, ask)
        return [
            ResolveResult(hostname=host, host=str(at[0]), port=int(at[1]), family=kind, proto=proto, flags=_FLAGS)
            for kind, _, proto, _, at in found
        ]

    @override
    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


# Denied whatever the standard library says of them, for its tables differ between versions: all of IANA's registry of
# special-purpose IPv4 addresses, also what is reachable everywhere (AS112 and relays are mostly reached inside of one's
# own network), carrier-grade NAT, where there are metadata services, and multicast.
_DENIED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# All public addresses of IPv6 are in here: what is outside is special, or nobody's yet. Only the special ones within
# have to be named: protocol assignments with Teredo and benchmarks, documentation, AS112.
_GLOBAL_V6 = IPv6Network("2000::/3")
_DENIED_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")))
_NAT64 = IPv6Network("64:ff9b::/96")
# Two parsers read an address, httpx's and aiohttp's: only what no parser can read in two ways.
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*\.?", re.IGNORECASE)
# What the C library and browsers take for an IPv4 address: 127.1, 2130706433, 0x7f.0.0.1, 0177.0.0.1
_NUMERIC = re.compile(r"(0x[0-9a-f]*|\d+)", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_LONGEST = 8192


class UrlForbidden(Exception):
    """The address may not be fetched. The message names the host, never the path or the query."""


def public(address: str) -> bool:
    """Say whether an IP address, as text, belongs to the public internet; IPv4 inside of IPv6 is looked into."""
    if "%" in address:
        # A zone is for addresses of a local network.
        return False
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        found = _embedded(found) or found
    if isinstance(found, IPv6Address):
        usual = found in _GLOBAL_V6 and not any(found in network for network in _DENIED_V6)
    else:
        usual = not any(found in network for network in _DENIED_V4)
    return usual and found.is_global and not found.is_multicast


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to an IPv6 one end up at; None where there is none."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """The rules for addresses of strangers. `allow` are origins as `host:port` that are exempt from all of them.

    `http` lets that scheme too, `ports` are those of both. Where `hosts` has any, only these are fetched, and in no
    case those in `denied`: names, or `*.example.org` for all below one. `discreet` refuses a name that leads nowhere
    like one that leads into our network, so that nobody can ask through us which names that has.
    """

    allow: frozenset[str] = frozenset()
    http: bool = False
    ports: frozenset[int] = frozenset({443})
    hosts: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    discreet: bool = False

    def exempt(self, host: str, port: int) -> bool:
        """Say whether the operator allows this origin. An IPv6 address is written with or without brackets."""
        bare = host.strip("[]").lower()
        return bool({f"{bare}:{port}", f"[{bare}]:{port}"} & {origin.lower() for origin in self.allow})

    def check(self, address: str) -> httpx.URL:
        """Return the address, parsed, where its text allows to fetch it. What its name resolves to is checked later.

        Raises UrlForbidden for another scheme, port or host than these rules let (an exempt origin has either scheme
        and its own port), for a name and password in it, and for an IP address that is not public, in whatever
        spelling.
        """
        if len(address) > _LONGEST:
            raise UrlForbidden(f"the address is longer than {_LONGEST} characters")
        try:
            url = httpx.URL(address)
            # httpx reads it only now, and raises for what is not IDNA.
            host = url.raw_host.decode("ascii")
        except (httpx.InvalidURL, UnicodeError, ValueError, TypeError) as exc:
            raise UrlForbidden("the address cannot be read") from exc
        if url.scheme not in _PORTS:
            raise UrlForbidden(f"the scheme {url.scheme[:16]!r} is not fetched")
        if url.userinfo:
            raise UrlForbidden("an address with a user name is not fetched")
        port = _PORTS[url.scheme] if url.port is None else url.port
        if self.exempt(host, port):
            return url
        if (url.scheme != "https" and not self.http) or port not in self.ports:
            ports = ", ".join(map(str, sorted(self.ports)))
            wanted = f"{'http or https' if self.http else 'https'} on port {ports}"
            raise UrlForbidden(f"{url.scheme}://{_shown(host)}:{port} is not {wanted}")
        self.check_host(host)
        if _among(self.denied, host) or (self.hosts and not _among(self.hosts, host)):
            raise UrlForbidden(f"{_shown(host)} is not among the hosts that this server may call")
        return url

    def check_host(self, host: str) -> None:
        """Check a host as it stands in an address. Raises UrlForbidden for an IP address that is not public."""
        bare = host.strip("[]")
        if ":" in bare or _NUMERIC.fullmatch(bare.rstrip(".").rpartition(".")[2]):
            # Octal, hexadecimal and short spellings are not read by ip_address, and nobody honest uses them.
            if not public(bare):
                raise UrlForbidden(f"{_shown(host)} is not a public address")
        elif len(bare) > 253 or not _NAME.fullmatch(bare):
            raise UrlForbidden("the host is not a name")

    def resolver(self) -> AbstractResolver:
        """Return a resolver for aiohttp's connector that gives public addresses only. The connector closes it."""
        return _Resolver(self, NameResolver())


def _among(patterns: frozenset[str], host: str) -> bool:
    """Whether a host is one of these, or below one that begins with `*.`; the names' final dot does not matter."""
    bare = host.strip("[]").rstrip(".").lower()
    with contextlib.suppress(ValueError):
        bare = ip_address(bare).compressed
    _, *parents = bare.split(".")
    above = {f"*.{'.'.join(parents[at:])}" for at in range(len(parents))}
    return not patterns.isdisjoint({bare, *above})


def _shown(host: str) -> str:
    return host[:80]


class _Resolver(AbstractResolver):
    def __init__(self, url_policy: UrlPolicy, inner: AbstractResolver) -> None:
        self._guard = url_policy
        self._inner = inner

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises UrlForbidden when one address of several is not public: a mixed answer is an attack or a mistake."""
        if self._guard.exempt(host, port):
            return await self._inner.resolve(host, port, family)
        self._guard.check_host(host)
        try:
            found = await self._inner.resolve(host, port, family)
        except OSError:
            if not self._guard.discreet:
                raise
            found = []
        if (self._guard.discreet and not found) or not all(public(result["host"]) for result in found):
            raise UrlForbidden(f"{_shown(host)} does not lead to a public address")
        return found

    @override
    async def close(self) -> None:
        await self._inner.close()
