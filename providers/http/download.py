"""Fetching a result: from an address that a provider names, and that nobody trusts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import aiohttp
import anyio.to_thread
import httpx
import pybase64

from providers.clock import CLOCK, Clock, jitter
from providers.errors import Expired, Undecodable, Unfinished
from providers.http.bodies import TooLarge, read_capped
from providers.http.client import READ_BYTES, USER_AGENT, Client, Transport, tls_context
from providers.http.errors import NoAnswer, host_in, polling, retry_after
from providers.http.ssrf import UrlForbidden, UrlPolicy

_HOPS = 3
# A result that breaks off, or comes empty, is fetched again so often before there is a longer pause.
_REFETCHES = 3
# A result that was just finished may not have reached the server that delivers it.
_FRESH_WAITS_S = (0.2, 0.6, 1.2)
_CONNECT_S = 5.0
_READ_S = 10.0
_INLINE_BYTES = 1_000_000
# Over how many seconds a sender's speed is averaged.
_WINDOW_S = 8.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LATER = frozenset({408, 425, 429})


class UrlExpired(Exception):
    """The address does not give the result (any status from 400 to 499); the job itself may name a fresh one.

    `status` is the answer's.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class RetryLater(NoAnswer):
    """A status for which another attempt may get the picture. `retry_after` is the wait asked for, in seconds."""

    def __init__(self, status: int, wait_s: float | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.retry_after = wait_s


class EmptyBody(NoAnswer):
    """A good answer without a byte in it."""


class UnexpectedRedirect(Exception):
    """Redirects that lead to no picture. The message says how they go on, without an address."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was at an address. `media_type` is what its server calls it, in lower case and without parameters."""

    data: bytes
    media_type: str


def downloads_client(url_policy: UrlPolicy, *, max_connections: int = 200) -> httpx.AsyncClient:
    """Return the client for results. The caller closes it."""
    return untrusted_client(url_policy, accept="image/*,*/*;q=0.5", max_connections=max_connections)


def untrusted_client(
    url_policy: UrlPolicy, *, accept: str, max_connections: int, keepalive_s: float = 15.0
) -> httpx.AsyncClient:
    """Return a client for a stranger's addresses: apart from the one for APIs, so that no key can ever be on it.

    It resolves names through the guard, follows no redirects, keeps no cookies, and reads nothing from the
    environment. `keepalive_s` is how long an idle connection is kept, in seconds. The caller closes it.
    """
    tls = tls_context()

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=tls,
            limit=max_connections,
            resolver=url_policy.resolver(),
            keepalive_timeout=keepalive_s,
        )
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=READ_BYTES, trust_env=False
        )

    return Client(
        Transport(verify=tls, trust_env=False, client=session),
        timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S, pool=None),
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity", "accept": accept},
    )


async def download(
    client: httpx.AsyncClient,
    url: str,
    *,
    url_policy: UrlPolicy,
    cap: int,
    deadline: float,
    fresh: bool = False,
    least_bytes_per_s: int = 0,
    clock: Clock = CLOCK,
) -> bytes:
    """Return what is at `url`, at most `cap` bytes; a `data:` URI is decoded.

    `client` is one of `downloads_client`, with the same guard. `deadline` is a reading of `clock`.
    `fresh` says that the result was finished just now: then a 404 is asked again for two seconds. What comes more
    slowly than `least_bytes_per_s` has not come; 0 is no floor.

    Raises Undecodable for an address that may not be fetched and for an answer that is no result, UrlExpired where the
    result is not there (any more), Expired at the deadline, and Unfinished where it did not come in several tries: it
    is paid for, so that it has to be asked for again later.
    """
    if url[:5].lower() == "data:":
        return await _data(url, cap)
    try:
        async with clock.timeout_at(deadline) as limit:
            return await _persist(client, url, url_policy, cap, fresh, least_bytes_per_s, clock)
    except UrlForbidden as exc:
        raise Undecodable(f"the result may not be fetched: {exc}") from exc
    except UnexpectedRedirect as exc:
        raise Undecodable(f"the result {exc}") from exc
    except TooLarge as exc:
        raise Undecodable(f"the answer {exc}") from exc
    except TimeoutError:
        if limit.expired():
            raise Expired("the deadline passed while the result was fetched") from None
        raise


async def _persist(
    client: httpx.AsyncClient,
    url: str,
    url_policy: UrlPolicy,
    cap: int,
    fresh: bool,
    least_bytes_per_s: int,
    clock: Clock,
) -> bytes:
    """Fetch until it is there and whole, or has failed too often."""
    waits = iter(_FRESH_WAITS_S if fresh else ())
    failures = 0
    while True:
        try:
            return await fetch(client, url, url_policy=url_policy, cap=cap, took=Floor(least_bytes_per_s))
        except UrlExpired as exc:
            if exc.status != 404 or (wait := next(waits, None)) is None:
                raise
            await clock.sleep(wait)
        except NoAnswer as exc:
            if failures >= _REFETCHES:
                raise Unfinished(f"the result could not be fetched so far: {exc}") from exc
            await clock.sleep(jitter(failures + 1))
            failures += 1


class Floor:
    """The floor under a sender's speed, in bytes a second over some seconds. Called with the bytes that have come.

    Raises NoAnswer for a sender that is slower. One that sends nothing at all is the client's timeout's concern.
    """

    def __init__(self, least_bytes_per_s: int) -> None:
        self._least = least_bytes_per_s
        self._came = 0
        self._now = asyncio.get_running_loop().time
        self._began = self._now()

    def __call__(self, came: int) -> None:
        self._came += came
        passed = self._now() - self._began
        if passed < _WINDOW_S:
            return
        if self._came < self._least * passed:
            raise NoAnswer(f"the result came at less than {self._least} bytes a second")
        self._came, self._began = 0, self._now()


async def fetch(
    client: httpx.AsyncClient, url: str, *, url_policy: UrlPolicy, cap: int, took: Callable[[int], object] | None = None
) -> bytes:
    """Do the work of `get`, and return the bytes alone."""
    return (await get(client, url, url_policy=url_policy, cap=cap, took=took)).data


async def get(
    client: httpx.AsyncClient,
    url: str,
    *,
    url_policy: UrlPolicy,
    cap: int,
    took: Callable[[int], object] | None = None,
    at: Callable[[str], object] | None = None,
) -> Fetched:
    """Fetch once, redirects included: at most `cap` bytes. `client` is one of `untrusted_client`, with this guard.

    `took` hears of each piece that arrives, in bytes, before it is kept, `at` of each host before it is asked. Raises
    UrlForbidden, TooLarge, UrlExpired, UnexpectedRedirect, and NoAnswer for what another attempt may mend: of it Later
    and Empty.
    """
    here = url_policy.check(url)
    for _ in range(_HOPS + 1):
        if at is not None:
            at(host_in(here))
        with polling("delivery", private=True):
            async with client.stream("GET", here) as response:
                if response.status_code == 200:
                    if body := await read_capped(response, cap, took):
                        media_type = response.headers.get("content-type", "").partition(";")[0]
                        return Fetched(body, media_type.strip().lower())
                    raise EmptyBody("the result was empty")
        if response.status_code not in _REDIRECTS:
            raise _unfit(response)
        here = _next_hop(here, response, url_policy)
    raise UnexpectedRedirect(f"is behind more than {_HOPS} redirects, the next of them to {host_in(here)}")


def _unfit(response: httpx.Response) -> Exception:
    status = response.status_code
    if 400 <= status < 500 and status not in _LATER:
        return UrlExpired(status)
    return RetryLater(status, retry_after(response, time.time()))


def _next_hop(here: httpx.URL, response: httpx.Response, url_policy: UrlPolicy) -> httpx.URL:
    try:
        target = here.join(response.headers.get("location", ""))
    except (httpx.InvalidURL, ValueError) as exc:
        raise UrlForbidden("a redirect that cannot be read") from exc
    there = url_policy.check(str(target))
    if here.scheme == "https" and there.scheme != "https":
        raise UrlForbidden("a redirect from https to http")
    if there == here:
        raise UnexpectedRedirect("redirects to itself")
    return there


async def _data(url: str, cap: int) -> bytes:
    head, comma, text = url.partition(",")
    # Base64 takes four bytes for three; percent signs take three for one.
    if len(text) > 3 * cap + 4:
        raise Undecodable(f"the result is larger than {cap} bytes")
    try:
        read = _base64 if head.lower().endswith(";base64") else _unescaped
        data = read(text) if len(text) < _INLINE_BYTES else await anyio.to_thread.run_sync(read, text)
    except ValueError as exc:
        raise Undecodable("the result is a broken data URI") from exc
    if not data or not comma or len(data) > cap:
        raise Undecodable("the result is an empty data URI" if not data else f"the result is larger than {cap} bytes")
    return data


def _base64(text: str) -> bytes:
    return pybase64.b64decode("".join(text.split()), validate=True)


def _unescaped(text: str) -> bytes:
    """Percent-encoded text in slices, none of which cuts an escape: the whole at once takes 80 times its size."""
    data, start = bytearray(), 0
    while start < len(text):
        stop = start + _INLINE_BYTES
        cut = text.rfind("%", stop - 2, stop)
        stop = cut if cut > start and stop < len(text) else stop
        data += unquote_to_bytes(text[start:stop])
        start = stop
    return bytes(data)
