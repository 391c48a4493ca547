"""The adapter for Replicate (https://replicate.com/docs/reference/http, read on 2026-11-21).

It is not built on the official client: one version of that fails on the status `aborted`, another polls it forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import Mapping

import httpx

from normalization.values import Image, Value
from providers.base import Expired, Failed, Handle, Job, Outcome, Readiness, Undecodable, Unknown, Upstream
from providers.download import Gone, download
from providers.guard import Guard
from providers.http import Unanswered
from providers.polling import Again, Pace, jitter, pace_key, poll
from providers.replicate_answer import ENDED, NAME, failure, is_it, job_id, pictures, predict_time
from providers.replicate_api import Api, Look, Missing
from providers.wire import Json, json_body

_MODEL = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# What `Cancel-After` and `Prefer: wait` take.
_CANCEL_AFTER_S = (5, 24 * 3600)
_MOST_WAIT_S = 60
# So far may the clocks of Replicate and of this machine be apart.
_SKEW_S = 5.0
# What a finished job is given beyond the deadline to hand over its result: it is paid for.
_GRACE_S = 15.0
_FIND_AFTER_S = 0.25
_LOOK_S = 0.1
_REMEMBERED = 4096


class Replicate:
    """The adapter for Replicate.

    `http` is for the API and alone sees the key, `downloads` for results. `upstream.model` is `owner/name`. With
    `upstream.options["version"]` (64 hex digits) that version is run, as models of the community need; without, the
    model's own path, as official models need. `options["usd_per_second"]` is the price of the model's hardware.

    Pictures above `data_uri_bytes` are uploaded first, and stay there for 24 hours. A submit is held open for `wait_s`
    seconds (0 to 60), for a job that is done by then needs no polling. A job that is not found for `vanish_s` is
    lost. `reconcile_s` is how long a job is looked for whose submit was not answered, `cancel_timeout_s` how long one
    that was cancelled is watched for its end. All times are in seconds.
    """

    name = NAME

    def __init__(
        self,
        http: httpx.AsyncClient,
        downloads: httpx.AsyncClient,
        *,
        key: str | None,
        base_url: str = "https://api.replicate.com",
        guard: Guard,
        pace: Pace,
        submit_timeout_s: float = 30.0,
        poll_timeout_s: float = 10.0,
        download_timeout_s: float = 60.0,
        reconcile_s: float = 10.0,
        cancel_timeout_s: float = 10.0,
        vanish_s: float = 10.0,
        wait_s: int = 2,
        max_result_bytes: int = 200 * 1024 * 1024,
        data_uri_bytes: int = 256 * 1024,
    ) -> None:
        # An answer may have the results in it, as base64.
        answer_bytes = 2 * max_result_bytes + 1024 * 1024
        self._api = Api(http, key=key, base_url=base_url, timeout_s=poll_timeout_s, answer_bytes=answer_bytes)
        self._downloads = downloads
        self._configured = bool(key)
        self._guard = guard
        self._pace = pace
        self._submit_timeout_s = submit_timeout_s
        self._download_timeout_s = download_timeout_s
        self._reconcile_s = reconcile_s
        self._cancel_timeout_s = cancel_timeout_s
        self._vanish_s = vanish_s
        self._wait_s = min(wait_s, _MOST_WAIT_S)
        self._max_result_bytes = max_result_bytes
        self._data_uri_bytes = data_uri_bytes
        # The jobs of this process, so that a search for a lost one does not find another's.
        self._ours: OrderedDict[str, None] = OrderedDict()

    @property
    def queue_depth(self) -> int:
        """Always 0: jobs wait at Replicate."""
        return 0

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        if not self._configured:
            return Readiness.OFF, "REPLICATE_API_TOKEN is not set"
        if not _MODEL.fullmatch(upstream.model):
            return Readiness.OFF, f"{upstream.model!r} is not owner/name"
        return Readiness.READY, ""

    async def start(self) -> None:
        """Nothing runs beside requests."""

    async def aclose(self) -> None:
        """Nothing was begun."""

    async def submit(self, job: Job) -> Handle:
        """Upload what is large and create a prediction; where the answer is lost, look for it in Replicate's list.

        Raises Unknown where it is not found there, as a list may lag, and Unreached where the upload failed.
        """
        payload = {name: await self._uploaded(value, job) for name, value in job.payload.items()}
        began = time.time()
        try:
            prediction = await self._create(job, payload)
        except Unknown as exc:
            prediction = await self._found(job, payload, began, exc)
        return self._handle(job, prediction, began)

    async def wait(self, handle: Handle, deadline: float) -> Outcome:
        """Poll to the end and fetch the pictures. A job that is not done by `deadline` is cancelled and seen to end.

        A job that was done before the cancel came is a result, and fetched beyond the deadline if need be. Raises
        Unknown for a job that has vanished and for one that was not seen to end.
        """
        age = time.time() - float(handle.data.get("at", "nan"))
        try:
            prediction = await poll(
                Look(self._api, handle.id, self._vanish_s),
                pace=self._pace,
                key=handle.data.get("pace", NAME),
                deadline=deadline,
                first=0.0 if handle.data.get("ready") else None,
                # The wait that follows its submit begins at once; a later one is another process's.
                age=age if age > self._wait_s + 1 else 0.0,
            )
        except Expired:
            prediction = await self._end(handle)
            if prediction["status"] != "succeeded":
                raise Expired(f"{NAME}: the deadline passed, and the job is {prediction['status']!s}") from None
        if prediction["status"] != "succeeded":
            raise failure(prediction)
        return await self._outcome(handle, prediction, deadline)

    async def cancel(self, handle: Handle) -> None:
        """Cancel the job and see it end; one that has ended stays as it is. Raises Unknown where that is not seen."""
        await self._end(handle)

    async def _uploaded(self, value: Value, job: Job) -> Value:
        """Return an input with addresses in the place of pictures that are too large for a data URI."""
        if isinstance(value, Image) and len(value.data) > self._data_uri_bytes:
            return await self._api.upload(job.id, value, job.deadline)
        if isinstance(value, list):
            return [await self._uploaded(item, job) for item in value]
        if isinstance(value, dict):
            return {name: await self._uploaded(item, job) for name, item in value.items()}
        return value

    async def _create(self, job: Job, payload: Mapping[str, Value]) -> dict[str, Json]:
        left = job.deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise Expired(f"{NAME}: the deadline passed before the job was submitted")
        if version := job.upstream.options.get("version"):
            path, envelope = "/v1/predictions", {"version": version, "input": dict(payload)}
        else:
            path, envelope = f"/v1/models/{job.upstream.model}/predictions", {"input": dict(payload)}
        least, most = _CANCEL_AFTER_S
        # An orphan ends by itself, whatever becomes of us.
        headers = {"cancel-after": f"{min(most, max(least, math.ceil(left)))}s"}
        if self._wait_s >= 1:
            headers["prefer"] = f"wait={self._wait_s}"
        timeout_s = min(left, self._submit_timeout_s + self._wait_s)
        prediction = await self._api.create(path, await json_body(envelope), headers, timeout_s)
        if not job_id(prediction):
            raise Unknown(f"{NAME}: the answer to the submit has no id")
        return prediction

    async def _found(self, job: Job, payload: Mapping[str, Value], since: float, lost: Unknown) -> dict[str, Json]:
        """Look for a prediction whose submit was not answered. Raises `lost` where it does not turn up."""
        loop = asyncio.get_running_loop()
        until = min(job.deadline, loop.time() + self._reconcile_s)
        pause, read = _FIND_AFTER_S, False
        while loop.time() + pause < until:
            await asyncio.sleep(pause)
            pause *= 2
            try:
                entries = await self._api.listed(since - _SKEW_S)
            except (Unanswered, Again, Missing, Undecodable):
                continue
            read = True
            for entry in entries:
                if job_id(entry) not in self._ours and is_it(entry, job.upstream, payload, since - _SKEW_S):
                    return entry
        if lost.code == "500" and read:
            # It was answered, with an error, and it is not in the list: so it was refused.
            raise Failed(lost.message, code=lost.code) from lost
        raise lost

    def _handle(self, job: Job, prediction: Mapping[str, Json], began: float) -> Handle:
        name = job_id(prediction)
        self._ours[name] = None
        while len(self._ours) > _REMEMBERED:
            self._ours.popitem(last=False)
        data = {"at": f"{began:.3f}", "pace": pace_key(NAME, job.upstream.model, job.payload)}
        price = job.upstream.options.get("usd_per_second")
        if isinstance(price, int | float) and not isinstance(price, bool):
            data["usd_per_second"] = repr(price)
        # The answer to a submit that was held open has output while it still says "processing".
        if prediction.get("status") in ENDED or prediction.get("output"):
            data["ready"] = "yes"
        return Handle(provider=NAME, id=name, data=data)

    async def _end(self, handle: Handle) -> dict[str, Json]:
        """Cancel, look, and return the prediction once it has ended. Raises Unknown where it is not seen to."""
        tried = 0
        try:
            async with asyncio.timeout(self._cancel_timeout_s):
                while True:
                    for ask in (self._api.cancel, self._api.prediction):
                        with contextlib.suppress(Unanswered, Again, Missing):
                            prediction = await ask(handle.id)
                            if prediction.get("status") in ENDED:
                                return prediction
                    await asyncio.sleep(_LOOK_S + jitter(tried))
                    tried += 1
        except TimeoutError as exc:
            raise Unknown(f"{NAME}: the job could not be seen to end") from exc

    async def _outcome(self, handle: Handle, prediction: Mapping[str, Json], deadline: float) -> Outcome:
        now = asyncio.get_running_loop().time()
        deadline = min(max(deadline, now + _GRACE_S), now + self._download_timeout_s)
        if not pictures(prediction.get("output")) or predict_time(prediction) is None:
            # A state that was written in two steps is whole the second time.
            prediction = await self._again(handle) or prediction
        try:
            made = await self._fetched(prediction, deadline)
        except Gone:
            # Addresses run out; the job itself names fresh ones.
            prediction = await self._again(handle) or prediction
            try:
                made = await self._fetched(prediction, deadline)
            except Gone as exc:
                raise Undecodable(f"{NAME}: the result is gone ({exc})") from exc
        seconds = predict_time(prediction)
        price = handle.data.get("usd_per_second")
        cost = round(seconds * float(price) * 1_000_000) if price and seconds is not None else None
        return Outcome(pictures=made, seconds=seconds, cost=cost)

    async def _again(self, handle: Handle) -> dict[str, Json] | None:
        try:
            return await self._api.prediction(handle.id)
        except (Unanswered, Again, Missing):
            return None

    async def _fetched(self, prediction: Mapping[str, Json], deadline: float) -> tuple[bytes, ...]:
        items = pictures(prediction.get("output"))
        if not items:
            removed = " any more" if prediction.get("data_removed") else ""
            raise Undecodable(f"{NAME}: the job succeeded, and has no picture{removed}")
        return tuple([await self._picture(item, deadline) for item in items])

    async def _picture(self, item: bytes | str, deadline: float) -> bytes:
        cap = self._max_result_bytes
        if isinstance(item, str) and self._api.has(item):
            return await self._api.result(item, cap, deadline)
        if isinstance(item, str):
            return await download(self._downloads, item, guard=self._guard, cap=cap, deadline=deadline, fresh=True)
        if not 0 < len(item) <= cap:
            raise Undecodable(f"{NAME}: a result of {len(item)} bytes")
        return item
