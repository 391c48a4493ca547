"""Which addresses may be fetched at a stranger's word."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from providers.errors import Undecodable
from providers.http.download import download, downloads_client, fetch
from providers.http.ssrf import UrlForbidden, UrlPolicy, public
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
    "https://0.0.0.0/a.png",
    "https://00.0x0.0/a.png",
    "https://169.254.43518/a.png",
    "https://0xa9fea9fe/latest/meta-data",
    "https://2852039166/latest/meta-data",
    "https://[::ffff:169.254.169.254]/latest/meta-data",
    "https://[::ffff:0:7f00:1]/a.png",
    "https://[::127.0.0.1]/a.png",
    "https://[64:ff9b::a9fe:a9fe]/latest/meta-data",
    "https://[64:ff9b:1::7f00:1]/a.png",
    "https://[0:0:0:0:0:0:0:1]/a.png",
    "https://[fec0::1]/a.png",
    "https://[fe80::1%25eth0]/a.png",
    "https://[::1%25lo]:443/a.png",
    "https://①②⑦.0.0.1/a.png",
    "https://example.com\\@127.0.0.1/a.png",
    "https://exa mple.com/a.png",
    "https://ex%61mple.com/a.png",
    "https://exam\nple.com/a.png",
    "https://-/a.png",
    "https://" + "a" * 300 + "/a.png",
    "https://example.com/" + "a" * 8192,
    "https://example.com:0/a.png",
    "https://example.com:99999/a.png",
    "https://example.com\t.evil.org/",
    "gopher://127.0.0.1:6379/_x",
    "https://localhost/a.png",
    "https://LOCALHOST/a.png",
]


@pytest.mark.parametrize("address", [address for address in FORBIDDEN if "localhost" not in address.lower()])
def test_an_address_is_refused_by_its_text(address: str) -> None:
    """No other scheme or port, no names and passwords, and no private address, in whatever spelling."""
    with pytest.raises(UrlForbidden):
        UrlPolicy().check(address)


def test_ordinary_addresses_pass() -> None:
    """What providers deliver from."""
    for address in ("https://replicate.delivery/pbxt/a.png", "https://v3.fal.media:443/a?b=c", "https://8.8.8.8/a"):
        assert UrlPolicy().check(address) == address


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

    answers: list[list[str] | OSError]
    asked: int

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        Names.asked += 1
        found = Names.answers.pop(0)
        if isinstance(found, OSError):
            raise found
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
    monkeypatch.setattr("providers.http.ssrf.NameResolver", Names)
    Names.asked, Names.answers = 0, [answer, ["8.8.8.8"]]
    url_policy = UrlPolicy()
    deadline = asyncio.get_running_loop().time() + 5
    async with downloads_client(url_policy) as client:
        with pytest.raises(Undecodable, match=r"rebinding\.example does not lead to a public address"):
            await download(client, "https://rebinding.example/a", url_policy=url_policy, cap=10, deadline=deadline)
    assert Names.asked == 1


async def test_a_name_is_allowed_with_its_port_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`host:port` exempts that origin, and no other port of the host."""
    monkeypatch.setattr("providers.http.ssrf.NameResolver", Names)
    Names.asked, Names.answers = 0, [["127.0.0.1"], ["127.0.0.1"]]
    deadline = asyncio.get_running_loop().time() + 5
    with serve(Response(b"a picture")) as served:
        port = served.origin.partition(":")[2]
        url_policy = UrlPolicy(frozenset({f"Files.internal:{port}"}))
        async with downloads_client(url_policy) as client:
            good = f"http://files.INTERNAL:{port}/a"
            assert await download(client, good, url_policy=url_policy, cap=100, deadline=deadline) == b"a picture"
            with pytest.raises(Undecodable, match="public address"):
                await download(client, "https://files.internal/a", url_policy=url_policy, cap=100, deadline=deadline)
    assert UrlPolicy(frozenset({"[::1]:80"})).check("http://[::1]/a").path == "/a"
    with pytest.raises(UrlForbidden):
        UrlPolicy(frozenset({"[::1]:81"})).check("http://[::1]/a")


def test_schemes_and_ports_are_the_operators_choice() -> None:
    """http only where it is let, and only on the ports that are listed; nothing private is public for that."""
    plain = UrlPolicy(http=True, ports=frozenset({80, 443, 8080}))
    for address in ("http://example.com/a", "https://example.com:8080/a", "http://example.com:8080/a"):
        assert plain.check(address) == address
    for address in ("http://example.com:81/a", "http://127.0.0.1/a", "http://[::1]:8080/a", "http://a@example.com/"):
        with pytest.raises(UrlForbidden):
            plain.check(address)
    with pytest.raises(UrlForbidden, match=r"http://example\.com:80 is not https on port 443, 8443"):
        UrlPolicy(ports=frozenset({443, 8443})).check("http://example.com/")


@pytest.mark.parametrize(
    ("address", "fetched"),
    [
        ("https://example.org/", True),
        ("https://EXAMPLE.org./a", True),
        ("https://a.images.net/", True),
        ("https://a.b.images.net/", True),
        ("https://bücher.example/", True),
        ("https://8.8.8.8/", True),
        ("https://[2001:4860:4860:0::8888]/", True),
        ("https://pictures.net/", False),
        ("https://apictures.net/", False),
        ("https://www.example.org/", False),
        ("https://example.org.evil.com/", False),
        ("https://bad.images.net/", False),
        ("https://bad.images.net./", False),
        ("https://BAD.images.net/", False),
        ("https://x.bad.images.net/", True),
        ("https://8.8.4.4/", False),
    ],
)
def test_hosts_are_the_operators_choice(address: str, fetched: bool) -> None:
    """Where there are hosts to keep to, no others are fetched; those that are denied never are."""
    hosts = {"example.org", "*.images.net", "xn--bcher-kva.example", "8.8.8.8", "2001:4860:4860::8888"}
    url_policy = UrlPolicy(hosts=frozenset(hosts), denied=frozenset({"bad.images.net"}))
    if fetched:
        url_policy.check(address)
        return
    with pytest.raises(UrlForbidden, match="is not among the hosts"):
        url_policy.check(address)


def test_what_is_denied_is_denied_in_every_spelling() -> None:
    """Also without a list to keep to, for all that is below a name, and for an address of IPv6 that is written out."""
    url_policy = UrlPolicy(denied=frozenset({"*.evil.org", "2001:4860:4860::8888"}))
    for address in ("https://a.evil.org/", "https://A.b.EVIL.org./", "https://[2001:4860:4860:0:0:0:0:8888]/"):
        with pytest.raises(UrlForbidden):
            url_policy.check(address)
    assert url_policy.check("https://evil.org/").host == "evil.org"


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], [], OSError("no such name")])
async def test_a_discreet_guard_does_not_tell_which_names_there_are(
    monkeypatch: pytest.MonkeyPatch, answer: list[str] | OSError
) -> None:
    """A name of our network and one that nobody has are refused in the same words."""
    monkeypatch.setattr("providers.http.ssrf.NameResolver", Names)
    Names.asked, Names.answers = 0, [answer]
    url_policy = UrlPolicy(discreet=True)
    async with downloads_client(url_policy) as client:
        with pytest.raises(UrlForbidden, match=r"^wiki\.corp does not lead to a public address$"):
            await fetch(client, "https://wiki.corp/", url_policy=url_policy, cap=10)


async def test_a_name_that_changes_its_mind_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public at the check, loopback at the next question: the address that was checked is the one that is connected.

    127.0.0.2 plays the public address here; the same port of 127.0.0.1 is what the name wants to lead to.
    """
    monkeypatch.setattr("providers.http.ssrf.NameResolver", Names)
    monkeypatch.setattr("providers.http.ssrf.public", lambda address: address == "127.0.0.2")
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await Response(b"secret")(scope, receive, send)

    with serve(inner) as there:
        port = int(there.origin.partition(":")[2])
        url_policy = UrlPolicy(http=True, ports=frozenset({port}))
        with serve(Response(b"a picture"), at=("127.0.0.2", port)):
            async with downloads_client(url_policy) as client:
                Names.asked, Names.answers = 0, [["127.0.0.2"], ["127.0.0.1"]]
                assert (
                    await fetch(client, f"http://rebinding.example:{port}/a", url_policy=url_policy, cap=99)
                    == b"a picture"
                )
                assert Names.asked == 1
        async with downloads_client(url_policy) as client:
            with pytest.raises(UrlForbidden, match="public address"):
                await fetch(client, f"http://rebinding.example:{port}/a", url_policy=url_policy, cap=99)
    assert Names.asked == 2
    assert seen == []
