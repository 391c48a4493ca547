"""Apiframe: jobs that are posted under an idempotency key, and polled. Version 2 of its API.

Sources: the official openapi.json (apiframe-ai/apiframe-nodejs-sdk, 9f9b464 of July 2026) and docs-v2.apiframe.ai
(image upscale, jobs, uploads), read in November 2026.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from typing_extensions import override

from normalization.values import Value
from providers.apiframe.api import ApiframeApi
from providers.apiframe.responses import JOB_ID, NAME, at, check, cost_of, found_in, heard
from providers.apiframe.settings import ApiframeSettings
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
from providers.errors import Expired, ProviderError, Rejected, Undecodable, Unfinished, Unknown
from providers.http.bodies import Body, json_body
from providers.kit.context import ProviderContext, public_fetch
from providers.kit.polling import MonotonicProgress, Pace, pace_key, poll
from providers.kit.results import Named, ResultCollector
from providers.kit.uploads import map_images

# How often a submit whose answer was lost is repeated, under its key.
_REPEATS = 3
# So long a key is surely honoured.
_KEY_S = 23 * 3600.0
# Who waits for a job of this age has come back for it: it may have ended.
_LATE_S = 5.0

_NO_PARAMS = "the route has no options.params, such as clarityUpscaleParams"


class Apiframe(BaseProvider):
    """The adapter for Apiframe.

    The key is sent to the origin of `base_url` and to no other. Images above `max_upload_bytes` are Rejected. A job
    that Apiframe does not know is given up after `lost_after_s` (seconds).

    Options of a route: `params`, the name of the object that the model's parameters go into (`clarityUpscaleParams`),
    and `usd_per_credit`, for what a job cost: no official page has that price.

    `Idempotency-Key` is the id of our job. A submit whose answer was lost is repeated under it and gives the first job
    again (for 24 hours), so that Unknown is rare.
    """

    name = NAME

    def __init__(
        self,
        settings: ApiframeSettings,
        context: ProviderContext,
        *,
        lost_after_s: float = 10.0,
        max_upload_bytes: int = 25 * 1024 * 1024,
    ) -> None:
        super().__init__(key=context.key, key_env=settings.key_env)
        self._api = ApiframeApi(
            context.http,
            key=context.key,
            base_url=settings.base_url.rstrip("/"),
            submit_timeout_s=context.submit_timeout_s,
            poll_timeout_s=context.poll_timeout_s,
            lost_after_s=lost_after_s,
            max_upload_bytes=max_upload_bytes,
            clock=context.clock,
        )
        self._collector = ResultCollector(
            NAME,
            public_fetch(context),
            most=context.max_result_bytes,
            try_s=context.download_timeout_s,
            clock=context.clock,
        )
        self._pace = context.pace
        self._clock = context.clock
        self._scheme = settings.base_url.partition("//")[0]
        self._submit_timeout_s = context.submit_timeout_s

    @override
    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        if not self._key:
            return Readiness.OFF, self.missing_key
        if not isinstance(upstream.options.get("params"), str):
            return Readiness.OFF, _NO_PARAMS
        return Readiness.READY, ""

    @override
    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        """Upload the pictures and post the job, again under the same key where the answer was lost.

        Raises Unknown where it stayed lost, Unreached where a picture could not be uploaded.
        """
        params = job.upstream.options.get("params")
        if not isinstance(params, str):
            raise Rejected(f"{NAME}: {_NO_PARAMS}")
        given = await map_images(job.payload, self._api.upload)
        body = json_body({"model": job.upstream.model, params: given, **self._reporting(link)})
        data = {
            "body": body.whole().decode(),
            "pace": pace_key(NAME, job.upstream.model, job.payload),
        }
        sent = PendingSubmit(id=job.id, upstream=job.upstream, at=time.time(), data=data)
        await link.sending(data)
        return _handle(sent, await self._posted(sent, body, job.deadline))

    @override
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        """Poll to the job's end and fetch its pictures.

        Raises Unfinished at the deadline, Unfetched where the job has succeeded by then; `wait` may be called again,
        for a day at least. Raises Unknown for a job that Apiframe does not know any more: it may have been billed.
        """
        missing: list[float] = []
        look = partial(self._api.look, handle.id, missing, MonotonicProgress(link.progress))
        age = max(0.0, time.time() - float(handle.data.get("submitted", 0)))
        first = 0.0 if age > _LATE_S else None
        key = handle.data.get("pace", NAME)
        try:
            answer = await poll(
                look, pace=self._pace, key=key, deadline=deadline, first=first, age=age, sleep=link.sleep
            )
            check(answer)
            if not found_in(at(answer, "result")):
                # A result without a picture may be better in a second answer.
                answer = await poll(look, pace=Pace(self._clock), key=key, deadline=deadline, first=0.0)
                check(answer)
        except Expired as exc:
            raise Unfinished(f"{NAME}: the deadline passed, and the job cannot be cancelled") from exc
        if not (named := found_in(at(answer, "result"))):
            raise Undecodable(f"{NAME}: the job succeeded, but its picture is not there")
        link.succeeded()

        async def again() -> list[Named]:
            return list(found_in(at(await self._api.look(handle.id, [], MonotonicProgress(link.progress)), "result")))

        cost = cost_of(answer, handle.data.get("usd_per_credit", ""))
        return Outcome(images=await self._collector.collect(named, deadline, again, cost=cost), cost=cost)

    @override
    async def recover(self, sent: PendingSubmit) -> Handle | None:
        """Name the job that a webhook told of, else repeat the submit under its key, which gives the first job again.

        Where Apiframe had not taken the first one, it takes this one: the job is then bought, once, and later than it
        was meant. That is what whoever comes back for it wants; nobody may ask who has given it up. Keys are honoured
        for 24 hours: after 23 this raises Unknown, and so it does where no repeat succeeds. None is never told, for a
        refusal may come from what stands before the place where keys are looked up.
        """
        if sent.heard and JOB_ID.fullmatch(sent.heard):
            return _handle(sent, sent.heard)
        body = sent.data.get("body", "")
        if not body or not abs(time.time() - sent.at) < _KEY_S:
            raise Unknown(f"{NAME}: the answer to the submit was lost, and its key is not honoured any more")
        deadline = self._clock.now() + self._submit_timeout_s * (1 + _REPEATS)
        lost = Unknown(f"{NAME}: the answer to the submit was lost")
        return _handle(sent, await self._posted(sent, Body((body.encode(),)), deadline, lost))

    @override
    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        """Read a webhook, signed with what follows from our key. Its signature holds no time: it may be a repeat."""
        return await heard(headers, body, self._key) if self._key else None

    def _reporting(self, link: AttemptContext) -> dict[str, Value]:
        """Return what of a submit asks for webhooks: only at HTTPS, but of an Apiframe that is simulated."""
        if not link.webhook or not link.webhook.startswith(("https:", self._scheme)):
            return {}
        return {"webhookUrl": link.webhook, "webhookEvents": ["progress", "completed", "failed"]}

    async def _posted(self, sent: PendingSubmit, body: Body, deadline: float, lost: Unknown | None = None) -> str:
        """Post a job until it is known whether it was taken, and return its id; `lost` is that an answer was lost.

        After a lost answer only success settles the matter: a refusal may come from what stands before the place where
        keys are looked up.
        """
        for number in range(1 + _REPEATS):
            try:
                return await self._api.post(sent.id, body)
            except Unknown as exc:
                lost, pause = exc, None
            except ProviderError as exc:
                if lost is None:
                    raise
                pause = exc.retry_after
            pause = (pause or 0.0) + jitter(number)
            if self._clock.now() + pause >= deadline:
                break
            await self._clock.sleep(pause)
        assert lost
        raise lost


def _handle(sent: PendingSubmit, name: str) -> Handle:
    usd = sent.upstream.options.get("usd_per_credit")
    data = {
        "pace": sent.data.get("pace", NAME),
        "submitted": f"{sent.at:.3f}",
        "usd_per_credit": "" if usd is None else str(usd),
    }
    return Handle(provider=NAME, id=name, data=data)
