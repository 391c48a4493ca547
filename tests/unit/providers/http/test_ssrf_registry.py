"""The guard against IANA's registries of special-purpose addresses: no block of them is public."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from providers.http.ssrf import UrlForbidden, UrlPolicy, public


def words(text: str) -> list[str]:
    """What stands in a text, one by one."""
    return text.split()


# https://www.iana.org/assignments/iana-ipv4-special-registry, and multicast, which has a registry of its own.
IPV4 = words("""
    0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
    192.0.0.0/29 192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15
    198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32 224.0.0.0/4
    """)
# https://www.iana.org/assignments/iana-ipv6-special-registry but for the two blocks that stand for an IPv4 address
# (64:ff9b::/96, 2002::/16), and site-local, IPv4-compatible and IPv4-translated addresses, and multicast.
IPV6 = words("""
    ::1/128 ::/128 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128 2001:1::2/128
    2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28 2001:db8::/32
    2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ::/96 ::ffff:0:0:0/96 ff00::/8
    """)
# What nobody has: outside of 2000::/3 there are no public addresses.
NOBODYS = words("""
    4000::/3 6000::/3 8000::/3 a000::/3 c000::/3 e000::/4 f000::/5 1000::/4 800::/5 400::/6 200::/7
    """)
# Public neighbours of special blocks.
PUBLIC = words("""
    1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
    169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.31.195.255 192.31.197.0 192.52.192.255
    192.52.194.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 192.175.47.255 192.175.49.0 198.17.255.255
    198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255 2000::1 2001:200::
    2001:db7:ffff::1 2001:db9::1 2003::1 2620:4f:7fff::1 2620:4f:8001::1 2a00::1 3ffe::1 3fff:1000::1
    """)


def samples(block: str) -> list[str]:
    """The first and the last address of a block, and some between."""
    network: IPv4Network | IPv6Network = ip_network(block)
    draw = random.Random(block)
    size = network.num_addresses
    return [str(network[at]) for at in {0, size - 1, size // 2, *(draw.randrange(size) for _ in range(20))}]


@pytest.mark.parametrize("block", [*IPV4, *IPV6, *NOBODYS])
def test_no_special_block_is_public(block: str) -> None:
    """From its first address to its last, as text and as it stands in an address of the web."""
    for address in samples(block):
        assert not public(address), address
        with pytest.raises(UrlForbidden):
            UrlPolicy().check(f"https://[{address}]/" if ":" in address else f"https://{address}/")


@pytest.mark.parametrize("block", IPV4)
@pytest.mark.parametrize("wrapped", ["::ffff:{}", "64:ff9b::{}", "2002:{0:x}:{1:x}::1"])
def test_nor_is_it_inside_of_ipv6(block: str, wrapped: str) -> None:
    """Mapped, through NAT64, and through 6to4."""
    for address in samples(block):
        parts = [int(part) for part in address.split(".")]
        high, low = parts[0] << 8 | parts[1], parts[2] << 8 | parts[3]
        text = wrapped.format(high, low) if "{0" in wrapped else wrapped.format(address)
        assert not public(text), text


@pytest.mark.parametrize("address", PUBLIC)
def test_its_neighbours_are(address: str) -> None:
    """A block ends where it ends."""
    assert public(address)
