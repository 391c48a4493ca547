"""Apiframe's HTTP API, request by request: the one place that knows the key."""

from __future__ import annotations

import time
from urllib.parse import quote

import httpx

from normalization.values import Image
from providers.apiframe.responses import ENDED, JOB_ID, NAME, Answer, at, decoded, refused, share_of, state_of
from providers.clock import Clock
from providers.errors import Rejected, Undecodable, Unknown, Unreached
from providers.http.bodies import Body, Json
from providers.http.errors import refusal, retry_after
from providers.kit.polling import MonotonicProgress, PollAgain
from providers.kit.session import HttpSession

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
        self._session = HttpSession(NAME, http, {"x-api-key": key or ""}, most_bytes=_ANSWER_BYTES)
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
        response, raw = await self._session.post_file(
            f"{self._base_url}/v2/uploads",
            (f"picture.{image.format}", image.data, image.media_type),
            timeout_s=self._submit_timeout_s,
        )
        if not response.is_success:
            statuses = dict.fromkeys((500, 503), Unknown)
            raise refusal(NAME, response, raw, now=time.time(), statuses=statuses)
        return await decoded(raw)

    async def post(self, key: str, body: Body) -> str:
        """Post a job under its key, once, and return its id. Raises what the answer stands for, Unknown for none."""
        url, headers = f"{self._base_url}/v2/images/upscale", {"idempotency-key": key}
        try:
            response, raw = await self._session.post_json(url, body, timeout_s=self._submit_timeout_s, headers=headers)
        except Undecodable as exc:
            raise Unknown(f"{NAME}: the answer to the submit has no end") from exc
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
        response, raw = await self._session.get(url, timeout_s=self._poll_timeout_s)
        answer = await decoded(raw)
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
