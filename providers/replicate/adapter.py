"""The adapter for Replicate (https://replicate.com/docs/reference/http, read on 2026-11-21)."""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from typing_extensions import override

from normalization.values import Image, Value
from providers.base import (
    NO_CONTEXT,
    AttemptContext,
    BaseProvider,
    Handle,
    Outcome,
    PendingSubmit,
    Readiness,
    Upstream,
    UpstreamJob,
    WebhookEvent,
)
from providers.clock import jitter
from providers.errors import Expired, Failed, Undecodable, Unknown
from providers.http.bodies import Body, Json, encoded_size, json_body
from providers.http.errors import NoAnswer
from providers.kit.context import ProviderContext, public_fetch
from providers.kit.polling import PollAgain, pace_key, poll
from providers.kit.results import Named, ResultCollector, beyond
from providers.kit.uploads import map_images
from providers.replicate.api import Look, PredictionMissing, ReplicateApi
from providers.replicate.recovery import ReplicateRecovery, written
from providers.replicate.responses import ENDED, NAME, cost_of, failure, images, job_id, predict_time
from providers.replicate.settings import ReplicateSettings
from providers.replicate.webhooks import ReplicateWebhook


class ReplicateResults:
    """Fetches results: from the API itself with its key, from elsewhere by the client for downloads."""

    def __init__(self, api: ReplicateApi, context: ProviderContext) -> None:
        self._api = api
        elsewhere = public_fetch(context)

        async def fetch(address: str, most: int, deadline: float) -> bytes:
            return await (api.result if api.has(address) else elsewhere)(address, most, deadline)

        self._collector = ResultCollector(
            NAME, fetch, most=context.max_result_bytes, try_s=context.download_timeout_s, clock=context.clock
        )

    async def of(
        self, handle: Handle, prediction: dict[str, Json], deadline: float, link: AttemptContext = NO_CONTEXT
    ) -> Outcome:
        """Return what an ended prediction gave; raises what it failed with, Undecodable, and Unfetched.

        `deadline` is a reading of the clock.
        """
        prediction = await self.whole(handle, prediction)
        if prediction["status"] != "succeeded":
            raise failure(prediction, bill(handle, prediction))
        items = images(prediction.get("output"))
        if not items:
            removed = " any more" if prediction.get("data_removed") else ""
            raise Undecodable(f"{NAME}: the job succeeded, and has no picture{removed}")
        link.succeeded()

        async def again() -> list[Named]:
            return images((await self._again(handle) or {}).get("output"))

        cost = bill(handle, prediction)
        made = await self._collector.collect(items, deadline, again, cost=cost)
        return Outcome(images=made, seconds=predict_time(prediction), cost=cost)

    async def whole(self, handle: Handle, prediction: dict[str, Json]) -> dict[str, Json]:
        """Return an ended prediction with its bill: a state that was written in two steps is whole the second time."""
        told = prediction["status"] == "aborted" or predict_time(prediction) is not None
        if told and (prediction["status"] != "succeeded" or images(prediction.get("output"))):
            return prediction
        return await self._again(handle) or prediction

    async def _again(self, handle: Handle) -> dict[str, Json] | None:
        try:
            prediction = await self._api.prediction(handle.id)
        except (NoAnswer, PollAgain, PredictionMissing):
            return None
        return prediction if prediction.get("status") in ENDED else None


def bill(handle: Handle, prediction: dict[str, Json]) -> int | None:
    """Return what a prediction costs in micro-dollars; None where its price was not told with the job."""
    return cost_of(prediction, handle.data.get("usd_per_second", ""))


_MODEL = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# What `Cancel-After` and `Prefer: wait` take.
_CANCEL_AFTER_S = (5, 24 * 3600)
_MOST_WAIT_S = 60
# After this a prediction that was taken is in the list.
_LAG_S = 60.0
_FIND_AFTER_S = 0.25
_LOOK_S = 0.1
_REMEMBERED = 4096


class Replicate(BaseProvider):
    """The adapter for Replicate.

    `upstream.model` is `owner/name`. With `upstream.options["version"]` (64 hex digits) that version is run, which
    community models need; without it, the model's own path is used, which official models need.
    `options["usd_per_second"]` is the price of the model's hardware.

    Images above `data_uri_bytes` are uploaded first, and stay there for 24 hours. A submit is held open for `wait_s`
    seconds (0 to 60): a job that is done by then needs no polling. A job that is not found for `vanish_s` is lost.
    `reconcile_s` is how long the adapter searches for a job whose submit was not answered, `cancel_timeout_s` how long
    it waits for a cancelled job to end. All times are in seconds.
    """

    name = NAME
    cancels = True

    def __init__(
        self,
        settings: ReplicateSettings,
        context: ProviderContext,
        *,
        reconcile_s: float = 10.0,
        cancel_timeout_s: float = 10.0,
        vanish_s: float = 10.0,
        wait_s: int = 2,
        data_uri_bytes: int = 256 * 1024,
    ) -> None:
        super().__init__(key=context.key, key_env=settings.key_env)
        self._clock = context.clock
        self._api = ReplicateApi(
            context.http,
            key=context.key,
            base_url=settings.base_url,
            timeout_s=context.poll_timeout_s,
            # An answer may have the results in it, as base64.
            answer_bytes=2 * context.max_result_bytes + 1024 * 1024,
            clock=context.clock,
        )
        self._results = ReplicateResults(self._api, context)
        self._hook = ReplicateWebhook(self._api.secret, context.clock)
        self._pace = context.pace
        self._submit_timeout_s = context.submit_timeout_s
        self._reconcile_s = reconcile_s
        self._cancel_timeout_s = cancel_timeout_s
        self._vanish_s = vanish_s
        self._wait_s = min(wait_s, _MOST_WAIT_S)
        self._data_uri_bytes = data_uri_bytes
        # By which submit each job of this process was made, so that a search for a lost one does not find another's.
        self._ours: OrderedDict[str, str] = OrderedDict()
        # A list that was read with another key, which may be another account's, says nothing.
        self._token = hashlib.sha256((context.key or "").encode()).hexdigest()[:8]

    @override
    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        if not self._key:
            return Readiness.OFF, self.missing_key
        if not _MODEL.fullmatch(upstream.model):
            return Readiness.OFF, f"{upstream.model!r} is not owner/name"
        return Readiness.READY, ""

    @override
    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        """Upload what is large and create a prediction; where the answer is lost, look for it in Replicate's list.

        Raises Unknown where it is not found there, as a list may lag, and Unreached where the upload failed.
        """
        payload = await self._uploaded(job)
        path, envelope = _request(job.upstream, payload, self._webhook(link))
        body = json_body(envelope)
        self._left(job)
        data = {
            "input": written(payload),
            "pace": pace_key(NAME, job.upstream.model, job.payload),
            "token": self._token,
            "webhook": self._webhook(link) or "",
        }
        sent = PendingSubmit(id=job.id, upstream=job.upstream, at=time.time(), data=data)
        await link.sending(data)
        try:
            prediction = await self._create(job, path, body)
        except Unknown as exc:
            prediction = await self._sought(job, replace(sent, claimed_ids=await link.others()), exc)
        return self._handle(sent, prediction)

    @override
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        """Poll to the end and fetch the pictures. A job that is not done by `deadline` is cancelled and seen to end.

        A job that was done before the cancel came is a result, and fetched beyond the deadline if need be. Raises
        Unknown for a job that has vanished and for one that was not seen to end, Unfetched for one that has succeeded
        and whose picture did not come.
        """
        age = time.time() - float(handle.data.get("at", "nan"))
        # The wait that follows its submit begins at once; of a later one nobody knows whether the job has ended.
        late = not age <= self._wait_s + 1
        try:
            prediction = await poll(
                Look(self._api, handle.id, self._vanish_s, link.progress, self._clock),
                pace=self._pace,
                key=handle.data.get("pace", NAME),
                deadline=deadline,
                first=0.0 if late or handle.data.get("ready") else None,
                age=age if age > self._wait_s + 1 else 0.0,
                sleep=link.sleep,
            )
        except Expired:
            prediction = await self._results.whole(handle, await self._end(handle))
            if prediction["status"] != "succeeded":
                text = f"{NAME}: the deadline passed, and the job is {prediction['status']!s}"
                raise Expired(text, cost=bill(handle, prediction)) from None
            deadline = beyond(deadline, self._clock)
        return await self._results.of(handle, prediction, deadline, link)

    @override
    async def recover(self, sent: PendingSubmit) -> Handle | None:
        """Ask for the prediction that a webhook told of, else look for it in Replicate's list.

        A list may lag. So None takes a list that was read back to the submit, more than a minute after the submit can
        have been under way, with the key of then, and in which no prediction can be this one, nor one like it that was
        made at another time. Raises Unknown where it does not turn up within `reconcile_s`.
        """

        def taken(name: str) -> bool:
            return name in sent.claimed_ids or self._ours.get(name, sent.id) != sent.id

        search = self._search(sent, taken)
        found = await search.run(self._clock.now() + self._reconcile_s)
        if found is not None:
            return self._handle(sent, found)
        if sent.data.get("token") != self._token:
            raise Unknown(f"{NAME}: the job is not in the list, and may be in another account's")
        return None

    @override
    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        """Read a webhook. The secret that it is signed with is fetched when it is needed, and kept."""
        return await self._hook.heard(headers, body) if self._key else None

    @override
    async def cancel(self, handle: Handle) -> None:
        """Cancel the job and see it end; one that has ended stays as it is. Raises Unknown where that is not seen."""
        await self._end(handle)

    async def _uploaded(self, job: UpstreamJob) -> dict[str, Value]:
        """Return the input with addresses in place of the images that are too large for a data URI."""

        async def upload(image: Image) -> Value:
            return await self._api.upload(job.id, image, job.deadline) if self._is_large(image) else image

        return await map_images(job.payload, upload)

    def _is_large(self, image: Image) -> bool:
        return len(image.data) > self._data_uri_bytes

    def _webhook(self, link: AttemptContext) -> str | None:
        """Return the address to report to. Replicate takes HTTPS alone, a simulated one takes what it is itself."""
        secure = link.webhook and (link.webhook.startswith("https:") or self._api.is_plain)
        return link.webhook if secure else None

    async def _create(self, job: UpstreamJob, path: str, body: Body) -> dict[str, Json]:
        left = self._left(job)
        least, most = _CANCEL_AFTER_S
        # An orphan ends by itself, whatever becomes of us.
        headers = {"cancel-after": f"{min(most, max(least, math.ceil(left)))}s"}
        if self._wait_s >= 1:
            headers["prefer"] = f"wait={self._wait_s}"
        timeout_s = min(left, self._submit_timeout_s + self._wait_s)
        prediction = await self._api.create(path, body, headers, timeout_s)
        if not job_id(prediction):
            raise Unknown(f"{NAME}: the answer to the submit has no id")
        return prediction

    async def _sought(self, job: UpstreamJob, sent: PendingSubmit, lost: Unknown) -> dict[str, Json]:
        """Look for a prediction whose submit was not answered. Raises `lost` where it does not turn up."""
        search = self._search(sent, lambda name: name in self._ours or name in sent.claimed_ids)
        until = min(job.deadline, self._clock.now() + self._reconcile_s)
        with contextlib.suppress(Unknown):
            if prediction := await search.run(until, pause=_FIND_AFTER_S):
                return prediction
        if lost.code == "500" and search.missed:
            # It was answered, with an error, and it is not in the list: so it was refused.
            raise Failed(lost.told, said=lost.said, code=lost.code) from lost
        raise lost

    def _search(self, sent: PendingSubmit, taken: Callable[[str], bool]) -> ReplicateRecovery:
        late_s = self._submit_timeout_s + self._wait_s + _LAG_S
        return ReplicateRecovery(self._api, sent, late_s=late_s, taken=taken, clock=self._clock)

    def _handle(self, sent: PendingSubmit, prediction: Mapping[str, Json]) -> Handle:
        name = job_id(prediction)
        self._ours[name] = sent.id
        while len(self._ours) > _REMEMBERED:
            self._ours.popitem(last=False)
        data = {"at": f"{sent.at:.3f}", "pace": sent.data.get("pace", NAME)}
        price = sent.upstream.options.get("usd_per_second")
        if isinstance(price, int | float) and not isinstance(price, bool):
            data["usd_per_second"] = repr(price)
        # The answer to a submit that was held open has output while it still says "processing".
        if prediction.get("status") in ENDED or prediction.get("output"):
            data["ready"] = "yes"
        return Handle(provider=NAME, id=name, data=data)

    async def _end(self, handle: Handle) -> dict[str, Json]:
        """Cancel, look, and return the prediction once it has ended. Raises Unknown where it is not seen to."""
        until = self._clock.now() + self._cancel_timeout_s
        tried = 0
        with contextlib.suppress(TimeoutError):
            while self._clock.now() < until:
                async with self._clock.timeout_at(until):
                    for ask in (self._api.cancel, self._api.prediction):
                        with contextlib.suppress(NoAnswer, PollAgain, PredictionMissing):
                            prediction = await ask(handle.id)
                            if prediction.get("status") in ENDED:
                                return prediction
                await self._clock.sleep(max(0.0, min(_LOOK_S + jitter(tried), until - self._clock.now())))
                tried += 1
        raise Unknown(f"{NAME}: the job could not be seen to end")

    def _left(self, job: UpstreamJob) -> float:
        """Return the seconds until a job's deadline. Raises Expired where it has passed: the job was not submitted."""
        left = job.deadline - self._clock.now()
        if left <= 0:
            raise Expired(f"{NAME}: the deadline passed before the job was submitted", unbilled=True)
        return left


def _request(upstream: Upstream, payload: Mapping[str, Value], webhook: str | None) -> tuple[str, dict[str, Value]]:
    """Return the path and the body of a submit."""
    envelope: dict[str, Value] = {"input": dict(payload)}
    if webhook:
        # Each message repeats the input. With a picture in that, hearing of every line of the log is too dear.
        inline = encoded_size(payload) > 0
        envelope |= {"webhook": webhook, "webhook_events_filter": ["start", *([] if inline else ["logs"]), "completed"]}
    if version := upstream.options.get("version"):
        return "/v1/predictions", {"version": version, **envelope}
    return f"/v1/models/{upstream.model}/predictions", envelope
