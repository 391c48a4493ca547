"""One provider call, from its submit to its outcome, including cancellation and recovery."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from gateway.jobs.context import JobAttemptContext, JobStopped, Recorder
from gateway.ledger.records import AttemptRow
from gateway.ledger.store import LedgerDown, UpstreamJobClaimed
from normalization.values import Value
from providers.base import Handle, Outcome, PendingSubmit, Provider, UpstreamJob
from providers.clock import CLOCK, Clock
from providers.errors import Blocked, Failed, ProviderError, Rejected, Undecodable, Unfetched, Unfinished, Unknown
from providers.memory import MemoryBudget, MemoryLease

# How long a cancelled job is awaited: it may have finished before the cancellation reached the provider.
_SEEN_S = 15.0
# Delay between attempts to download an image that is already paid for.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# How long to wait for a webhook with the job's id after the response to a submit was lost.
_WEBHOOK_WAIT_S = 10.0
# The minimum time for a resumed job: its image is paid for, whatever its deadline was.
_LEAST_S = 60.0
# The time reserved before the deadline to cancel a job, or to download the result of one that can no longer be
# cancelled: this many seconds, and at most this share of the remaining time.
_ENDING_S, _ENDING_SHARE = 10.0, 0.2

_ROOM_BYTES = 512 << 20

Use: TypeAlias = "Callable[[Outcome], Awaitable[None]]"
"""Processes an outcome. Raises Undecodable if its images are not usable."""


class AttemptCancelled(Exception):
    """The call was cancelled. `error` is the provider's response to that; None if nothing had been sent."""

    def __init__(self, error: ProviderError | None) -> None:
        super().__init__("cancelled")
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRunner:
    """Makes calls to providers.

    An attempt may take `attempt_timeout` seconds. A paid job that cannot be cancelled, or whose images cannot be
    downloaded yet, is awaited until `late` seconds after its deadline, across restarts: its images are stored even if
    no client is waiting any more. Deadlines are readings of `clock`.
    """

    providers: Mapping[str, Provider]
    attempt_timeout: float
    late: float
    clock: Clock = CLOCK
    room: MemoryBudget = field(default_factory=lambda: MemoryBudget(_ROOM_BYTES))
    """The memory limit for the responses of all calls together."""

    async def make(
        self, attempt: AttemptRow, payload: Mapping[str, Value], deadline: float, recorder: Recorder, use: Use
    ) -> None:
        """Submit a job, wait for its outcome and process it. Images that turn out to be broken are downloaded again.

        Cancelling this call cancels the provider's job, unless the process is shutting down: then another one resumes.
        Raises ProviderError, AttemptCancelled, LedgerDown and LeaseLost.
        """
        try:
            with self.room.lease() as lease:
                await self._make(attempt, payload, deadline, recorder, _releasing(use, lease))
        except ProviderError as error:
            error.redact(_texts(dict(payload)))
            if isinstance(error, Rejected):
                error.point_at(payload)
            raise
        except AttemptCancelled as stopped:
            if stopped.error is not None:
                stopped.error.redact(_texts(dict(payload)))
            raise

    async def _make(
        self, attempt: AttemptRow, payload: Mapping[str, Value], deadline: float, recorder: Recorder, use: Use
    ) -> None:
        provider = self.providers[attempt.provider]
        now = self.clock.now()
        ending = min(_ENDING_S, _ENDING_SHARE * max(0.0, deadline - now)) if provider.cancels else 0.0
        limit = min(deadline - ending, now + self.attempt_timeout)
        job = UpstreamJob(
            id=attempt.id, upstream=attempt.upstream, payload=payload, deadline=limit, owner=recorder.owner
        )
        context = JobAttemptContext(recorder, attempt)
        handle, cancelled = await self._submit(provider, job, context, recorder)
        context.handle = handle
        if cancelled:
            return await self._interrupted(provider, handle, context, recorder, use)
        limits = (limit, deadline, deadline + self.late)
        return await self._wait(provider, handle, limits, context, recorder, use)

    async def resume(self, attempt: AttemptRow, left: float, recorder: Recorder, use: Use) -> None:
        """Resume a call that another process began, or whose outcome is unknown, and process its outcome.

        `left` is the time to the job's deadline in seconds, negative once it has passed. Raises the errors of `make`,
        and Failed (unbilled) if the provider has no such job.
        """
        provider = self.providers.get(attempt.provider)
        if provider is None:
            raise Unknown(f"the provider {attempt.provider} is no longer configured")
        context = JobAttemptContext(recorder, attempt)
        context.left = True
        searching = self._recovered(provider, attempt, recorder)
        handle, cancelled = await self._through_cancels(searching, context, lambda: recorder.leaving)
        context.handle = handle
        context.made = attempt.succeeded
        if cancelled:
            await self._interrupted(provider, handle, context, recorder, use)
            return
        now = self.clock.now()
        deadline = now + max(left, _LEAST_S)
        limits = (deadline, max(deadline, now + left + self.late))
        with self.room.lease() as lease:
            await self._wait(provider, handle, limits, context, recorder, _releasing(use, lease))

    async def _submit(
        self, provider: Provider, job: UpstreamJob, context: JobAttemptContext, recorder: Recorder
    ) -> tuple[Handle, bool]:
        """Submit; return the handle, and whether the call was cancelled meanwhile."""
        try:
            return await self._through_cancels(self._submitted(provider, job, context, recorder), context)
        except JobStopped:
            raise AttemptCancelled(None) from None

    async def _submitted(
        self, provider: Provider, job: UpstreamJob, context: JobAttemptContext, recorder: Recorder
    ) -> Handle:
        """Submit, and record the provider's job."""
        try:
            handle = await provider.submit(job, context)
        except Unknown as lost:
            handle = await self._found(provider, context, recorder, lost)
        return await self._noted(provider, context.attempt, handle, recorder)

    async def _recovered(self, provider: Provider, attempt: AttemptRow, recorder: Recorder) -> Handle:
        """Find the provider's job of an attempt begun by another process. Raises Failed (unbilled) if there is none."""
        if attempt.handle is not None and not attempt.handle.held:
            return attempt.handle
        handle = await provider.recover(await self._sent(attempt, recorder))
        if handle is None:
            message = f"{attempt.provider}: the job was lost when the process that sent it ended"
            raise Failed(message, unbilled=True)
        return await self._noted(provider, attempt, handle, recorder)

    async def _through_cancels(
        self,
        work: Coroutine[Any, Any, Handle],
        context: JobAttemptContext,
        leaves: Callable[[], bool] = lambda: False,
    ) -> tuple[Handle, bool]:
        """Run `work`, which finds and records the provider's job; return it, and whether it was cancelled meanwhile.

        A request that was sent may have bought something: its response is awaited and recorded before the provider is
        asked to cancel. A request that was not sent yet is not sent at all. `leaves` returns whether another process
        will do the work instead. Raises the errors of `work`, and JobStopped.
        """
        working = asyncio.ensure_future(work)
        cancelled = False
        while not working.done():
            try:
                await asyncio.wait({working})
            except asyncio.CancelledError:
                cancelled = context.stopped = True
                if not context.left or leaves():
                    working.cancel()
        try:
            return working.result(), cancelled
        except asyncio.CancelledError:
            if context.left:
                # Only the end of the event loop does that. The next process asks the provider for the job.
                raise
            raise JobStopped from None

    async def _found(self, provider: Provider, context: JobAttemptContext, recorder: Recorder, lost: Unknown) -> Handle:
        """Find the job by its webhook after the response to the submit was lost. Raises `lost`."""
        if context.webhook is None or not context.left:
            raise lost
        name = await recorder.wait_for_id(context.attempt.id, _WEBHOOK_WAIT_S)
        if name is None:
            raise lost
        handle = await provider.recover(await self._sent(replace(context.attempt, heard=name), recorder))
        if handle is None:
            raise lost
        return handle

    async def _noted(self, provider: Provider, attempt: AttemptRow, handle: Handle, recorder: Recorder) -> Handle:
        """Record that a provider's job belongs to this attempt, and return it. If it belongs to another call, search
        again: equal calls whose responses were lost each need a job of their own. Raises Unknown if none is found."""
        claimed: set[str] = set()
        while True:
            try:
                await recorder.submitted(attempt.id, handle)
            except LedgerDown:
                # The write is retried in the background: the job is paid for, and is awaited in any case.
                return handle
            except UpstreamJobClaimed:
                found = None
                if handle.id not in claimed:
                    claimed.add(handle.id)
                    sent = await self._sent(attempt, recorder)
                    found = await provider.recover(replace(sent, claimed_ids=sent.claimed_ids | claimed))
                if found is None:
                    raise Unknown(f"{attempt.provider}: the job that was found belongs to another call") from None
                handle = found
            else:
                return handle

    async def _sent(self, attempt: AttemptRow, recorder: Recorder) -> PendingSubmit:
        """Return what an adapter needs to find an attempt's job and to tell it from the jobs of other attempts."""
        return replace(attempt.as_sent(), claimed_ids=await recorder.others(attempt))

    async def _wait(
        self,
        provider: Provider,
        handle: Handle,
        limits: Sequence[float],
        context: JobAttemptContext,
        recorder: Recorder,
        use: Use,
    ) -> None:
        """Wait until the first limit; if the job may not be bought elsewhere, until the next one, and so on.

        After the last but one no client waits any more. The job is still awaited, because it is paid for.
        """
        *before, last = limits
        try:
            for limit in dict.fromkeys(before):
                with contextlib.suppress(Unfinished):
                    return await self._insist(provider, handle, limit, context, use)
            recorder.overdue()
            return await self._insist(provider, handle, last, context, use)
        except asyncio.CancelledError:
            return await self._interrupted(provider, handle, context, recorder, use)

    async def _interrupted(
        self, provider: Provider, handle: Handle, context: JobAttemptContext, recorder: Recorder, use: Use
    ) -> None:
        """Leave a job to another process, or cancel it and use its outcome if it had finished before."""
        if recorder.leaving and not handle.held:
            raise asyncio.CancelledError
        try:
            await provider.cancel(handle)
            await use(await provider.wait(handle, self.clock.now() + _SEEN_S, context))
        except ProviderError as error:
            raise AttemptCancelled(error) from None

    async def _insist(
        self, provider: Provider, handle: Handle, limit: float, context: JobAttemptContext, use: Use
    ) -> None:
        """Wait for a job, download its images and process them. Raises Unfinished at `limit`.

        Once the provider has reported success, later errors are retried unless they are final.
        """
        pause = _PAUSE_S
        broken: Undecodable | None = None
        while True:
            try:
                outcome = await provider.wait(handle, limit, context)
            except ProviderError as error:
                if broken is not None and not isinstance(error, Unfinished):
                    # The provider has no second copy.
                    raise broken from None
                if not isinstance(error, Unfinished) and (not context.made or isinstance(error, _ENDS)):
                    raise
                if self.clock.now() + pause >= limit:
                    if not context.made:
                        raise
                    if isinstance(error, Unfetched):
                        raise
                    raise Unfetched(error.told, said=error.said, cost=error.cost) from error
            else:
                try:
                    return await use(outcome)
                except Undecodable as error:
                    if broken is not None:
                        raise
                    broken = error
                    without_frames(broken)
                    continue
                finally:
                    del outcome
            await self.clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _releasing(use: Use, lease: MemoryLease) -> Use:
    """Wrap `use` so that the memory lease is released afterwards."""

    async def used(outcome: Outcome) -> None:
        try:
            await use(outcome)
        finally:
            lease.release()

    return used


def without_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and its causes: the error is kept until its job is reported, and the frames
    would keep the response in memory."""
    chain: list[BaseException | None] = [error]
    for seen in chain:
        if seen is not None:
            seen.__traceback__ = None
            chain += [one for one in (seen.__cause__, seen.__context__) if one not in chain]


# Errors that are final even after the provider has reported success.
_ENDS = (Undecodable, Blocked, Rejected)


def _texts(value: Value) -> Iterator[str]:
    """Yield a payload's sentences and URLs: a provider may echo them, and logs and the ledger must not contain them."""
    if isinstance(value, str):
        if " " in value or "://" in value:
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
