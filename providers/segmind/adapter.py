"""Segmind: jobs that are submitted and polled (v2), or made while the request is held open (v1).

Sources: segmind.com/models/clarity-upscaler/api and docs.segmind.com (asynchronous inference, storage, errors), read in
November 2026, and the source of the official client, segmind 1.3.0.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import TypeAlias
from urllib.parse import quote

import anyio.to_thread
import pybase64
from typing_extensions import override

from normalization.values import Value
from providers.base import (
    NO_CONTEXT,
    AttemptContext,
    BaseProvider,
    Handle,
    Outcome,
    UpstreamJob,
)
from providers.errors import Expired, Undecodable, Unfinished, Unknown, Unreached
from providers.http.bodies import Body, Json, encoded_size, json_body
from providers.http.errors import refusal
from providers.kit.context import ProviderContext, public_fetch
from providers.kit.held import HeldRequests
from providers.kit.polling import Pace, PollAgain, pace_key, poll
from providers.kit.results import Named, ResultCollector
from providers.kit.session import HttpSession
from providers.segmind.responses import (
    NAME,
    Answered,
    at,
    check,
    decoded,
    failure,
    found_in,
    images_in,
    micros_of,
    patience,
    seconds_of,
    with_addresses,
)
from providers.segmind.settings import SegmindSettings

# What every answer has beside its pictures.
_ENVELOPE_BYTES = 256 * 1024
# How often an upload is tried: it costs nothing.
_UPLOADS = 2
# So many answers in a row that say so, and some time, make a job that is not there lost.
_MISSING = 3
# Who waits for a job of this age has come back for it: it may have ended.
_LATE_S = 5.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,99}")

_Answer: TypeAlias = "dict[str, Json]"


class Segmind(BaseProvider):
    """The adapter for Segmind.

    The key is sent to the origins of `base_url` and `upload_url` and to no other. Images that together take at most
    `data_uri_bytes` as base64 are sent inside the request; that is not documented, so by default all are uploaded.
    `sync_timeout_s` bounds the one request of a v1 job; a job that Segmind does not know is given up after
    `lost_after_s`. Both are in seconds.

    Option of a route: `api = "v1"` for the synchronous endpoint, meant for models that take seconds. Such a job lives
    in this process only. Segmind has no idempotency key, no list of jobs, no webhooks and no way to cancel: a submit
    whose answer was lost stays Unknown.
    """

    name = NAME

    def __init__(
        self,
        settings: SegmindSettings,
        context: ProviderContext,
        *,
        sync_timeout_s: float = 120.0,
        lost_after_s: float = 10.0,
        data_uri_bytes: int = 0,
    ) -> None:
        super().__init__(key=context.key, key_env=settings.key_env)
        clock = context.clock
        most = context.max_result_bytes
        self._session = HttpSession(
            NAME,
            context.http,
            {"x-api-key": context.key or ""},
            # An image may come as base64, which takes four bytes for three.
            most_bytes=most * 4 // 3 + _ENVELOPE_BYTES,
        )
        self._collector = ResultCollector(NAME, self._fetch, most=most, try_s=context.download_timeout_s, clock=clock)
        self._download = public_fetch(context)
        self._pace = context.pace
        self._base_url = settings.base_url.rstrip("/")
        self._upload_url = f"{settings.upload_url.rstrip('/')}/upload-asset"
        self._submit_timeout_s = context.submit_timeout_s
        self._poll_timeout_s = context.poll_timeout_s
        self._sync_timeout_s = sync_timeout_s
        self._lost_after_s = lost_after_s
        self._data_uri_bytes = data_uri_bytes
        self._clock = clock
        self._held: HeldRequests[Answered] = HeldRequests(NAME, clock)

    @override
    async def aclose(self) -> None:
        """Close the connections of v1 jobs that are still running: nobody is left to read their answers."""
        await self._held.aclose()

    @override
    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        """Upload the pictures and post the job. A v1 job is only begun here: what Segmind says to it, `wait` tells.

        Raises Unknown where the answer was lost, Unreached where a picture could not be uploaded.
        """
        body = json_body(await self._uploaded(job.payload))
        model = quote(job.upstream.model, safe="")
        # By nothing could a lost job be known again.
        await link.sending({})
        if job.upstream.options.get("api") == "v1":
            self._held.start(job.id, self._make(job, f"{self._base_url}/v1/{model}", body))
            return Handle(provider=NAME, id=job.id, data={"api": "v1"}, held=True)
        try:
            response, raw = await self._session.post_json(
                f"{self._base_url}/v2/{model}", body, timeout_s=self._submit_timeout_s
            )
        except Undecodable as exc:
            raise Unknown(f"{NAME}: the answer to the submit has no end") from exc
        answer = await decoded(raw)
        check(response, raw, answer, job.payload)
        found = at(answer, "request_id")
        if not isinstance(found, str) or not _REQUEST_ID.fullmatch(found):
            raise Unknown(f"{NAME}: the answer to the submit has no request id")
        key = pace_key(NAME, job.upstream.model, job.payload)
        return Handle(provider=NAME, id=found, data={"api": "v2", "pace": key, "submitted": f"{time.time():.3f}"})

    @override
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        """Poll to the job's end and fetch its pictures. Segmind does not tell how much of a job is done.

        Raises Unfinished at the deadline, Unfetched where the job has succeeded by then; `wait` may be called again for
        as long as Segmind remembers the job (1 hour). Raises Unknown for a job that Segmind does not know any more, and
        for a v1 job of another process: either may have been billed.
        """
        try:
            if handle.data.get("api") == "v1":
                return await self._held_outcome(handle, deadline, link)
            return await self._polled_outcome(handle, deadline, link)
        except Unfinished:
            raise
        except Expired as exc:
            raise Unfinished(f"{NAME}: the deadline passed, and the job cannot be cancelled") from exc

    async def _uploaded(self, payload: Mapping[str, Value]) -> Mapping[str, Value]:
        """Return the payload with addresses at Segmind in place of its pictures."""
        images: list[Value] = list(images_in(dict(payload)))
        if not images or encoded_size(payload) <= self._data_uri_bytes:
            return payload
        answer = await self._upload(json_body({"data_urls": images}))
        # The client reads `file_urls`, the docs show `urls`.
        found = [at(answer, key) for key in ("file_urls", "urls")]
        addresses = next((value for value in found if isinstance(value, list) and len(value) == len(images)), [])
        if not addresses or not all(isinstance(address, str) for address in addresses):
            raise Unreached(f"{NAME}: the answer to the upload has no addresses")
        left = map(str, addresses)
        return {key: with_addresses(value, left) for key, value in payload.items()}

    async def _upload(self, body: Body) -> Json:
        """Post an upload until it is answered. What was lost is a file that nobody pays for, hence Unreached."""
        for number in range(1, _UPLOADS + 1):
            try:
                response, raw = await self._session.post_json(self._upload_url, body, timeout_s=self._submit_timeout_s)
                if response.is_success:
                    return await decoded(raw)
                error = refusal(NAME, response, raw, now=time.time(), statuses=dict.fromkeys((500, 503), Unknown))
                if not isinstance(error, Unknown):
                    raise error
            except (Unknown, Unreached, Undecodable) as exc:
                error = exc
            if number == _UPLOADS:
                lost = error.told.removeprefix(f"{NAME}: ")
                told = f"{NAME}: a picture could not be uploaded ({lost})"
                raise Unreached(told, said=error.said) from error
        raise AssertionError

    async def _polled_outcome(self, handle: Handle, deadline: float, link: AttemptContext) -> Outcome:
        # Built from the id: the addresses in Segmind's answers would lead our key to wherever they say.
        result = f"{self._base_url}/v2/requests/{quote(handle.id, safe='')}"
        missing: list[float] = []

        async def ended() -> _Answer | None:
            answer = await self._look(f"{result}/status", missing)
            # The status of a finished job has no picture; that of a failed one has its reason.
            return await self._look(result, missing) if at(answer, "status") == "COMPLETED" else answer

        key = handle.data.get("pace", NAME)
        age = max(0.0, time.time() - float(handle.data.get("submitted", 0)))
        first = 0.0 if age > _LATE_S else None
        answer = await poll(ended, pace=self._pace, key=key, deadline=deadline, first=first, age=age, sleep=link.sleep)
        if at(answer, "status") != "FAILED" and not _named(answer):
            # A result without a picture may be better in a second answer.
            answer = await poll(ended, pace=Pace(self._clock), key=key, deadline=deadline, first=0.0)
        if at(answer, "status") == "FAILED":
            raise failure(answer)
        if not (named := _named(answer)):
            raise Undecodable(f"{NAME}: the job succeeded, but its picture is not there")
        link.succeeded()

        async def again() -> list[Named]:
            return _named(await self._look(result, []))

        seconds, cost = seconds_of(at(answer, "metrics", "inference_time")), micros_of(at(answer, "metrics", "cost"))
        found = await self._collector.collect(named, deadline, again, cost=cost)
        return Outcome(images=found, seconds=seconds, cost=cost)

    async def _held_outcome(self, handle: Handle, deadline: float, link: AttemptContext) -> Outcome:
        answered = await self._held.answer(handle.id, deadline)
        link.succeeded()
        # Whoever finds the pictures broken may come back for them, where they lie at an address.
        keep = not any(isinstance(item, bytes) for item in answered.found)
        try:
            found = await self._collector.collect(answered.found, deadline, cost=answered.cost)
        except (Unfinished, asyncio.CancelledError):
            keep = True
            raise
        finally:
            self._held.let_go(handle.id, keep=keep)
        return Outcome(images=found, seconds=answered.seconds, cost=answered.cost)

    async def _look(self, url: str, missing: list[float]) -> _Answer | None:
        """Ask once for a job; None while it goes on. `missing` are the times at which it was not there.

        Raises NoAnswer and PollAgain to be asked again, and Unknown when the job is lost.
        """
        response, raw = await self._session.get(url, timeout_s=self._poll_timeout_s)
        answer = await decoded(raw)
        # A failed job is answered with 422, so the body counts before the status.
        if isinstance(answer, dict) and answer.get("status") in ("COMPLETED", "FAILED"):
            return answer
        if response.status_code == 404:
            missing.append(self._clock.now())
            if len(missing) >= _MISSING and missing[-1] - missing[0] >= self._lost_after_s:
                raise Unknown(f"{NAME}: the job is not known there any more")
            raise PollAgain
        missing.clear()
        # 401 and 403 too: the work was taken, and what our key has come to does not change that.
        if not response.is_success or not isinstance(answer, dict):
            raise PollAgain(patience(response))
        return None

    async def _fetch(self, item: str, cap: int, deadline: float) -> bytes:
        """Fetch a picture from its address, or decode one that is in the answer itself. Raises as `download` does."""
        if item.startswith(("https://", "http://")):
            return await self._download(item, cap, deadline)
        try:
            return await anyio.to_thread.run_sync(partial(pybase64.b64decode, item, validate=True))
        except ValueError as exc:
            raise Undecodable(f"{NAME}: the output is neither an address nor a picture") from exc

    async def _make(self, job: UpstreamJob, url: str, body: Body) -> Answered:
        """Hold a v1 request open until it gives the picture: bytes, or JSON, as the content type says."""
        response, raw = await self._session.post_json(url, body, timeout_s=self._sync_timeout_s)
        is_picture = response.headers.get("content-type", "").startswith(("image/", "application/octet-stream"))
        answer = None if is_picture else await decoded(raw)
        check(response, raw, answer, job.payload)
        found: list[Named] = [raw] if is_picture and raw else _named(answer)
        if not found:
            raise Unknown(f"{NAME}: the answer holds no picture")
        seconds, cost = (response.headers.get(name) for name in ("x-generation-time", "x-cost"))
        return Answered(found=found, seconds=seconds_of(seconds), cost=micros_of(cost))


def _named(answer: Json) -> list[Named]:
    """Return what an answer names: addresses, base64, bytes."""
    # `output` is what every model has; `image` is how some v1 models name their base64.
    candidates = (found_in(at(answer, key)) for key in ("output", "images", "image"))
    return list(next(filter(None, candidates), []))
