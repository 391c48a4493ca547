"""fal.ai: its queue, or its synchronous host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import quote

from typing_extensions import override

from normalization.values import Value
from providers.base import (
    NO_CONTEXT,
    AttemptContext,
    BaseProvider,
    Handle,
    Outcome,
    PendingSubmit,
    UpstreamJob,
    WebhookEvent,
)
from providers.errors import Expired, Undecodable, Unfetched, Unfinished, Unknown, Unusable
from providers.fal.api import FalApi, Storage, loose_json, submit_headers
from providers.fal.held import HeldRuns
from providers.fal.queue import Queue, QueueResult, Stopped
from providers.fal.recovery import History, marks
from providers.fal.responses import NAME, addresses, at, cost, failure, images
from providers.fal.settings import FalSettings
from providers.fal.webhooks import FalSignatures
from providers.http.bodies import Body, encoded_size, json_body
from providers.kit.context import ProviderContext, public_fetch
from providers.kit.polling import pace_key
from providers.kit.results import Ask, Named, ResultCollector, beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class FalResults:
    """Fetches what a result names."""

    collector: ResultCollector

    async def outcome(self, result: QueueResult, usd: str, deadline: float, again: Ask | None = None) -> Outcome:
        """Return a result's pictures, with the bill at `usd` dollars a unit. `again` asks what the result names now.

        `deadline` is a reading of the clock. Raises Unfetched, and Undecodable, with the bill.
        """
        bill = cost(result.headers, usd)
        found: list[Named] = list(images(result.answer))
        if not found:
            raise Undecodable(f"{NAME}: the result has no picture", cost=bill)
        fetched = await self.collector.collect(found, deadline, again, cost=bill)
        return Outcome(images=fetched, seconds=result.run_s, cost=bill)


V = TypeVar("V")

# How long beyond the deadline a result is fetched that was done before its cancel came: it is paid for.
_GRACE_S = 15.0
# How many jobs are remembered: which ones were stopped, and which request is whose.
_REMEMBERED = 1000


class Fal(BaseProvider):
    """The adapter for fal.ai.

    The setting `mode`: "queue" submits to `queue_url` and polls for the result; "run" holds a request to `run_url`
    open. Images above `data_uri_bytes` (as base64, together) are uploaded to fal's storage at `rest_url` first: its own
    apps take a data URI of 10 MiB at most. All images of a result together may have `max_result_bytes`. `api_url` is
    fal's platform API, which lists our requests.

    In seconds: `fetch_timeout_s` bounds the request for a result and an upload, `cancel_timeout_s` the wait for a
    cancelled job to end, `reconcile_s` the search for a job whose submit was answered incompletely or not at all; a job
    that is not found for `lost_after_s` is lost.

    An upstream's option `usd_per_unit` is the price of one of fal's billable units in dollars. The key is sent to the
    four configured origins and to no other.

    A job that completes in spite of a cancel is a result like any other: `wait` may be called after `cancel`.
    """

    name = NAME
    cancels = True

    def __init__(
        self,
        settings: FalSettings,
        context: ProviderContext,
        *,
        fetch_timeout_s: float = 60.0,
        cancel_timeout_s: float = 10.0,
        reconcile_s: float = 10.0,
        lost_after_s: float = 10.0,
        data_uri_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        super().__init__(key=(context.key or "").strip() or None, key_env=settings.key_env)
        clock, most = context.clock, context.max_result_bytes
        self._clock = clock
        self._run_url = settings.run_url.rstrip("/")
        self._queue_url = settings.queue_url.rstrip("/")
        self._mode = settings.mode
        self._submit_timeout_s = context.submit_timeout_s
        self._fetch_timeout_s = fetch_timeout_s
        self._data_uri_bytes = data_uri_bytes
        # A result with its images inside, as base64.
        self._answer_bytes = most * 4 // 3 + 1_000_000
        self._api = FalApi(context.http, self._key, clock)
        self._held = HeldRuns(clock)
        rest_url = settings.rest_url.rstrip("/")
        self._storage = Storage(
            api=self._api,
            downloads=context.downloads,
            url_policy=context.url_policy,
            rest_url=rest_url,
            timeout_s=fetch_timeout_s,
        )
        jwks_url = f"{rest_url}/.well-known/jwks.json"
        self._signatures = FalSignatures(self._api, jwks_url, timeout_s=context.poll_timeout_s, clock=clock)
        collector = ResultCollector(
            NAME, public_fetch(context), most=most, together=True, try_s=context.download_timeout_s, clock=clock
        )
        self._results = FalResults(collector=collector)
        self._history = History(
            api=self._api,
            url=settings.api_url.rstrip("/"),
            patience_s=context.submit_timeout_s,
            ask_timeout_s=context.poll_timeout_s,
            payload_bytes=2 * data_uri_bytes + 1_000_000,
            reconcile_s=reconcile_s,
        )
        self._stopped: dict[str, Stopped] = {}
        self._owners: dict[str, str] = {}
        self._queue = Queue(
            api=self._api,
            url=self._queue_url,
            pace=context.pace,
            ask_timeout_s=context.poll_timeout_s,
            fetch_timeout_s=fetch_timeout_s,
            result_bytes=self._answer_bytes,
            lost_after_s=lost_after_s,
            reconcile_s=reconcile_s,
            cancel_timeout_s=cancel_timeout_s,
        )

    @override
    async def aclose(self) -> None:
        await self._held.aclose()

    @override
    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        """Hand a job over; in "run" mode begin the request, and what comes of it, `wait` tells.

        A submit whose answer is lost is looked for as `recover` does. Raises Rejected, Blocked, Throttled, Unusable and
        Failed as fal refuses it, Unreached where nothing was sent or an upload failed, Unknown where the answer was
        lost and fal cannot tell what became of it.
        """
        if not self._key:
            raise Unusable(f"{NAME}: {self.missing_key}")
        payload = job.payload
        if encoded_size(payload) > self._data_uri_bytes:
            payload = await self._placed(job)
        body = json_body(payload)
        model = quote(job.upstream.model.strip("/"), safe="/")
        price = job.upstream.options.get("usd_per_unit")
        usd = str(price) if isinstance(price, int | float | str) else ""
        data = {"mode": self._mode, "model": model, "usd_per_unit": usd}
        if self._mode == "queue":
            data |= {"pace": pace_key(NAME, model, job.payload), "input": await marks(payload)}
        now = self._clock.now()
        if now >= job.deadline:
            raise Expired(f"{NAME}: the deadline passed before the submit")
        headers = submit_headers(job.deadline - now)
        await link.sending(data)
        if self._mode == "run":
            self._held.start(job.id, self._run(f"{self._run_url}/{model}", body, headers, usd, job.deadline))
            return Handle(provider=NAME, id=job.id, data=data, held=True)
        sent = PendingSubmit(id=job.id, upstream=job.upstream, at=time.time(), data=data)
        until = self._clock.now() + self._submit_timeout_s
        try:
            request, where = await self._queue.submit(model, body, headers, until=until, webhook=link.webhook)
        except Unknown as exc:
            return await self._recognised(replace(sent, claimed_ids=await link.others()), exc)
        return self._handle(sent, request, where)

    @override
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        """Wait for the result; a job that is not done by `deadline` is cancelled and seen to end.

        Raises Unknown for a job that vanished, and for one that was not seen to end. One that was done before the
        cancel came is a result, which is fetched beyond the deadline; Unfetched, where that has to be done later. A job
        that was cancelled before it ran is Expired, with a cost of 0.
        """
        if handle.held or handle.data.get("mode") == "run":
            return await self._of_held(handle, deadline, link)
        stopped = self._stopped.get(handle.id)
        if stopped in {"removed", "gone"}:
            raise Expired(f"{NAME}: the job was cancelled", cost=0 if stopped == "removed" else None)
        if stopped == "completed":
            return await self._ended(handle, deadline, link)
        try:
            return await self._made(handle, deadline, link)
        except Unfinished:
            # It has succeeded, and its picture cannot be had at the moment: there is nothing to cancel.
            raise
        except (Expired, Unknown) as exc:
            # With a code Expired is fal's own word: there is nothing left to cancel.
            if isinstance(exc, Expired) and exc.code is not None:
                raise
            became = self._stopped.get(handle.id)
            if became is None:
                if isinstance(exc, Unknown):
                    raise
                became = await self._stop(handle)
            if became == "vanished":
                raise Unknown(f"{NAME}: the job vanished") from exc
            if became != "completed":
                raise Expired(exc.told, said=exc.said, cost=0 if became == "removed" else None) from exc
        return await self._ended(handle, beyond(deadline, self._clock), link)

    @override
    async def recover(self, sent: PendingSubmit) -> Handle:
        """Find a job by the request id that its webhook told, or else in fal's list of our requests.

        There it is the one request of that endpoint and time that has all of the job's input. Raises Unknown where
        there is no such request, or more than one: none is no proof that the job was not taken. So it is as well in
        "run" mode, where nobody can be asked for a result.
        """
        if sent.data.get("mode") != "queue" or not self._key:
            raise Unknown(f"{NAME}: nobody can be asked what became of the job")
        if sent.heard is None:
            return await self._recognised(sent, Unknown(f"{NAME}: the answer to the submit was lost"))
        if not await self._queue.exists(sent.data.get("model", ""), sent.heard):
            raise Unknown(f"{NAME}: the job that was heard of is not there")
        return self._handle(sent, sent.heard, {})

    @override
    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        """Take a webhook that fal signed. It says that a request ended, and the queue is asked how."""
        request = await self._signatures.request(headers, body)
        return None if request is None else WebhookEvent(id=request)

    @override
    async def cancel(self, handle: Handle) -> None:
        """Ask for the job's end and see it. Raises Unknown where it was not seen."""
        if handle.held or handle.data.get("mode") == "run":
            await self._held.cancel(handle.id)
        else:
            await self._stop(handle)

    async def _stop(self, handle: Handle) -> Stopped:
        became = await self._queue.cancel(handle)
        _remember(self._stopped, handle.id, became)
        return became

    async def _recognised(self, sent: PendingSubmit, lost: Unknown) -> Handle:
        """Return the handle of the request that must be the job's; raise what was `lost` where there is none."""
        others = frozenset(request for request, owner in self._owners.items() if owner != sent.id)
        request = await self._history.find(sent, others | sent.claimed_ids)
        if request is None:
            raise lost
        return self._handle(sent, request, {})

    def _handle(self, sent: PendingSubmit, request: str, where: Mapping[str, str]) -> Handle:
        _remember(self._owners, request, sent.id)
        where = where or addresses(self._queue_url, sent.data.get("model", ""), request, {})
        kept = {name: value for name, value in sent.data.items() if name != "input"}
        return Handle(provider=NAME, id=request, data={**where, **kept, "submitted": f"{sent.at:.3f}"})

    async def _ended(self, handle: Handle, deadline: float, link: AttemptContext) -> Outcome:
        """Return what a job gave that was too far to be cancelled: it is paid for, and all there is to do is to fetch
        its result. Raises Unfetched at the deadline."""
        try:
            return await self._made(handle, deadline, link, ended=True)
        except Unfinished:
            raise
        except Expired as exc:
            if exc.code is not None:
                raise
            message = f"{NAME}: the job has ended, and its result is not fetched yet: {exc.told}"
            raise Unfetched(message, said=exc.said) from exc

    async def _made(self, handle: Handle, deadline: float, link: AttemptContext, *, ended: bool = False) -> Outcome:
        result = await self._queue.result(handle, deadline, link=link, ended=ended)
        link.succeeded()

        async def again() -> list[Named]:
            until = min(deadline, self._clock.now() + self._fetch_timeout_s)
            return list(images((await self._queue.result(handle, until, ended=True)).answer))

        return await self._results.outcome(result, handle.data.get("usd_per_unit", ""), deadline, again)

    async def _of_held(self, handle: Handle, deadline: float, link: AttemptContext) -> Outcome:
        result = await self._held.wait(handle.id, deadline)
        link.succeeded()
        # Whoever finds the pictures broken may come back for them, where they lie at an address.
        keeps = not any(isinstance(item, bytes) for item in images(result.answer))
        try:
            return await self._results.outcome(result, handle.data.get("usd_per_unit", ""), deadline)
        except (Unfinished, asyncio.CancelledError):
            keeps = True
            raise
        finally:
            self._held.let_go(handle.id, keep=keeps)

    async def _run(self, url: str, body: Body, headers: dict[str, str], usd: str, deadline: float) -> QueueResult:
        response, raw = await self._api.post(url, body, headers, until=deadline, cap=self._answer_bytes)
        answer = await loose_json(raw)
        if not response.is_success or (at(answer, "detail") is not None and not images(answer)):
            raise failure(response, answer, now=time.time(), ended=False, usd=usd)
        if answer is None:
            raise Unknown(f"{NAME}: the result broke off")
        return QueueResult(answer=answer, headers=response.headers, run_s=None)

    async def _placed(self, job: UpstreamJob) -> dict[str, Value]:
        try:
            async with self._clock.timeout_at(job.deadline):
                return await self._storage.job_ref(job.payload)
        except TimeoutError as exc:
            raise Expired(f"{NAME}: the deadline passed while the picture was uploaded") from exc


def _remember(book: dict[str, V], key: str, value: V) -> None:
    book[key] = value
    if len(book) > _REMEMBERED:
        del book[next(iter(book))]
