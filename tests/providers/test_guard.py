"""Which addresses may be fetched at a stranger's word."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from starlette.responses import Response
from typing_extensions import override

from providers.base import Undecodable
from providers.download import download, downloads_client
from providers.guard import Forbidden, Guard, public
from tests.simulators.common import serve

FORBIDDEN = [
    "http://example.com/a.png",
    "https://example.com:8443/a.png",
    "https://user@example.com/a.png",
    "https://user:password@example.com/a.png",
    "ftp://example.com/a.png",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "//example.com/a.png",
    "/a.png",
    "",
    "https://",
    "https:///a.png",
    "https://127.0.0.1/a.png",
    "https://127.0.0.1./a.png",
    "https://127.1/a.png",
    "https://2130706433/a.png",
    "https://0x7f000001/a.png",
    "https://0x7f.0.0.1/a.png",
    "https://0177.0.0.1/a.png",
    "https://017700000001/a.png",
    "https://0/a.png",
    "https://8.8.8.8./a.png",
    "https://134744072/a.png",
    "https://169.254.169.254/latest/meta-data",
    "https://100.100.100.200/latest",
    "https://[::1]/a.png",
    "https://[::]/a.png",
    "https://[::ffff:127.0.0.1]/a.png",
    "https://[::ffff:7f00:1]/a.png",
    "https://[64:ff9b::7f00:1]/a.png",
    "https://[2002:7f00:1::]/a.png",
    "https://[fd00:ec2::254]/a.png",
    "https://[fe80::1%25eth0]/a.png",
    "https://[::1%25lo]:443/a.png",
    "https://①②⑦.0.0.1/a.png",
    "https://example.com\\@127.0.0.1/a.png",
    "https://exa mple.com/a.png",
    "https://ex%61mple.com/a.png",
    "https://exam\nple.com/a.png",
    "https://-/a.png",
    "https://" + "a" * 300 + "/a.png",
    "https://localhost/a.png",
    "https://LOCALHOST/a.png",
]


@pytest.mark.parametrize("address", [address for address in FORBIDDEN if "localhost" not in address.lower()])
def test_an_address_is_refused_by_its_text(address: str) -> None:
    """No other scheme or port, no names and passwords, and no private address, in whatever spelling."""
    with pytest.raises(Forbidden):
        Guard().check(address)


def test_ordinary_addresses_pass() -> None:
    """What providers deliver from."""
    for address in ("https://replicate.delivery/pbxt/a.png", "https://v3.fal.media:443/a?b=c", "https://8.8.8.8/a"):
        assert Guard().check(address) == address


def _words(text: str) -> list[str]:
    return text.split()


PRIVATE = _words("""
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.255 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.1 192.0.0.9 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1
    203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::ffff:10.0.0.1 ::ffff:8.8.8.8%1 64:ff9b::a00:1 64:ff9b::169.254.169.254 64:ff9b:1::1 2001::1
    2001:db8::1 2002:a00:1:: 2002:a9fe:a9fe::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1
    127.1 0177.0.0.1 2130706433 0x7f000001 localhost example.com 8.8.8.8.8 8.8.8
    """)
PUBLIC = _words("""
    8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.1 172.32.0.1 2606:4700::1111 2001:4860:4860::8888 ::ffff:8.8.8.8
    64:ff9b::808:808 2002:808:808::1
    """)


def test_which_addresses_are_public() -> None:
    """Whatever leads into a network of ours or to a metadata service is not, wrapped in IPv6 neither."""
    assert [address for address in PRIVATE if public(address)] == []
    assert [address for address in PUBLIC if not public(address)] == []


class Names(AbstractResolver):
    """A name server of the test's own, which may say something else each time."""

    answers: list[list[str]]
    asked: int

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        Names.asked += 1
        found = Names.answers.pop(0)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in found
        ]

    @override
    async def close(self) -> None:
        pass


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["169.254.169.254"]])
async def test_a_name_is_judged_by_the_answer_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, answer: list[str]
) -> None:
    """It is looked up once, by the connector: there is no second answer to be deceived by, and all of it counts."""
    monkeypatch.setattr("aiohttp.ThreadedResolver", Names)
    Names.asked, Names.answers = 0, [answer, ["8.8.8.8"]]
    guard = Guard()
    deadline = asyncio.get_running_loop().time() + 5
    async with downloads_client(guard) as client:
        with pytest.raises(Undecodable, match=r"rebinding\.example does not lead to a public address"):
            await download(client, "https://rebinding.example/a", guard=guard, cap=10, deadline=deadline)
    assert Names.asked == 1


async def test_a_name_is_allowed_with_its_port_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`host:port` exempts that origin, and no other port of the host."""
    monkeypatch.setattr("aiohttp.ThreadedResolver", Names)
    Names.asked, Names.answers = 0, [["127.0.0.1"], ["127.0.0.1"]]
    deadline = asyncio.get_running_loop().time() + 5
    with serve(Response(b"a picture")) as served:
        port = served.origin.partition(":")[2]
        guard = Guard(frozenset({f"Files.internal:{port}"}))
        async with downloads_client(guard) as client:
            good = f"http://files.INTERNAL:{port}/a"
            assert await download(client, good, guard=guard, cap=100, deadline=deadline) == b"a picture"
            with pytest.raises(Undecodable, match="public address"):
                await download(client, "https://files.internal/a", guard=guard, cap=100, deadline=deadline)
    assert Guard(frozenset({"[::1]:80"})).check("http://[::1]/a").path == "/a"
    with pytest.raises(Forbidden):
        Guard(frozenset({"[::1]:81"})).check("http://[::1]/a")
