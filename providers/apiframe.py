"""Apiframe: jobs that are posted under an idempotency key and polled. Version 2 of its API.

Sources: the official openapi.json (apiframe-ai/apiframe-nodejs-sdk, 9f9b464 of July 2026) and docs-v2.apiframe.ai
(image upscale, jobs, uploads), read in November 2026.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from functools import partial
from urllib.parse import quote

import httpx

from normalization.values import Image, Value
from providers.apiframe_answer import NAME, Answer, at, check, cost_of, decoded, found_in, refused, state_of
from providers.base import (
    Expired,
    Handle,
    Job,
    Outcome,
    ProviderError,
    Readiness,
    Rejected,
    Undecodable,
    Unfinished,
    Unknown,
    Unreached,
    Upstream,
)
from providers.download import Gone, download
from providers.guard import Guard
from providers.http import Unanswered, polling, refusal, retry_after, submitting
from providers.polling import Again, Pace, jitter, pace_key, poll
from providers.wire import Body, Json, json_body, read_body

_CONNECT_S = 5.0
_ANSWER_BYTES = 1024 * 1024
# How often an upload is tried: it costs nothing.
_UPLOADS = 2
# How often a submit whose answer was lost is repeated, under its key.
_REPEATS = 3
# So many answers in a row that say so, and some time, make a job that is not there lost.
_MISSING = 3
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CANCELED"})

_NO_PARAMS = "the route has no options.params, such as clarityUpscaleParams"


class Apiframe:
    """The adapter for Apiframe. `http` is for its API; `downloads` for results, which lie at public addresses.

    The key goes to the origin of `base_url` and nowhere else. `submit_timeout_s` bounds a submit (Apiframe fetches the
    picture meanwhile) and an upload, `poll_timeout_s` a look. Pictures above `max_upload_bytes` are Rejected. A job
    that Apiframe does not know is given up after `lost_after_s`; results above `max_result_bytes` are Undecodable.

    Options of a route: `params`, the name of the object that the model's parameters go into (`clarityUpscaleParams`),
    and `usd_per_credit`, for what a job cost: no official page has that price.

    `Idempotency-Key` is the id of our job. A submit whose answer was lost is repeated under it and gives the first job
    again (for 24 hours), so that Unknown is rare.
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
        base_url: str = "https://api.apiframe.ai",
        submit_timeout_s: float = 30.0,
        poll_timeout_s: float = 10.0,
        lost_after_s: float = 10.0,
        max_upload_bytes: int = 25 * 1024 * 1024,
        max_result_bytes: int = 400 * 1024 * 1024,
    ) -> None:
        self._http = http
        self._download = partial(download, downloads, guard=guard, cap=max_result_bytes, fresh=True)
        self._key = key
        self._pace = pace
        self._base_url = base_url.rstrip("/")
        self._submit_timeout_s = submit_timeout_s
        self._poll_timeout_s = poll_timeout_s
        self._lost_after_s = lost_after_s
        self._max_upload_bytes = max_upload_bytes

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        if not self._key:
            return Readiness.OFF, "APIFRAME_API_KEY is not set"
        if not isinstance(upstream.options.get("params"), str):
            return Readiness.OFF, _NO_PARAMS
        return Readiness.READY, ""

    async def start(self) -> None:
        """Nothing runs beside requests."""

    async def aclose(self) -> None:
        """Nothing runs beside requests."""

    async def submit(self, job: Job) -> Handle:
        """Upload the pictures and post the job, again under the same key where the answer was lost.

        Raises Unknown where it stayed lost, Unreached where a picture could not be uploaded.
        """
        params = job.upstream.options.get("params")
        if not isinstance(params, str):
            raise Rejected(f"{NAME}: {_NO_PARAMS}")
        given = {key: await self._uploaded(value) for key, value in job.payload.items()}
        body = await json_body({"model": job.upstream.model, params: given})
        usd = job.upstream.options.get("usd_per_credit")
        data = {
            "pace": pace_key(NAME, job.upstream.model, job.payload),
            "submitted": f"{time.time():.3f}",
            "usd_per_credit": "" if usd is None else str(usd),
        }
        return Handle(provider=NAME, id=await self._posted(job, body), data=data)

    async def wait(self, handle: Handle, deadline: float) -> Outcome:
        """Poll to the job's end and fetch its pictures.

        Raises Unfinished at the deadline; `wait` may be called again, for a day at least. Raises Unknown for a job that
        Apiframe does not know any more: it may have been billed.
        """
        missing: list[float] = []
        look = partial(self._look, f"{self._base_url}/v2/jobs/{quote(handle.id, safe='')}", missing)
        age = max(0.0, time.time() - float(handle.data.get("submitted", 0)))
        key = handle.data.get("pace", NAME)
        try:
            answer = await poll(look, pace=self._pace, key=key, deadline=deadline, age=age)
            for again in (True, False):
                check(answer)
                with contextlib.suppress(Gone):
                    if found := await self._pictures(answer, deadline):
                        return Outcome(pictures=found, cost=cost_of(answer, handle.data.get("usd_per_credit", "")))
                if again:
                    # An address that is gone, and a result without one, may be better in a second answer.
                    answer = await poll(look, pace=Pace(), key=key, deadline=deadline, first=0.0)
        except Expired as exc:
            raise Unfinished(f"{NAME}: the deadline passed, and the job cannot be cancelled") from exc
        raise Undecodable(f"{NAME}: the job succeeded, but its picture is not there")

    async def cancel(self, handle: Handle) -> None:
        """Do nothing: Apiframe cannot cancel. The job goes on, is billed if it succeeds, and can be waited for."""

    async def _uploaded(self, value: Value) -> Value:
        """Return a value of the payload with addresses at Apiframe in place of its pictures."""
        if isinstance(value, Image):
            return await self._upload(value)
        if isinstance(value, list):
            return [await self._uploaded(item) for item in value]
        if isinstance(value, dict):
            return {key: await self._uploaded(item) for key, item in value.items()}
        return value

    async def _upload(self, image: Image) -> str:
        if len(image.data) > self._max_upload_bytes:
            raise Rejected(f"{NAME}: the picture is larger than the {self._max_upload_bytes} bytes that it takes")
        lost = ""
        for _ in range(_UPLOADS):
            try:
                address = at(await self._post_file(image), "url")
                if isinstance(address, str) and address.startswith(("https://", "http://")):
                    return address
                lost = "the answer has no address"
            except (Unknown, Unreached, Undecodable) as exc:
                lost = exc.message.removeprefix(f"{NAME}: ")
        # What was lost is a file that nobody pays for, hence not Unknown.
        raise Unreached(f"{NAME}: the picture could not be uploaded ({lost})")

    async def _post_file(self, image: Image) -> Json:
        files = {"file": (f"picture.{image.format}", image.data, image.media_type)}
        request = self._http.build_request("POST", f"{self._base_url}/v2/uploads", files=files, headers=self._headers)
        response, raw = await self._send(request)
        if not response.is_success:
            statuses = dict.fromkeys((500, 503), Unknown)
            raise refusal(NAME, response, raw, now=time.time(), statuses=statuses)
        return await decoded(raw)

    async def _posted(self, job: Job, body: Body) -> str:
        """Post a job until it is known whether it was taken, and return its id.

        After a lost answer only success settles the matter: a refusal may come from what stands before the place where
        keys are looked up.
        """
        lost: Unknown | None = None
        for number in range(1 + _REPEATS):
            try:
                return await self._post(job, body)
            except Unknown as exc:
                lost, pause = exc, None
            except ProviderError as exc:
                if lost is None:
                    raise
                pause = exc.retry_after
            pause = (pause or 0.0) + jitter(number)
            if asyncio.get_running_loop().time() + pause >= job.deadline:
                break
            await asyncio.sleep(pause)
        assert lost
        raise lost

    async def _post(self, job: Job, body: Body) -> str:
        headers = {**self._headers, **body.headers, "idempotency-key": job.id}
        url = f"{self._base_url}/v2/images/upscale"
        response, raw = await self._send(self._http.build_request("POST", url, content=body, headers=headers))
        answer = await decoded(raw)
        if not response.is_success:
            raise refused(response, raw, answer)
        found = at(answer, "jobId")
        if not isinstance(found, str) or not _JOB_ID.fullmatch(found):
            raise Unknown(f"{NAME}: the answer to the submit has no job id")
        return found

    async def _send(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        limit_s = self._submit_timeout_s
        request.extensions["timeout"] = httpx.Timeout(limit_s, connect=_CONNECT_S, pool=_CONNECT_S).as_dict()
        try:
            async with asyncio.timeout(limit_s):
                with submitting(NAME):
                    response = await self._http.send(request, stream=True)
                    try:
                        return response, await read_body(response, _ANSWER_BYTES)
                    finally:
                        await response.aclose()
        except (TimeoutError, Undecodable) as exc:
            raise Unknown(f"{NAME}: the whole answer did not come within {limit_s:g} s") from exc

    @property
    def _headers(self) -> dict[str, str]:
        return {"x-api-key": self._key or ""}

    async def _look(self, url: str, missing: list[float]) -> Answer | None:
        """Ask once for a job; None while it goes on. `missing` are the times at which it was not there.

        Raises Unanswered and Again to be asked again, and Unknown when the job is lost.
        """
        try:
            async with asyncio.timeout(self._poll_timeout_s):
                with polling(NAME):
                    async with self._http.stream("GET", url, headers=self._headers) as response:
                        answer = await decoded(await read_body(response, _ANSWER_BYTES))
        except (TimeoutError, Undecodable) as exc:
            raise Unanswered(f"{NAME}: no whole answer") from exc
        if response.status_code == 404:
            missing.append(time.monotonic())
            if len(missing) >= _MISSING and missing[-1] - missing[0] >= self._lost_after_s:
                raise Unknown(f"{NAME}: the job is not known there any more")
            raise Again
        missing.clear()
        # 401 and 403 too: the work was taken, and what our key has come to does not change that.
        if not response.is_success or not isinstance(answer, dict):
            raise Again(retry_after(response, time.time()))
        return answer if state_of(answer) in _ENDED else None

    async def _pictures(self, answer: Json, deadline: float) -> tuple[bytes, ...]:
        """Fetch what an answer names. Raises Gone, Expired, and Undecodable."""
        found = found_in(at(answer, "result"))
        return tuple(
            [item if isinstance(item, bytes) else await self._download(item, deadline=deadline) for item in found]
        )
