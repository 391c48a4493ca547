"""Segmind: jobs that are submitted and polled (v2), or made while the request is held open (v1).

Sources: segmind.com/models/clarity-upscaler/api and docs.segmind.com (asynchronous inference, storage, errors), read in
November 2026, and the source of the official client, segmind 1.3.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import ClassVar
from urllib.parse import quote

import anyio.to_thread
import httpx
import pybase64

from normalization.values import Image, Value
from providers.base import (
    Blocked,
    Expired,
    Failed,
    Handle,
    Job,
    Outcome,
    ProviderError,
    Readiness,
    Rejected,
    Throttled,
    Undecodable,
    Unknown,
    Unreached,
    Unusable,
    Upstream,
)
from providers.download import Gone, download
from providers.guard import Guard
from providers.http import Unanswered, polling, refusal, retry_after, submitting
from providers.polling import Again, Pace, pace_key, poll
from providers.wire import Body, Json, encoded_size, excerpt, json_body, read_body, read_json

NAME = "segmind"

_CONNECT_S = 5.0
# What every answer has beside its pictures.
_ENVELOPE_BYTES = 256 * 1024
# How often an upload is tried: it costs nothing.
_UPLOADS = 2
# So many answers in a row that say so, and some time, make a job that is not there lost.
_MISSING = 3
# How long the outcome of a v1 job that nobody waits for is kept.
_KEEP_S = 600.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,99}")
_TORN_ID = re.compile(rb'"request_id"\s*:\s*"([A-Za-z0-9][A-Za-z0-9_-]{7,99})"')

# 405 is our mistake, and 410 a model's end: other providers have it. 406 is read by its text.
_STATUSES: Mapping[int, type[ProviderError]] = {405: Failed, 406: Rejected, 410: Failed}
_NO_CREDIT = re.compile(r"(insufficient|not enough|out of) (credit|balance)|spend(ing)? limit", re.IGNORECASE)
# A job that a content check ended is FAILED like any other, and the words are not published.
_POLICY = re.compile(
    r"content (policy|filter|moderation|checker)|moderation|nsfw|\brai\b|responsible ai|safety|sexual|violates",
    re.IGNORECASE,
)
# The published example is «Prompt is Mandatory and must be string».
_INPUT = re.compile(r"\b(mandatory|must be|not one of|out of range|invalid (value|input|type))\b", re.IGNORECASE)
# What follows one of these may be the caller's prompt.
_ECHO = re.compile(r"""[:"'`<{\[(]""")


class Unfinished(Expired):
    """The deadline passed and the job goes on, for Segmind cannot cancel: to buy elsewhere would be to pay twice."""

    next_route: ClassVar[bool] = False


class Segmind:
    """The adapter for Segmind. `http` is for its API; `downloads` for results, which lie at public addresses.

    The key goes to the origins of `base_url` and `upload_url` and nowhere else. Pictures that as base64, together, take
    at most `data_uri_bytes` travel inside of the request; that is not documented, so by default all are uploaded.
    `submit_timeout_s` bounds a submit and an upload, `poll_timeout_s` a look, `sync_timeout_s` the one request of a v1
    job. A job that Segmind does not know is given up after `lost_after_s`; pictures above `max_result_bytes` are
    Undecodable.

    Option of a route: `api = "v1"` for the synchronous endpoint, meant for models that take seconds. Such a job lives
    in this process alone. Segmind has no idempotency key and no list of jobs: a submit whose answer was lost stays
    Unknown.
    """

    name = NAME
    queue_depth = 0

    def __init__(
        self,
        http: httpx.AsyncClient,
        downloads: httpx.AsyncClient,
        *,
        key: str | None,
        guard: Guard,
        pace: Pace,
        base_url: str = "https://api.segmind.com",
        upload_url: str = "https://workflows-api.segmind.com",
        submit_timeout_s: float = 30.0,
        poll_timeout_s: float = 10.0,
        sync_timeout_s: float = 120.0,
        lost_after_s: float = 10.0,
        data_uri_bytes: int = 0,
        max_result_bytes: int = 400 * 1024 * 1024,
    ) -> None:
        self._http = http
        self._download = partial(download, downloads, guard=guard, cap=max_result_bytes, fresh=True)
        self._key = key
        self._pace = pace
        self._base_url = base_url.rstrip("/")
        self._upload_url = upload_url.rstrip("/").removesuffix("/upload-asset") + "/upload-asset"
        self._submit_timeout_s = submit_timeout_s
        self._poll_timeout_s = poll_timeout_s
        self._sync_timeout_s = sync_timeout_s
        self._lost_after_s = lost_after_s
        self._data_uri_bytes = data_uri_bytes
        # A picture may come as base64, which takes four bytes for three.
        self._max_answer_bytes = max_result_bytes * 4 // 3 + _ENVELOPE_BYTES
        self._held: dict[str, asyncio.Task[Outcome]] = {}

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        return (Readiness.READY, "") if self._key else (Readiness.OFF, "SEGMIND_API_KEY is not set")

    async def start(self) -> None:
        """Nothing runs beside requests."""

    async def aclose(self) -> None:
        """Hang up on v1 jobs that are being made: their answers have nowhere to go any more."""
        tasks = list(self._held.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, job: Job) -> Handle:
        """Upload the pictures and post the job. A v1 job is only begun here: what Segmind says to it, `wait` tells.

        Raises Unknown where the answer was lost, Unreached where a picture could not be uploaded.
        """
        body = await json_body(await self._uploaded(job.payload))
        model = quote(job.upstream.model, safe="")
        if job.upstream.options.get("api") == "v1":
            return self._begin(job, f"{self._base_url}/v1/{model}", body)
        try:
            response, raw = await self._post(f"{self._base_url}/v2/{model}", body, self._submit_timeout_s)
        except Undecodable as exc:
            raise Unknown(f"{NAME}: the answer to the submit has no end") from exc
        answer = await _json(raw)
        _check(response, raw, answer, job.payload)
        found = _at(answer, "request_id") if answer else None
        if answer is None and (torn := _TORN_ID.search(raw)):
            found = torn[1].decode()
        if not isinstance(found, str) or not _REQUEST_ID.fullmatch(found):
            raise Unknown(f"{NAME}: the answer to the submit has no request id")
        key = pace_key(NAME, job.upstream.model, job.payload)
        return Handle(provider=NAME, id=found, data={"api": "v2", "pace": key, "submitted": f"{time.time():.3f}"})

    async def wait(self, handle: Handle, deadline: float) -> Outcome:
        """Poll to the job's end and fetch its pictures.

        Raises Unfinished at the deadline; `wait` may be called again for as long as Segmind remembers the job (1 hour).
        Raises Unknown for a job that Segmind does not know any more, and for a v1 job of another process: either may
        have been billed.
        """
        try:
            if handle.data.get("api") == "v1":
                return await self._held_outcome(handle, deadline)
            return await self._polled_outcome(handle, deadline)
        except Expired as exc:
            raise Unfinished(f"{NAME}: the deadline passed, and the job cannot be cancelled") from exc

    async def cancel(self, handle: Handle) -> None:
        """Do nothing: Segmind cannot cancel. The job goes on, is billed when it succeeds, and can be waited for."""

    async def _uploaded(self, payload: Mapping[str, Value]) -> Mapping[str, Value]:
        """Return the payload with addresses at Segmind in place of its pictures."""
        images: list[Value] = list(_images(dict(payload)))
        if not images or encoded_size(payload) <= self._data_uri_bytes:
            return payload
        answer = await self._upload(await json_body({"data_urls": images}))
        # The client reads `file_urls`, the docs show `urls`.
        found = [_at(answer, key) for key in ("file_urls", "urls")]
        addresses = next((value for value in found if isinstance(value, list) and len(value) == len(images)), [])
        if not addresses or not all(isinstance(address, str) for address in addresses):
            raise Unreached(f"{NAME}: the answer to the upload has no addresses")
        left = map(str, addresses)
        return {key: _swap(value, left) for key, value in payload.items()}

    async def _upload(self, body: Body) -> Json:
        """Post an upload until it is answered. What was lost is a file that nobody pays for, hence Unreached."""
        for number in range(1, _UPLOADS + 1):
            try:
                response, raw = await self._post(self._upload_url, body, self._submit_timeout_s)
                if response.is_success:
                    return await _json(raw)
                error = refusal(NAME, response, raw, now=time.time(), statuses=dict.fromkeys((500, 503), Unknown))
                if not isinstance(error, Unknown):
                    raise error
            except (Unknown, Unreached, Undecodable) as exc:
                error = exc
            if number == _UPLOADS:
                raise Unreached(f"{NAME}: a picture could not be uploaded ({error.message})") from error
        raise AssertionError

    async def _post(self, url: str, body: Body, limit_s: float) -> tuple[httpx.Response, bytes]:
        timeout = httpx.Timeout(limit_s, connect=_CONNECT_S, pool=_CONNECT_S)
        headers = {**body.headers, **self._headers}
        try:
            async with asyncio.timeout(limit_s):
                with submitting(NAME):
                    request = self._http.stream("POST", url, content=body, headers=headers, timeout=timeout)
                    async with request as response:
                        return response, await read_body(response, self._max_answer_bytes)
        except TimeoutError as exc:
            raise Unknown(f"{NAME}: the answer did not come within {limit_s:g} s") from exc

    @property
    def _headers(self) -> dict[str, str]:
        return {"x-api-key": self._key or ""}

    async def _polled_outcome(self, handle: Handle, deadline: float) -> Outcome:
        # Built from the id: the addresses in Segmind's answers would lead our key wherever they say.
        result = f"{self._base_url}/v2/requests/{quote(handle.id, safe='')}"
        missing: list[float] = []

        async def ended() -> _Answer | None:
            found = await self._look(f"{result}/status", missing)
            # The status has no picture; a failure is whole already.
            return await self._look(result, missing) if found and found[0] == "COMPLETED" else found

        age = max(0.0, time.time() - float(handle.data.get("submitted", "0")))
        key = handle.data.get("pace", NAME)
        answer = await poll(ended, pace=self._pace, key=key, deadline=deadline, age=age)
        for last in (False, True):
            if answer.state == "FAILED":
                raise _failure(answer.body)
            with contextlib.suppress(Gone):
                if found := await self._pictures(answer.body, deadline):
                    return Outcome(pictures=found, seconds=_seconds(answer), cost=_micros(_at(answer, "metrics", "cost")))
            if not last:
                # An address that is gone and a result without one may be better in a second answer.
                answer = await poll(ended, pace=Pace(), key=key, deadline=deadline, first=0.0)
        raise Undecodable(f"{NAME}: the job succeeded, and its picture is not there")
