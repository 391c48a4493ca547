"""What is fetched at a provider's word, and what is not."""

from __future__ import annotations

import asyncio
import base64
import gzip
import random
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import providers.http.download as fetching
from providers.errors import Expired, ProviderError, Undecodable, Unfinished
from providers.http.bodies import TooLarge
from providers.http.download import Floor, UrlExpired, _next_hop, download, downloads_client
from providers.http.errors import NoAnswer
from providers.http.ssrf import UrlForbidden, UrlPolicy
from tests.contract.test_ssrf import FORBIDDEN
from tests.simulators.common import Fault, Faults, html, play, serve
from tests.support.clock import Skipping
from tests.support.ports import dead_port

PICTURE = bytes(range(256)) * 40


@dataclass
class Delivery:
    """A host that delivers one picture, with faults; it keeps the headers that came."""

    faults: Faults = field(default_factory=Faults)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    url_policy: UrlPolicy = field(default_factory=UrlPolicy)

    async def endpoint(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        return await play(request, self.faults.next("download"), self.image)

    async def image(self) -> Response:
        return Response(PICTURE, media_type="image/png")


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    made = Delivery()
    with serve(Starlette(routes=[Route("/{path:path}", made.endpoint)])) as served:
        made.url = f"{served.url}/a.png"
        made.url_policy = UrlPolicy(frozenset({served.origin}))
        yield made


@pytest.fixture
async def client(delivery: Delivery) -> AsyncIterator[httpx.AsyncClient]:
    async with downloads_client(delivery.url_policy) as made:
        yield made


async def fetch(
    client: httpx.AsyncClient,
    delivery: Delivery,
    url: str = "",
    *,
    cap: int = 1_000_000,
    fresh: bool = False,
    clock: Skipping | None = None,
) -> bytes:
    clock = clock or Skipping()
    deadline = clock.after(60)
    address = url or delivery.url
    return await download(
        client, address, url_policy=delivery.url_policy, cap=cap, deadline=deadline, fresh=fresh, clock=clock
    )


async def test_a_result_is_fetched_without_any_of_our_secrets(client: httpx.AsyncClient, delivery: Delivery) -> None:
    """The bytes come as they are, and nothing goes out that says who we are."""
    delivery.faults.script(
        "download", Fault(status=302, headers={"location": "/b.png", "set-cookie": "a=b; Path=/"}), None
    )

    assert await fetch(client, delivery) == PICTURE
    for headers in delivery.headers:
        assert not headers.keys() & {"authorization", "cookie", "referer", "x-api-key"}
        assert headers["accept-encoding"] == "identity"
    assert len(delivery.headers) == 2


@pytest.mark.parametrize("address", FORBIDDEN)
async def test_an_address_that_may_not_be_fetched(client: httpx.AsyncClient, delivery: Delivery, address: str) -> None:
    """No other scheme or port, no names and passwords, and nothing in here, in whatever spelling."""
    with pytest.raises(Undecodable, match="may not be fetched"):
        await fetch(client, delivery, address or " ")


@pytest.mark.parametrize("address", [a for a in FORBIDDEN if "://" in a and a.isascii() and a.isprintable()])
async def test_a_redirect_is_checked_like_an_address(
    client: httpx.AsyncClient, delivery: Delivery, address: str
) -> None:
    """A good address that leads to a bad one leads nowhere."""
    delivery.faults.always("download", Fault(status=302, headers={"location": address}))
    with pytest.raises((Undecodable, Unfinished)):
        await fetch(client, delivery)


async def test_redirects_are_followed_three_times(client: httpx.AsyncClient, delivery: Delivery) -> None:
    """Three hops are enough for anybody; a loop is a fourth."""
    hop = Fault(status=307, headers={"location": "/next"})
    hops = [Fault(status=307, headers={"location": f"/{n}"}) for n in range(3)]
    delivery.faults.script("download", *hops)
    assert await fetch(client, delivery) == PICTURE
    delivery.faults.script("download", *hops, Fault(status=302, headers={"location": "/3"}))
    with pytest.raises(Undecodable, match="more than 3 redirects"):
        await fetch(client, delivery)
    delivery.faults.always("download", hop)
    with pytest.raises(Undecodable, match="redirects to itself"):
        await fetch(client, delivery)
    delivery.faults.always("download", Fault(status=302))
    with pytest.raises(Undecodable):
        await fetch(client, delivery)


def test_a_redirect_does_not_leave_https() -> None:
    """Not even to an origin that is allowed."""
    url_policy = UrlPolicy(frozenset({"127.0.0.1:80"}))
    to = httpx.Response(302, headers={"location": "http://127.0.0.1/a"})
    with pytest.raises(UrlForbidden, match="from https to http"):
        _next_hop(httpx.URL("https://example.com/"), to, url_policy)
    assert _next_hop(httpx.URL("http://127.0.0.1/"), to, url_policy).path == "/a"


async def test_a_result_that_is_too_large_is_given_up(client: httpx.AsyncClient, delivery: Delivery) -> None:
    """By what it says of itself before it is read, and by count where it says nothing."""
    assert await fetch(client, delivery, cap=len(PICTURE)) == PICTURE
    delivery.faults.script("download", Fault(kind="drip", seconds=100))
    with pytest.raises(Undecodable, match=f"larger than {len(PICTURE) - 1} bytes"):
        await fetch(client, delivery, cap=len(PICTURE) - 1)
    delivery.faults.script("download", Fault(kind="endless"))
    with pytest.raises(Undecodable, match="larger than"):
        await fetch(client, delivery)


async def test_a_fresh_result_may_be_late(client: httpx.AsyncClient, delivery: Delivery) -> None:
    """A 404 right after the job's end is asked again; three times, and not where the result is old."""
    missing = Fault(status=404)
    delivery.faults.script("download", missing, missing)
    assert await fetch(client, delivery, fresh=True) == PICTURE
    delivery.faults.script("download", missing)
    with pytest.raises(UrlExpired, match="404"):
        await fetch(client, delivery)
    delivery.headers.clear()
    delivery.faults.always("download", missing)
    with pytest.raises(UrlExpired):
        await fetch(client, delivery, fresh=True)
    assert len(delivery.headers) == 4


@pytest.mark.parametrize("status", [401, 403, 410])
async def test_a_result_that_is_gone(client: httpx.AsyncClient, delivery: Delivery, status: int) -> None:
    """The address is of no use any more, at once; another one may be."""
    delivery.faults.script("download", Fault(status=status))
    with pytest.raises(UrlExpired) as caught:
        await fetch(client, delivery, fresh=True)
    assert caught.value.status == status
    assert len(delivery.headers) == 1


BROKEN = [
    Fault(kind="cut_within"),
    Fault(kind="cut"),
    Fault(status=200, body=b""),
    html(500),
    html(503),
    Fault(status=429),
]


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: f"{fault.kind}-{fault.status}")
async def test_a_broken_result_is_fetched_again_three_times(
    client: httpx.AsyncClient, delivery: Delivery, fault: Fault
) -> None:
    """It is paid for: three failures are forgiven; after the fourth it is to be asked for later."""
    delivery.faults.script("download", fault, fault, fault)
    assert await fetch(client, delivery) == PICTURE
    delivery.headers.clear()
    delivery.faults.always("download", fault)
    with pytest.raises(Unfinished, match=r"could not be fetched"):
        await fetch(client, delivery)
    # A GET whose connection is lost is sent once more by aiohttp, without a word.
    assert len(delivery.headers) == (8 if fault.kind == "cut" else 4)


@pytest.mark.parametrize("status", [400, 402, 406, 451])
async def test_another_refusal_is_one_of_the_address(
    client: httpx.AsyncClient, delivery: Delivery, status: int
) -> None:
    """No status says that there is no picture, so another address may have it; no secrets of this one are told."""
    delivery.faults.script("download", Fault(status=status))
    with pytest.raises(UrlExpired) as caught:
        await fetch(client, delivery, delivery.url + "?signature=secret")
    assert caught.value.status == status
    assert "secret" not in str(caught.value)
    assert len(delivery.headers) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_host_that_is_not_there(scheme: str) -> None:
    """Refused connections and failed handshakes are tried again, then left for later, without the address's secrets."""
    port = dead_port()
    url_policy = UrlPolicy(frozenset({f"127.0.0.1:{port}"}))
    deadline = asyncio.get_running_loop().time() + 5
    url = f"{scheme}://127.0.0.1:{port}/a?signature=secret"
    async with downloads_client(url_policy) as client:
        with pytest.raises(Unfinished) as caught:
            await download(client, url, url_policy=url_policy, cap=10, deadline=deadline)
    assert "secret" not in caught.value.message


async def test_a_host_that_does_not_speak_tls(delivery: Delivery) -> None:
    """A handshake that fails is no way to get a picture in the clear."""
    deadline = asyncio.get_running_loop().time() + 5
    secure = delivery.url.replace("http:", "https:")
    async with downloads_client(delivery.url_policy) as client:
        with pytest.raises(Unfinished):
            await download(client, secure, url_policy=delivery.url_policy, cap=100_000, deadline=deadline)
    assert delivery.headers == []


@pytest.mark.parametrize("fault", [Fault(kind="hang"), Fault(kind="drip"), Fault(status=404)])
async def test_the_deadline_is_over_all(client: httpx.AsyncClient, delivery: Delivery, fault: Fault) -> None:
    """A server that is slow, however it does it, is left at the deadline."""
    delivery.faults.always("download", fault)
    deadline = asyncio.get_running_loop().time() + 0.3
    with pytest.raises(Expired):
        await download(client, delivery.url, url_policy=delivery.url_policy, cap=100_000, deadline=deadline, fresh=True)
    assert asyncio.get_running_loop().time() > deadline - 0.01


ENCODED = base64.b64encode(PICTURE).decode()


@pytest.mark.parametrize(
    ("address", "data"),
    [
        (f"data:image/png;base64,{ENCODED}", PICTURE),
        (f"DATA:image/png;charset=x;BASE64,{ENCODED[:40]}\n {ENCODED[40:]}", PICTURE),
        ("data:,a%20b", b"a b"),
        ("data:image/png;base64," + base64.b64encode(bytes(900_000)).decode(), bytes(900_000)),
    ],
    ids=["plain", "odd", "percent", "large"],
)
async def test_a_data_uri_is_its_own_result(
    client: httpx.AsyncClient, delivery: Delivery, address: str, data: bytes
) -> None:
    """Nothing is fetched for it."""
    assert await fetch(client, delivery, address) == data
    assert delivery.headers == []


@pytest.mark.parametrize(
    "address",
    [
        "data:",
        "data:image/png;base64,",
        "data:image/png;base64,!!!!",
        "data:image/png;base64",
        "data:," + "a" * 1_000_001,
        "data:image/png;base64," + "A" * 1_400_000,
        "data:," + "a" * 10_000_000,
    ],
    ids=lambda address: address[:30] + str(len(address)),
)
async def test_a_data_uri_that_is_none(client: httpx.AsyncClient, delivery: Delivery, address: str) -> None:
    """Empty, broken and too large ones are no results."""
    with pytest.raises(Undecodable) as caught:
        await fetch(client, delivery, address)
    assert len(caught.value.message) < 100


def test_every_error_is_of_the_contract_or_gone() -> None:
    """An adapter has two things to catch: what carries a policy, and what another address may mend."""
    assert issubclass(Undecodable, ProviderError)
    assert not issubclass(UrlExpired, ProviderError)


async def test_a_compressed_answer_is_counted_while_it_grows() -> None:
    """Whoever compresses what was asked for plain cannot fill the memory between two looks at the size."""
    plain = (random.Random(1).randbytes(64 << 10) + bytes(960 << 10)) * 24
    once = gzip.compress(plain)
    pieces: list[int] = []
    with (
        serve(Response(once, headers={"content-encoding": "gzip"})) as well,
        serve(Response(gzip.compress(once), headers={"content-encoding": "gzip, gzip"})) as ill,
        serve(Response(once, headers={"content-encoding": "br"})) as odd,
    ):
        url_policy = UrlPolicy(frozenset({well.origin, ill.origin, odd.origin}))
        async with downloads_client(url_policy) as client:
            data = await fetching.fetch(client, well.url, url_policy=url_policy, cap=32 << 20, took=pieces.append)
            assert (len(data), max(pieces) < 2 << 20) == (24 << 20, True)
            assert data == plain
            pieces.clear()
            with pytest.raises(NoAnswer, match="could not be decompressed"):
                await fetching.fetch(client, ill.url, url_policy=url_policy, cap=32 << 20, took=pieces.append)
            assert pieces == []
            assert await fetching.fetch(client, odd.url, url_policy=url_policy, cap=32 << 20) == once


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "bare"])
async def test_a_bomb_is_given_up_long_before_it_is_as_large_as_a_picture_may_be(encoding: str) -> None:
    """No picture grows a thousandfold as it is inflated: a few megabytes of it are enough to tell."""
    shape = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "bare": -15}[encoding])
    bomb = shape.compress(bytes(64 << 20)) + shape.flush()
    pieces: list[int] = []
    headers = {"content-encoding": "gzip" if encoding == "gzip" else "deflate"}
    with serve(Response(bomb, headers=headers)) as served:
        url_policy = UrlPolicy(frozenset({served.origin}))
        async with downloads_client(url_policy) as client:
            with pytest.raises(TooLarge, match="grows more than"):
                await fetching.fetch(client, served.url, url_policy=url_policy, cap=256 << 20, took=pieces.append)
    assert sum(pieces) < 8 << 20
    assert max(pieces) <= 256 << 10


async def test_a_compressed_answer_that_breaks_off_is_not_whole(delivery: Delivery, client: httpx.AsyncClient) -> None:
    """Half of it inflates well, and is half a picture."""
    half = gzip.compress(PICTURE)[:-20]
    delivery.faults.script("download", Fault(status=200, body=half, headers={"content-encoding": "gzip"}))
    assert await fetch(client, delivery) == PICTURE
    assert len(delivery.headers) == 2


async def test_a_result_that_comes_too_slowly_has_not_come() -> None:
    """The floor is over some seconds: who trickles is left, and asked again."""
    floor = Floor(1000)
    began = floor._began
    for second in range(1, 8):
        floor._now = lambda: began + second  # noqa: B023
        floor(10)
    floor._now = lambda: began + 8
    with pytest.raises(NoAnswer, match="less than 1000 bytes a second"):
        floor(10)
    fast = Floor(1000)
    fast._now = lambda: began + 8.0
    fast(80_000)
