"""Apiframe's HTTP API, request by request: the one place that knows the key."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

import httpx

from normalization.values import Image
from providers.apiframe.responses import ENDED, JOB_ID, NAME, Answer, at, decoded, refused, share_of, state_of
from providers.clock import Clock
from providers.errors import Rejected, Undecodable, Unknown, Unreached
from providers.http.bodies import Body, Json, read_body
from providers.http.errors import NoAnswer, host_in, polling, refusal, retry_after, submitting
from providers.kit.polling import MonotonicProgress, PollAgain

_CONNECT_S = 5.0
_ANSWER_BYTES = 1024 * 1024
# How often an upload is tried: it costs nothing.
_UPLOADS = 2
# So many answers in a row that say so, and some time, make a job that is not there lost.
_MISSING = 3


class ApiframeApi:
    """Requests to `base_url`, and to nothing else, with the key.

    `submit_timeout_s` bounds a submit and an upload, `poll_timeout_s` a look. Pictures above `max_upload_bytes` are
    Rejected. A job that Apiframe does not know is given up after `lost_after_s`. All times are in seconds.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        key: str | None,
        base_url: str,
        submit_timeout_s: float,
        poll_timeout_s: float,
        lost_after_s: float,
        max_upload_bytes: int,
        clock: Clock,
    ) -> None:
        self._http = http
        self._headers = {"x-api-key": key or ""}
        self._base_url = base_url
        self._submit_timeout_s = submit_timeout_s
        self._poll_timeout_s = poll_timeout_s
        self._lost_after_s = lost_after_s
        self._max_upload_bytes = max_upload_bytes
        self._clock = clock

    async def upload(self, image: Image) -> str:
        """Post a picture, again where that failed, and return its address. Raises Rejected, Unreached, Throttled."""
        if len(image.data) > self._max_upload_bytes:
            raise Rejected(f"{NAME}: the picture is larger than the {self._max_upload_bytes} bytes that it takes")
        lost = said = ""
        for _ in range(_UPLOADS):
            try:
                address = at(await self._post_file(image), "url")
                if isinstance(address, str) and address.startswith(("https://", "http://")):
                    return address
                lost, said = "the answer has no address", ""
            except (Unknown, Unreached, Undecodable) as exc:
                lost, said = exc.told.removeprefix(f"{NAME}: "), exc.said
        # What was lost is a file that nobody pays for, hence not Unknown.
        raise Unreached(f"{NAME}: the picture could not be uploaded ({lost})", said=said)

    async def _post_file(self, image: Image) -> Json:
        files = {"file": (f"picture.{image.format}", image.data, image.media_type)}
        request = self._http.build_request("POST", f"{self._base_url}/v2/uploads", files=files, headers=self._headers)
        response, raw = await self._send(request)
        if not response.is_success:
            statuses = dict.fromkeys((500, 503), Unknown)
            raise refusal(NAME, response, raw, now=time.time(), statuses=statuses)
        return await decoded(raw)

    async def post(self, key: str, body: Body) -> str:
        """Post a job under its key, once, and return its id. Raises what the answer stands for, Unknown for none."""
        headers = {**self._headers, **body.headers, "idempotency-key": key}
        url = f"{self._base_url}/v2/images/upscale"
        response, raw = await self._send(self._http.build_request("POST", url, content=body, headers=headers))
        answer = await decoded(raw)
        if not response.is_success:
            raise refused(response, raw, answer)
        found = at(answer, "jobId")
        if not isinstance(found, str) or not JOB_ID.fullmatch(found):
            raise Unknown(f"{NAME}: the answer to the submit has no job id")
        return found

    async def look(self, job: str, missing: list[float], forward: MonotonicProgress) -> Answer | None:
        """Ask once for a job, tell how much of it is done, and return it, None while it goes on.

        `missing` are the times at which it was not there. Raises NoAnswer and PollAgain to be asked again, and Unknown
        when the job is lost.
        """
        url = f"{self._base_url}/v2/jobs/{quote(job, safe='')}"
        try:
            async with asyncio.timeout(self._poll_timeout_s):
                with polling(NAME):
                    async with self._http.stream("GET", url, headers=self._headers) as response:
                        answer = await decoded(await read_body(response, _ANSWER_BYTES))
        except (TimeoutError, Undecodable) as exc:
            raise NoAnswer(f"{NAME}: no whole answer") from exc
        if response.status_code == 404:
            missing.append(self._clock.now())
            if len(missing) >= _MISSING and missing[-1] - missing[0] >= self._lost_after_s:
                raise Unknown(f"{NAME}: the job is not known there any more")
            raise PollAgain
        missing.clear()
        # 401 and 403 too: the work was taken, and what our key has come to does not change that.
        if not response.is_success or not isinstance(answer, dict):
            raise PollAgain(retry_after(response, time.time()))
        forward(share_of(answer))
        return answer if state_of(answer) in ENDED else None

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
            host = host_in(request.url)
            raise Unknown(f"{NAME}: the whole answer from {host} did not come within {limit_s:g} s") from exc
