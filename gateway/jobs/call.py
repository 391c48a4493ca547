"""One upstream call, from its submit to what it gave, however it is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from gateway.jobs.journal import CallLink, Journal, Stopped
from gateway.jobs.ledger import Claimed, LedgerDown
from gateway.jobs.records import AttemptRow
from normalization.values import Value
from providers.base import Failed, Handle, Job, Outcome, Provider, ProviderError, Rejected, Sent, Unfinished, Unknown
from providers.clock import CLOCK, Clock

# What a job that was cancelled is given to be seen to end; it may also have been done before.
_SEEN_S = 15.0
# Between tries for a picture that is paid for and does not come.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# How long a webhook is waited for that tells what became of a submit whose answer was lost.
_HEARD_S = 10.0
# What a job that was taken up again has at least: its picture is paid for, whatever its deadline was.
_LEAST_S = 60.0


class Cancelled(Exception):
    """The call was cancelled. `error` is what its provider said to that; None where nothing had been sent."""

    def __init__(self, error: ProviderError | None) -> None:
        super().__init__("cancelled")
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Makes calls at providers.

    An attempt is given `attempt_timeout` seconds. A job that cannot be cancelled, and is paid for, is waited for
    `late` seconds beyond: nobody may wait for it any more, and its picture is kept. Deadlines are readings of `clock`.
    """

    providers: Mapping[str, Provider]
    attempt_timeout: float
    late: float
    clock: Clock = CLOCK

    async def make(
        self, attempt: AttemptRow, payload: Mapping[str, Value], deadline: float, journal: Journal
    ) -> Outcome:
        """Submit, and wait for the end.

        Cancelling it cancels the job upstream, unless the journal is leaving: then it stays for another process.
        Raises ProviderError, Cancelled, LedgerDown and Superseded.
        """
        try:
            return await self._make(attempt, payload, deadline, journal)
        except ProviderError as error:
            error.hide(_texts(dict(payload)))
            if isinstance(error, Rejected):
                error.point_at(payload)
            raise
        except Cancelled as stopped:
            if stopped.error is not None:
                stopped.error.hide(_texts(dict(payload)))
            raise

    async def _make(
        self, attempt: AttemptRow, payload: Mapping[str, Value], deadline: float, journal: Journal
    ) -> Outcome:
        provider = self.providers[attempt.provider]
        limit = min(deadline, self.clock.now() + self.attempt_timeout)
        job = Job(id=attempt.id, upstream=attempt.upstream, payload=payload, deadline=limit, owner=journal.owner)
        link = CallLink(journal, attempt)
        handle, cancelled = await self._submit(provider, job, link, journal)
        if cancelled:
            return await self._interrupted(provider, handle, link, journal)
        return await self._wait(provider, handle, (limit, deadline), link, journal)

    async def take_up(self, attempt: AttemptRow, left: float, journal: Journal) -> Outcome:
        """Go on with a call that another process began, or that this one lost sight of.

        `left` is in how many seconds its job's deadline is. Raises as `make` does, and Failed (unbilled) for a call
        that no provider has.
        """
        provider = self.providers.get(attempt.provider)
        if provider is None:
            raise Unknown(f"{attempt.provider} is no provider any more")
        handle = attempt.handle
        if handle is None or handle.held:
            handle = await provider.find(await self._sent(attempt, journal))
            if handle is None:
                message = f"{attempt.provider}: the job was lost with the process that had it"
                raise Failed(message, unbilled=True)
            handle = await self._noted(provider, attempt, handle, journal)
        link = CallLink(journal, attempt)
        deadline = self.clock.now() + max(left, _LEAST_S)
        return await self._wait(provider, handle, (deadline, deadline), link, journal)

    async def _submit(self, provider: Provider, job: Job, link: CallLink, journal: Journal) -> tuple[Handle, bool]:
        """Submit; the handle, and whether the call was cancelled meanwhile."""
        submitting = asyncio.ensure_future(provider.submit(job, link))
        cancelled = False
        while not submitting.done():
            try:
                await asyncio.wait({submitting})
            except asyncio.CancelledError:
                cancelled = link.stopped = True
                # What has left may have bought something: its answer is waited for. What has not never leaves.
                if not link.left:
                    submitting.cancel()
        try:
            handle = submitting.result()
        except (asyncio.CancelledError, Stopped):
            raise Cancelled(None) from None
        except Unknown as lost:
            handle = await self._found(provider, link, journal, lost)
        return await self._noted(provider, link.attempt, handle, journal), cancelled

    async def _found(self, provider: Provider, link: CallLink, journal: Journal, lost: Unknown) -> Handle:
        """The job of a submit whose answer was lost, where the provider calls and tells of it. Raises `lost`."""
        if link.webhook is None or not link.left:
            raise lost
        name = await journal.heard(link.attempt.id, _HEARD_S)
        if name is None:
            raise lost
        handle = await provider.find(await self._sent(replace(link.attempt, heard=name), journal))
        if handle is None:
            raise lost
        return handle

    async def _noted(self, provider: Provider, attempt: AttemptRow, handle: Handle, journal: Journal) -> Handle:
        """Write down whose a provider's job is, and return it. One that is another call's is not this one's: of equal
        calls whose answers were lost each has to find one of its own. Raises Unknown where there is none."""
        claimed: set[str] = set()
        while True:
            try:
                await journal.submitted(attempt.id, handle)
            except LedgerDown:
                # It is written as soon as that can be: the job is bought, and is waited for in any case.
                return handle
            except Claimed:
                found = None
                if handle.id not in claimed:
                    claimed.add(handle.id)
                    sent = await self._sent(attempt, journal)
                    found = await provider.find(replace(sent, others=sent.others | claimed))
                if found is None:
                    raise Unknown(f"{attempt.provider}: the job that was found is another call's") from None
                handle = found
            else:
                return handle

    async def _sent(self, attempt: AttemptRow, journal: Journal) -> Sent:
        """What an adapter needs to find an attempt's job, and to tell it from those of others."""
        return replace(attempt.as_sent(), others=await journal.others(attempt))

    async def _wait(
        self, provider: Provider, handle: Handle, limits: tuple[float, float], link: CallLink, journal: Journal
    ) -> Outcome:
        """Wait to the first limit; where the job cannot be cancelled, and so no other may be bought, to the second.

        Beyond that nobody else waits, and the job is waited for all the same: it is paid for.
        """
        try:
            for limit in dict.fromkeys(limits):
                with contextlib.suppress(Unfinished):
                    return await self._insist(provider, handle, limit, link)
            journal.overdue()
            return await self._insist(provider, handle, self.clock.now() + self.late, link)
        except asyncio.CancelledError:
            return await self._interrupted(provider, handle, link, journal)

    async def _interrupted(self, provider: Provider, handle: Handle, link: CallLink, journal: Journal) -> Outcome:
        """Leave a job for another process, or cancel it and see what it came to: it may have been done before."""
        if journal.leaving and not handle.held:
            raise asyncio.CancelledError
        try:
            await provider.cancel(handle)
            return await provider.wait(handle, self.clock.now() + _SEEN_S, link)
        except ProviderError as error:
            raise Cancelled(error) from None

    async def _insist(self, provider: Provider, handle: Handle, limit: float, link: CallLink) -> Outcome:
        """Wait for a job, and for a picture that cannot be fetched at the moment. Raises Unfinished at `limit`."""
        pause = _PAUSE_S
        while True:
            try:
                return await provider.wait(handle, limit, link)
            except Unfinished:
                if self.clock.now() + pause >= limit:
                    raise
            await self.clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


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
