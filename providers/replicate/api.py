"""Replicate's HTTP API, request by request: the one place that knows the key."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from normalization.values import Image
from providers.clock import CLOCK, Clock, jitter
from providers.errors import Expired, ProviderError, Undecodable, Unfinished, Unknown, Unreached
from providers.http.bodies import Body, Json, read_body, read_json
from providers.http.client import beneath
from providers.http.download import UrlExpired
from providers.http.errors import NoAnswer, host_in, polling, submitting
from providers.kit.polling import MonotonicProgress, PollAgain, parse_progress
from providers.replicate.responses import ENDED, NAME, refusal

_CONNECT_S = 5.0
_UPLOADS = 3
_LIST_BYTES = 64 * 1024 * 1024
_MISSES = 3
_REFETCHES = 3


class PredictionMissing(Exception):
    """There is no such prediction (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionPage:
    """A page of the list, the newest predictions first.

    `following` is the query of the next page, "" after the last one; `clock` what Replicate's clock showed, in seconds
    of the wall clock, NaN where it is not told.
    """

    entries: tuple[dict[str, Json], ...] = field(repr=False)
    following: str
    clock: float


class ReplicateApi:
    """Requests to `base_url`, and to nothing else, with the key. Answers are read up to `answer_bytes`.

    `timeout_s` is for one request that changes nothing, from its beginning to the end of its answer, in seconds.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        key: str | None,
        base_url: str,
        timeout_s: float,
        answer_bytes: int,
        clock: Clock = CLOCK,
    ) -> None:
        self._clock = clock
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"}
        self._timeout_s = timeout_s
        self._answer_bytes = answer_bytes

    async def create(self, path: str, body: Body, headers: Mapping[str, str], timeout_s: float) -> dict[str, Json]:
        """Post a prediction: once. Raises the error that its answer stands for, Unknown where there is none."""
        try:
            async with asyncio.timeout(timeout_s):
                with submitting(NAME):
                    sending = self._request("POST", path, timeout_s, content=body, headers={**body.headers, **headers})
                    async with sending as response:
                        answer = await read_body(response, self._answer_bytes)
        except TimeoutError as exc:
            raise Unknown(f"{NAME}: the answer did not come within {timeout_s:.0f} s") from exc
        except Undecodable as exc:
            raise Unknown(f"{NAME}: {exc.message}") from exc
        if not response.is_success:
            raise refusal(response, answer, now=time.time())
        return await _object(answer, Unknown)

    async def prediction(self, job: str) -> dict[str, Json]:
        """Return the state of a prediction. Raises NoAnswer, PollAgain, or PredictionMissing."""
        return await self._ask("GET", f"/v1/predictions/{job}", self._answer_bytes)

    async def cancel(self, job: str) -> dict[str, Json]:
        """Ask to cancel a prediction, and return its state. Raises NoAnswer, PollAgain, or PredictionMissing."""
        return await self._ask("POST", f"/v1/predictions/{job}/cancel", self._answer_bytes)

    async def listed(self, query: str) -> PredictionPage:
        """Return a page of predictions, the newest first. Raises NoAnswer, PollAgain, or PredictionMissing."""
        response, answer = await self._answered("GET", f"/v1/predictions?{query}", _LIST_BYTES)
        entries = answer.get("results")
        if not isinstance(entries, list):
            raise NoAnswer(f"{NAME}: the list has no results")
        predictions = tuple(entry for entry in entries if isinstance(entry, dict))
        return PredictionPage(entries=predictions, following=_query(answer.get("next")), clock=_clock(response))

    async def secret(self) -> str:
        """Return what webhooks are signed with. Raises NoAnswer, PollAgain, or PredictionMissing."""
        answer = await self._ask("GET", "/v1/webhooks/default/secret", _LIST_BYTES)
        key = answer.get("key")
        if not isinstance(key, str):
            raise NoAnswer(f"{NAME}: the secret has no key")
        return key

    async def upload(self, name: str, image: Image, deadline: float) -> str:
        """Put a picture into the Files API and return its address there; `deadline` is a reading of the clock.

        It buys nothing, so it is tried again. Raises Unreached in the end, or what the refusal stands for.
        """
        lost = f"no answer from {host_in(self._base_url)} in time"
        for tried in range(_UPLOADS):
            try:
                async with self._clock.timeout_at(deadline):
                    return await self._upload(f"{name}.{image.format}", image)
            except NoAnswer as exc:
                lost = str(exc).removeprefix(f"{NAME}: ")
                await self._clock.sleep(jitter(tried))
            except TimeoutError:
                break
        raise Unreached(f"{NAME}: the picture could not be uploaded ({lost})")

    async def _upload(self, name: str, image: Image) -> str:
        files = {"content": (name, image.data, image.media_type)}
        with polling(NAME):
            async with self._request("POST", "/v1/files", self._timeout_s, files=files) as response:
                answer = await read_body(response, _LIST_BYTES)
        if not response.is_success:
            raise _unless_again(response, answer)
        urls = (await _object(answer, NoAnswer)).get("urls")
        address = urls.get("get") if isinstance(urls, dict) else None
        if not isinstance(address, str):
            raise NoAnswer(f"{NAME}: the upload has no address")
        return address

    @property
    def is_plain(self) -> bool:
        """Whether the API is not behind TLS, as only a simulated one is."""
        return self._base_url.startswith("http:")

    def has(self, address: str) -> bool:
        """Say whether an address is at the API itself, where the key may go."""
        return beneath(address, self._base_url)

    async def result(self, address: str, cap: int, deadline: float) -> bytes:
        """Fetch a result that lies at the API itself, which asks for the key.

        Raises UrlExpired where it is not there, Unfinished where it did not come in several tries, Expired at the
        deadline.
        """
        assert self.has(address)
        tried = 0
        while True:
            try:
                return await self._result(address, cap, deadline)
            except NoAnswer as exc:
                if tried == _REFETCHES:
                    raise Unfinished(f"{NAME}: the result could not be fetched so far ({exc})") from exc
            await self._clock.sleep(jitter(tried))
            tried += 1

    async def _result(self, address: str, cap: int, deadline: float) -> bytes:
        try:
            async with self._clock.timeout_at(deadline):
                with polling(NAME):
                    async with self._http.stream("GET", address, headers=self._headers) as response:
                        data = await read_body(response, cap)
        except TimeoutError as exc:
            raise Expired(f"{NAME}: the deadline passed while the result was fetched") from exc
        if 400 <= response.status_code < 500:
            raise UrlExpired(response.status_code)
        if response.status_code != 200 or not data:
            raise NoAnswer(f"HTTP {response.status_code}")
        return data

    async def _ask(self, method: str, path: str, cap: int) -> dict[str, Json]:
        return (await self._answered(method, path, cap))[1]

    async def _answered(self, method: str, path: str, cap: int) -> tuple[httpx.Response, dict[str, Json]]:
        """Send what may be sent twice, and return the object that it answers."""
        try:
            async with asyncio.timeout(self._timeout_s):
                with polling(NAME):
                    async with self._request(method, path, self._timeout_s) as response:
                        answer = await read_body(response, cap)
        except TimeoutError as exc:
            raise NoAnswer(f"{NAME}: the answer did not come within {self._timeout_s:.0f} s") from exc
        if response.status_code in {404, 410}:
            raise PredictionMissing
        if response.status_code == 429:
            raise PollAgain(refusal(response, answer, now=time.time()).retry_after)
        if not response.is_success:
            # A key that was taken away in between says nothing of the job: that goes on, and is asked for again.
            raise NoAnswer(f"{NAME}: HTTP {response.status_code}")
        return response, await _object(answer, NoAnswer)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        timeout_s: float,
        *,
        content: Body | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(timeout_s, connect=_CONNECT_S, pool=_CONNECT_S)
        async with self._http.stream(
            method,
            self._base_url + path,
            content=content,
            files=files,
            headers={**self._headers, **(headers or {})},
            timeout=timeout,
            follow_redirects=False,
        ) as response:
            yield response


class Look:
    """Asks for the state of one job, and tells `tell` the share of it that is done.

    A job that is not there for `vanish_s` seconds, and 3 times, has vanished.
    """

    def __init__(
        self, api: ReplicateApi, job: str, vanish_s: float, tell: Callable[[float], None], clock: Clock = CLOCK
    ) -> None:
        self._clock = clock
        self._api = api
        self._job = job
        self._vanish_s = vanish_s
        self._forward = MonotonicProgress(tell)
        self._missing_since: float | None = None
        self._misses = 0

    async def __call__(self) -> dict[str, Json] | None:
        """Return the prediction if it has ended, else None. Raises NoAnswer, PollAgain, and Unknown."""
        now = self._clock.now()
        try:
            prediction = await self._api.prediction(self._job)
        except PredictionMissing as exc:
            self._missing_since = now if self._missing_since is None else self._missing_since
            self._misses += 1
            if self._misses >= _MISSES and now - self._missing_since >= self._vanish_s:
                raise Unknown(f"{NAME}: the job has vanished") from exc
            raise NoAnswer(f"{NAME}: the job is not there") from exc
        self._misses, self._missing_since = 0, None
        self._forward(parse_progress(prediction.get("logs")))
        # A word that is not known is not an end.
        return prediction if prediction.get("status") in ENDED else None


def _query(address: Json) -> str:
    """Return the query of an address: all that is taken of one that an answer names."""
    try:
        return urlsplit(address).query if isinstance(address, str) else ""
    except ValueError as exc:
        raise NoAnswer(f"{NAME}: the next page has no address") from exc


def _clock(response: httpx.Response) -> float:
    try:
        return parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _unless_again(response: httpx.Response, answer: bytes) -> ProviderError | NoAnswer:
    """Return what a failed upload stands for: nothing was bought, so a broken server is simply asked again."""
    if response.status_code >= 500 or response.is_redirect:
        return NoAnswer(f"{NAME}: HTTP {response.status_code}")
    return refusal(response, answer, now=time.time())


async def _object(answer: bytes, error: type[NoAnswer] | type[Unknown]) -> dict[str, Json]:
    try:
        value = await read_json(answer)
    except Undecodable as exc:
        raise error(f"{NAME}: {exc.message}") from exc
    if not isinstance(value, dict):
        raise error(f"{NAME}: the answer is no object")
    return value
