"""fal.ai: its queue, or its synchronous host."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Literal
from urllib.parse import quote

import httpx

from normalization.values import Value
from providers.base import Expired, Handle, Job, Outcome, Readiness, Undecodable, Unknown, Unusable, Upstream
from providers.download import Gone, download
from providers.fal_answer import NAME, at, cost, failure, pictures
from providers.fal_api import Api, loose_json
from providers.fal_files import Storage
from providers.fal_queue import Queue
from providers.fal_run import Held
from providers.fal_watch import Result
from providers.guard import Guard
from providers.polling import Pace, pace_key
from providers.wire import Body, encoded_size, json_body

_NO_KEY = "FAL_KEY is not set"
# fal-client refuses to send a time to start of a second or less.
_LEAST_START_S = 2
# How long beyond the deadline a result is fetched that was done before its cancel came: it is paid for.
_GRACE_S = 15.0


class Fal:
    """The adapter for fal.ai.

    `mode` "queue" submits to `queue_url` and asks for the result; "run" holds a request to `run_url` open. Pictures
    above `data_uri_bytes` (as base64, together) go to fal's storage at `rest_url` first: its own apps take a data URI
    of 10 MiB at most. The pictures of a result may have `max_result_bytes` together.

    In seconds: `submit_timeout_s` is for the answer to a submit, `poll_timeout_s` for an answer about a job,
    `fetch_timeout_s` for its result and for an upload, `cancel_timeout_s` for seeing a cancelled job end,
    `reconcile_s` for finding a job whose submit was answered in pieces; a job that is not found for `lost_after_s` is
    lost.

    An upstream's option `usd_per_unit` is the price of one of fal's billable units in dollars. The key goes to the
    three configured origins and nowhere else.

    A job that completes in spite of a cancel is a result like any other: `wait` may be called after `cancel`.
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
        queue_url: str = "https://queue.fal.run",
        run_url: str = "https://fal.run",
        rest_url: str = "https://rest.fal.ai",
        mode: Literal["queue", "run"] = "queue",
        submit_timeout_s: float = 30.0,
        poll_timeout_s: float = 10.0,
        fetch_timeout_s: float = 60.0,
        cancel_timeout_s: float = 10.0,
        reconcile_s: float = 10.0,
        lost_after_s: float = 10.0,
        max_result_bytes: int = 200 * 1024 * 1024,
        data_uri_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self._downloads = downloads
        self._guard = guard
        self._run_url = run_url.rstrip("/")
        self._mode = mode
        self._submit_timeout_s = submit_timeout_s
        self._fetch_timeout_s = fetch_timeout_s
        self._max_result_bytes = max_result_bytes
        self._data_uri_bytes = data_uri_bytes
        # A result with its pictures inside, as base64.
        self._answer_bytes = max_result_bytes * 4 // 3 + 1_000_000
        self._api = Api(http, (key or "").strip() or None)
        self._held = Held()
        self._storage = Storage(
            api=self._api, downloads=downloads, guard=guard, rest_url=rest_url.rstrip("/"), timeout_s=fetch_timeout_s
        )
        self._queue = Queue(
            api=self._api,
            url=queue_url.rstrip("/"),
            pace=pace,
            ask_timeout_s=poll_timeout_s,
            fetch_timeout_s=fetch_timeout_s,
            result_bytes=self._answer_bytes,
            lost_after_s=lost_after_s,
            reconcile_s=reconcile_s,
            cancel_timeout_s=cancel_timeout_s,
        )

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        return (Readiness.READY, "") if self._api.key else (Readiness.OFF, _NO_KEY)

    async def start(self) -> None:
        """Nothing runs beside requests."""

    async def aclose(self) -> None:
        await self._held.aclose()

    async def submit(self, job: Job) -> Handle:
        """Hand a job over; in "run" mode begin the request, and what comes of it, `wait` tells.

        Raises Rejected, Blocked, Throttled, Unusable and Failed as fal refuses it, Unreached where nothing was sent
        or an upload failed, Unknown where the answer was lost and fal cannot tell what became of it.
        """
        if not self._api.key:
            raise Unusable(f"{NAME}: {_NO_KEY}")
        payload = job.payload
        if encoded_size(payload) > self._data_uri_bytes:
            payload = await self._placed(job)
        body = await json_body(payload)
        model = quote(job.upstream.model.strip("/"), safe="/")
        price = job.upstream.options.get("usd_per_unit")
        usd = str(price) if isinstance(price, int | float | str) else ""
        now = asyncio.get_running_loop().time()
        if now >= job.deadline:
            raise Expired(f"{NAME}: the deadline passed before the submit")
        headers = _headers(job.deadline - now)
        if self._mode == "run":
            self._held.start(job.id, self._run(f"{self._run_url}/{model}", body, headers, usd, job.deadline))
            return Handle(provider=NAME, id=job.id, data={"mode": "run", "model": model})
        until = now + self._submit_timeout_s
        request, where = await self._queue.submit(model, body, headers, until)
        more = {"model": model, "pace": pace_key(NAME, model, job.payload), "submitted": f"{time.time():.3f}"}
        return Handle(provider=NAME, id=request, data={**where, **more, "usd_per_unit": usd})

    async def wait(self, handle: Handle, deadline: float) -> Outcome:
        """Wait for the result; a job that is not done by `deadline` is cancelled and seen to end.

        Raises Unknown for a job that vanished, and for one that was not seen to end. One that was done before the
        cancel came is a result, which is fetched beyond the deadline.
        """
        if handle.data.get("mode") == "run":
            return await self._held.wait(handle.id, deadline)
        try:
            return await self._made(handle, deadline)
        except Expired as exc:
            # With a code it is fal's own word: there is nothing left to cancel.
            if exc.code is not None:
                raise
            became = await self._queue.cancel(handle)
            if became == "vanished":
                raise Unknown(f"{NAME}: the job vanished") from exc
            if became == "removed":
                raise
        try:
            grace = min(self._fetch_timeout_s, _GRACE_S)
            return await self._made(handle, asyncio.get_running_loop().time() + grace, ended=True)
        except Expired as exc:
            if exc.code is not None:
                raise
            raise Unknown(f"{NAME}: the job ended, and its result cannot be had: {exc.message}") from exc

    async def cancel(self, handle: Handle) -> None:
        """Ask for the job's end and see it. Raises Unknown where it was not seen."""
        if handle.data.get("mode") == "run":
            await self._held.cancel(handle.id)
        else:
            await self._queue.cancel(handle)

    async def _made(self, handle: Handle, deadline: float, *, ended: bool = False) -> Outcome:
        usd = handle.data.get("usd_per_unit", "")
        try:
            return await self._outcome(await self._queue.result(handle, deadline, ended=ended), usd, deadline)
        except Gone:
            # The job may name a fresh address.
            result = await self._queue.result(handle, deadline, ended=True)
        try:
            return await self._outcome(result, usd, deadline)
        except Gone as exc:
            raise Undecodable(f"{NAME}: the result is gone ({exc})") from exc

    async def _run(self, url: str, body: Body, headers: dict[str, str], usd: str, deadline: float) -> Outcome:
        response, raw = await self._api.post(url, body, headers, until=deadline, cap=self._answer_bytes)
        answer = await loose_json(raw)
        if not response.is_success or (at(answer, "detail") is not None and not pictures(answer)):
            raise failure(response, answer, now=time.time(), ended=False)
        if answer is None:
            raise Unknown(f"{NAME}: the result broke off")
        try:
            return await self._outcome(Result(answer=answer, headers=response.headers, run_s=None), usd, deadline)
        except Gone as exc:
            raise Undecodable(f"{NAME}: the result is gone ({exc})") from exc
        except Expired as exc:
            raise Unknown(f"{NAME}: {exc.message}") from exc

    async def _outcome(self, result: Result, usd: str, deadline: float) -> Outcome:
        """Fetch the pictures of a result. Raises Gone."""
        found = pictures(result.answer)
        if not found:
            raise Undecodable(f"{NAME}: the result has no picture")
        got: list[bytes] = []
        left = self._max_result_bytes
        for item in found:
            if isinstance(item, str):
                item = await download(self._downloads, item, guard=self._guard, cap=left, deadline=deadline, fresh=True)
            got.append(item)
            left -= len(item)
            if left < 0:
                raise Undecodable(f"{NAME}: the result is larger than {self._max_result_bytes} bytes")
        return Outcome(pictures=tuple(got), seconds=result.run_s, cost=cost(result.headers, usd))

    async def _placed(self, job: Job) -> dict[str, Value]:
        try:
            async with asyncio.timeout_at(job.deadline):
                return await self._storage.placed(job.payload)
        except TimeoutError as exc:
            raise Expired(f"{NAME}: the deadline passed while the picture was uploaded") from exc


def _headers(left_s: float) -> dict[str, str]:
    """Return what a submit asks of fal: fal.ai/docs, common parameters.

    One try (the gateway has other routes), this model and no other, and no start after the deadline.
    """
    return {
        "x-fal-no-retry": "1",
        "x-app-fal-disable-fallback": "true",
        "x-fal-request-timeout": str(max(_LEAST_START_S, math.ceil(left_s))),
    }
