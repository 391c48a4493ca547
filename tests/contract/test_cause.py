"""What is told of a request that got no answer: what happened and at which host, never its address."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import httpx
import pytest

from normalization.values import Header, Image
from providers.apiframe.api import ApiframeApi as Apiframe
from providers.base import Upstream, UpstreamJob
from providers.errors import Unknown, Unreached
from providers.fal.api import FalApi as Fal
from providers.fal.api import Storage
from providers.http.client import client
from providers.http.errors import NoAnswer, host_in, polling, submitting, why
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from providers.replicate.api import ReplicateApi as Replicate
from tests.simulators.common import tiny
from tests.support import adapters
from tests.support.clock import Skipping
from tests.support.ports import dead_port

PICTURE = Image(data=tiny(8, 8), header=Header(format="png", width=8, height=8))
SECRET = "/v2/u?token=5e1f00d"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client() as made:
        yield made


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"this is not TLS")
    writer.close()


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


@contextlib.asynccontextmanager
async def listening(how: Callable[..., Awaitable[None]], **more: object) -> AsyncIterator[int]:
    server = await asyncio.start_server(how, "127.0.0.1", 0, **more)  # type: ignore[arg-type]
    async with server:
        yield server.sockets[0].getsockname()[1]


async def told(http: httpx.AsyncClient, url: str, *, private: bool = False) -> tuple[str, str]:
    """What a submit and what a poll say of this address."""
    timeout = httpx.Timeout(0.2, connect=2)
    with pytest.raises((Unreached, Unknown)) as submitted, submitting("fal", private=private):
        await http.post(url, content=b"{}", timeout=timeout)
    with pytest.raises(NoAnswer) as polled, polling("fal", private=private):
        await http.get(url, timeout=timeout)
    for text in (str(submitted.value), str(polled.value)):
        assert "token" not in text
        assert "user" not in text
    return str(submitted.value), str(polled.value)


async def test_a_name_that_is_none(http: httpx.AsyncClient) -> None:
    """DNS, with the name."""
    words = "nobody.invalid: the name could not be resolved"
    assert await told(http, f"https://nobody.invalid{SECRET}") == (
        f"fal: no connection to {words}",
        f"fal: no answer from {words}",
    )


async def test_a_port_that_is_closed(http: httpx.AsyncClient) -> None:
    """Refused, with the host and without the port."""
    submitted, _ = await told(http, f"http://127.0.0.1:{dead_port()}{SECRET}")
    assert submitted == "fal: no connection to 127.0.0.1: the connection was refused"


async def test_what_speaks_no_tls(http: httpx.AsyncClient) -> None:
    """The handshake."""
    async with listening(plain) as port:
        submitted, _ = await told(http, f"https://127.0.0.1:{port}{SECRET}")
    assert submitted == "fal: no connection to 127.0.0.1: the TLS handshake failed"


async def test_a_host_that_does_not_answer(http: httpx.AsyncClient) -> None:
    """The answer may be on its way: what was lost is the answer."""
    async with listening(silent) as port:
        submitted, polled = await told(http, f"http://127.0.0.1:{port}{SECRET}")
    assert submitted == "fal: the answer from 127.0.0.1 was lost: the answer took too long"
    assert polled == "fal: no answer from 127.0.0.1: the answer took too long"


async def test_a_connection_that_breaks(http: httpx.AsyncClient) -> None:
    """Likewise."""
    async with listening(hangs_up) as port:
        submitted, _ = await told(http, f"http://127.0.0.1:{port}{SECRET}")
    assert submitted == "fal: the answer from 127.0.0.1 was lost: the connection was closed without an answer"


async def test_a_machine_of_the_operators(http: httpx.AsyncClient) -> None:
    """What its name is is nobody's business."""
    submitted, polled = await told(http, f"http://127.0.0.1:{dead_port()}{SECRET}", private=True)
    assert submitted == "fal: no connection: the connection was refused"
    assert polled == "fal: no answer: the connection was refused"


async def test_the_body_is_let_go(http: httpx.AsyncClient) -> None:
    """An error is kept with its job; the pictures that were on their way are not kept with it."""
    with pytest.raises(Unreached) as caught, submitting("fal"):
        await http.post(f"http://127.0.0.1:{dead_port()}/", content=b"x" * 1000)
    cause = caught.value.__cause__
    assert isinstance(cause, httpx.ConnectError)
    assert cause.request.content == b""


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (httpx.PoolTimeout("x"), "no connection was free"),
        (httpx.ConnectTimeout("x"), "the connection took too long"),
        (ssl.SSLCertVerificationError("x"), "the TLS certificate is not trusted"),
        (OSError(113, "No route"), "the host cannot be reached from here"),
        (ConnectionResetError(), "the connection broke off"),
        (httpx.InvalidURL("https://user:secret@x"), "InvalidURL"),
        (aiohttp.ServerDisconnectedError(), "the connection was closed without an answer"),
    ],
)
def test_words(exc: Exception, words: str) -> None:
    """Each kind has its own, and one that is not known only its name: the message may hold an address."""
    assert why(exc) == words


def test_a_host() -> None:
    """Nothing of an address but that."""
    assert host_in("https://user:pw@Köln.example:8443/a?b") == "xn--kln-sna.example"


@pytest.fixture
async def uploads(http: httpx.AsyncClient) -> list[Awaitable[object]]:
    """A picture to each provider that keeps them, at a name that leads nowhere."""
    base, clock, url_policy = "http://nobody.invalid", Skipping(), UrlPolicy()
    replicate = Replicate(http, key="k", base_url=base, timeout_s=2, answer_bytes=1000, clock=clock)
    apiframe = Apiframe(
        http, key="k", base_url=base, submit_timeout_s=2, poll_timeout_s=2, lost_after_s=1, max_upload_bytes=10**6,
        clock=clock,
    )  # fmt: skip
    fal = Storage(api=Fal(http, "k", clock), downloads=http, url_policy=url_policy, rest_url=base, timeout_s=2)
    segmind = adapters.segmind(
        http=http,
        downloads=http,
        key="k",
        url_policy=url_policy,
        pace=Pace(clock),
        base_url=base,
        upload_url=base,
        clock=clock,
    )
    job = UpstreamJob(id="j", upstream=Upstream(model="m"), payload={"image": PICTURE}, deadline=clock.after(60))
    return [
        replicate.upload("p", PICTURE, clock.after(60)),
        apiframe.upload(PICTURE),
        fal.job_ref(job.payload),
        segmind.submit(job),
    ]


async def test_uploads(uploads: list[Awaitable[object]]) -> None:
    """That the picture could not be uploaded says what happened, and where."""
    for upload in uploads:
        with pytest.raises(Unreached) as caught:
            await upload
        assert "picture could not be uploaded (no " in caught.value.told
        assert "nobody.invalid: the name could not be resolved)" in caught.value.told
        assert "http" not in caught.value.told
