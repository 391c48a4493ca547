"""One upstream call, from its submit to what it gave, however it is interrupted."""

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

# What a job that was cancelled is given to be seen to end; it may also have been done before.
_SEEN_S = 15.0
# Between tries for a picture that is paid for and does not come.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# How long a webhook is waited for that tells what became of a submit whose answer was lost.
_HEARD_S = 10.0
# What a job that was taken up again has at least: its picture is paid for, whatever its deadline was.
_LEAST_S = 60.0
# What is kept of the time to the deadline for ending a job, and for fetching one that cannot be ended any more: so
# many seconds, and no more than this share.
_ENDING_S, _ENDING_SHARE = 10.0, 0.2

_ROOM_BYTES = 512 << 20

Use: TypeAlias = "Callable[[Outcome], Awaitable[None]]"
"""What is made of an outcome. It raises Undecodable where the pictures are not what was asked for."""


class AttemptCancelled(Exception):
    """The call was cancelled. `error` is what its provider said to that; None where nothing had been sent."""

    def __init__(self, error: ProviderError | None) -> None:
        super().__init__("cancelled")
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRunner:
    """Makes calls at providers.

    An attempt is given `attempt_timeout` seconds. A job that is paid for and not here yet, as it cannot be cancelled or
    its pictures cannot be fetched, is waited for until `late` seconds after its deadline, over restarts: nobody may
    wait for it any more, and its picture is kept. Deadlines are readings of `clock`.
    """

    providers: Mapping[str, Provider]
    attempt_timeout: float
    late: float
    clock: Clock = CLOCK
    room: MemoryBudget = field(default_factory=lambda: MemoryBudget(_ROOM_BYTES))
    """What the answers of all calls together may take in memory."""

    async def make(
        self, attempt: AttemptRow, payload: Mapping[str, Value], deadline: float, recorder: Recorder, use: Use
    ) -> None:
        """Submit, wait for the end, and use what came. Pictures that are found to be broken are fetched once more.

        Cancelling it cancels the job upstream, unless the journal is leaving: then it stays for another process.
        Raises ProviderError, AttemptCancelled, LedgerDown and Superseded.
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

    async def take_up(self, attempt: AttemptRow, left: float, recorder: Recorder, use: Use) -> None:
        """Go on with a call that another process began, or that this one lost sight of, and use what came.

        `left` is in how many seconds its job's deadline is, negative where that has passed. Raises as `make` does, and
        Failed (unbilled) for a call that no provider has.
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
        """Submit; the handle, and whether the call was cancelled meanwhile."""
        try:
            return await self._through_cancels(self._submitted(provider, job, context, recorder), context)
        except JobStopped:
            raise AttemptCancelled(None) from None

    async def _submitted(
        self, provider: Provider, job: UpstreamJob, context: JobAttemptContext, recorder: Recorder
    ) -> Handle:
        """Submit, and write down which job the provider made of it."""
        try:
            handle = await provider.submit(job, context)
        except Unknown as lost:
            handle = await self._found(provider, context, recorder, lost)
        return await self._noted(provider, context.attempt, handle, recorder)

    async def _recovered(self, provider: Provider, attempt: AttemptRow, recorder: Recorder) -> Handle:
        """The provider's job of an attempt that another process began. Raises Failed (unbilled) where it has none."""
        if attempt.handle is not None and not attempt.handle.held:
            return attempt.handle
        handle = await provider.find(await self._sent(attempt, recorder))
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
        """Do work that ends with the provider's job written down; the job, and whether it was cancelled meanwhile.

        A request that has left may have bought something: its answer is awaited, and written down, before the provider
        is asked to cancel. One that has not left never leaves. `leaves` says whether the work is for another process
        to do. Raises what the work raises, and JobStopped.
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
                # Nobody here does that: the event loop ends. What the provider has is for the next process to ask.
                raise
            raise JobStopped from None

    async def _found(self, provider: Provider, context: JobAttemptContext, recorder: Recorder, lost: Unknown) -> Handle:
        """The job of a submit whose answer was lost, where the provider calls and tells of it. Raises `lost`."""
        if context.webhook is None or not context.left:
            raise lost
        name = await recorder.heard(context.attempt.id, _HEARD_S)
        if name is None:
            raise lost
        handle = await provider.find(await self._sent(replace(context.attempt, heard=name), recorder))
        if handle is None:
            raise lost
        return handle

    async def _noted(self, provider: Provider, attempt: AttemptRow, handle: Handle, recorder: Recorder) -> Handle:
        """Write down whose a provider's job is, and return it. One that is another call's is not this one's: of equal
        calls whose answers were lost each has to find one of its own. Raises Unknown where there is none."""
        claimed: set[str] = set()
        while True:
            try:
                await recorder.submitted(attempt.id, handle)
            except LedgerDown:
                # It is written as soon as that can be: the job is bought, and is waited for in any case.
                return handle
            except UpstreamJobClaimed:
                found = None
                if handle.id not in claimed:
                    claimed.add(handle.id)
                    sent = await self._sent(attempt, recorder)
                    found = await provider.find(replace(sent, others=sent.others | claimed))
                if found is None:
                    raise Unknown(f"{attempt.provider}: the job that was found belongs to another call") from None
                handle = found
            else:
                return handle

    async def _sent(self, attempt: AttemptRow, recorder: Recorder) -> PendingSubmit:
        """What an adapter needs to find an attempt's job, and to tell it from those of others."""
        return replace(attempt.as_sent(), others=await recorder.others(attempt))

    async def _wait(
        self,
        provider: Provider,
        handle: Handle,
        limits: Sequence[float],
        context: JobAttemptContext,
        recorder: Recorder,
        use: Use,
    ) -> None:
        """Wait to the first limit; for a job that may not be bought elsewhere, to the next one, and so on.

        Beyond the last but one nobody else waits, and the job is waited for all the same: it is paid for.
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
        """Leave a job for another process, or cancel it and see what it came to: it may have been done before."""
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
        """Wait for a job, fetch its pictures and use them. Raises Unfinished at `limit`.

        Once the provider has said that the job has succeeded, whatever it says afterwards is no end of it.
        """
        pause = _PAUSE_S
        broken: Undecodable | None = None
        while True:
            try:
                outcome = await provider.wait(handle, limit, context)
            except ProviderError as error:
                if broken is not None and not isinstance(error, Unfinished):
                    # There is no second copy to be had of it.
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
    """What lets go of what was read once it has been used."""

    async def used(outcome: Outcome) -> None:
        try:
            await use(outcome)
        finally:
            lease.release()

    return used


def without_frames(error: BaseException) -> None:
    """Let go of the frames that an error came through, and that hold what was being read: it is kept until its job is
    told of, and its frames until a collection."""
    chain: list[BaseException | None] = [error]
    for seen in chain:
        if seen is not None:
            seen.__traceback__ = None
            chain += [one for one in (seen.__cause__, seen.__context__) if one not in chain]


# What a provider may still say of a job that has succeeded, and that is then its end.
_ENDS = (Undecodable, Blocked, Rejected)


def _texts(value: Value) -> Iterator[str]:
    """What a payload says in sentences or addresses: a provider's message may hold it, the log and the ledger not."""
    if isinstance(value, str):
        if " " in value or "://" in value:
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
