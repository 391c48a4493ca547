"""The ledger: what was asked, what was bought, what came of it. Written before it matters.

The order of writes of one upstream call, and what a crash after each leaves:

    accepted    the job is there, and nobody works on it: nothing was bought
    submitting  the request may have left: its provider is asked whether it took the job
    submitted   the provider has the job: it is waited for
    ended       the pictures are kept: they are handed out
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from gateway.auth.budgets import reserve, settle
from gateway.database.schema import ATTEMPTS, DELIVERIES, JOBS
from gateway.database.writer import Database, LedgerDown
from gateway.ledger.claims import Claims, IdempotencyKeyReused, JobMatches, LeaseLost
from gateway.ledger.late import gather, keep, save, taken
from gateway.ledger.leases import Leases
from gateway.ledger.records import AttemptRow, JobRow, JobSpec, Json, handle_to_json, succeeded
from gateway.ledger.statements import (
    ATTEMPT,
    END_OWN_JOB,
    JOB,
    SET_ATTEMPT,
    SET_AWAITED_JOB,
    SET_OWN_JOB,
    attempt_of,
    attempt_values,
    job_of,
    unless_there,
)
from providers.base import Handle

__all__ = ["IdempotencyKeyReused", "JobMatches", "LeaseLost", "Ledger", "LedgerDown", "UpstreamJobClaimed"]

T = TypeVar("T")
OPEN = ("queued", "in_progress")
# A job that is looked for at a provider is not older or younger than this by its submit, in seconds: this machine's
# clock may have been wrong by a day.
_AROUND_S = 25 * 3600.0


class UpstreamJobClaimed(Exception):
    """The provider's job is another attempt's: whoever looked for a lost one has found the wrong one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job ended. `deliveries` are rows of webhooks to send."""

    state: str
    cost: int
    result: Json | None = None
    error: Json | None = None
    deliveries: Sequence[Json] = ()


class Ledger:
    """The jobs and attempts of all processes, written by this one. `clock` is the wall's, in seconds."""

    def __init__(
        self,
        database: Database,
        processes: Leases,
        *,
        key_ttl_s: float,
        join_window_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self.processes = processes
        self.process = processes.id
        self.messages_ready = asyncio.Event()
        """Set whenever there are messages to send: whoever hears of it and writes then, writes after they were."""
        self._clock = clock
        self._claims = Claims(processes, key_ttl_s=key_ttl_s, join_window_s=join_window_s, clock=self._now)

    @property
    def up(self) -> bool:
        """Whether the last write and the last heartbeat went well, and nothing is owed."""
        return self.database.up and self.processes.heard

    def _now(self) -> float:
        return self._clock()

    async def accept(self, order: JobSpec) -> JobRow | None:
        """Write a job down, or find the one that has its idempotency key already; None where it is new.

        Raises IdempotencyKeyReused where that one is another request, LedgerDown.
        """
        return await self.database.write(lambda connection: self._claims.accept(connection, order))

    async def lookup(self, order: JobSpec) -> JobRow | None:
        """The job that has an order's idempotency key; None where it would be a new one. Raises as `accept` does."""

        def find(connection: Connection) -> JobRow | None:
            same = and_(JOBS.c.key == order.key, JOBS.c.idempotency_key == order.idempotency_key)
            row = connection.execute(select(JOBS).where(same)).first()
            found = job_of(row) if row else None
            return found if found is not None and not self._claims.may_run_again(found, order) else None

        return await self.database.read(find)

    async def match(self, order: JobSpec, retry: int) -> JobMatches:
        """Join a job of which this call is an SDK's repetition number `retry`: one that no living caller waits on.

        Raises LedgerDown.
        """
        return await self.database.write(lambda connection: self._claims.match(connection, order, retry))

    async def sending(
        self, order: JobSpec, attempt: AttemptRow, ended: Sequence[AttemptRow], *, first: bool = False
    ) -> None:
        """Write down that a request is about to leave that may buy something, before it does.

        `ended` are attempts before it whose end is not written yet; `first` says that nothing of the job seems to be
        written so far. Raises LeaseLost, LedgerDown, and Exceeded where the key may not have it made: then nothing is
        written, and nothing may be sent.
        """

        def write(connection: Connection) -> None:
            self._claims.own(connection, order, new=first)
            for old in ended:
                save(connection, old)
            values = attempt_values(attempt)
            if connection.execute(unless_there(connection, ATTEMPTS), values).first() is None:
                # Sent once more, with another key, after an answer that surely bought nothing: it is charged already.
                connection.execute(SET_ATTEMPT, {"this": attempt.id, "sent": values["sent"]})
            elif order.quota is not None:
                whole = max(order.estimate, order.reserve, attempt.estimate, attempt.reserve)
                margin = max(0, attempt.reserve - attempt.estimate)
                now = self._clock()
                reserve(connection, order.id, order.key, order.quota, whole=whole, margin=margin, now=now)

        await self.database.write(write)

    async def confirm_lease(self, order: JobSpec) -> None:
        """Make sure that a job is this process's, and stays so for long enough that what is sent now has arrived.

        A process that was paused since it wrote down what it sends has perhaps lost the job. Raises LeaseLost,
        LedgerDown.
        """
        while not self.processes.sure:
            await self.processes.heartbeat()
            await self.database.write(lambda connection: self._claims.own(connection, order))

    async def submitted(self, attempt: str, handle: Handle, at: float) -> None:
        """Write down that a provider has taken a job.

        Raises LedgerDown: then it is written as soon as it can be; and Claimed where another attempt has that job.
        """
        try:
            await self._surely(taken(self.process, attempt, handle, at))
        except IntegrityError as error:
            raise UpstreamJobClaimed from error

    def held(self, attempt: str, handle: Handle, at: float) -> None:
        """Write down that a provider has taken a job which is held open by this process; nobody waits for it."""
        self.database.later(taken(self.process, attempt, handle, at))

    def succeeded(self, attempt: str, handle: Handle) -> None:
        """Write down that a provider says a job has succeeded, and is only to be fetched; nobody waits for it."""
        values = {"this": attempt, "handle": handle_to_json(succeeded(handle))}
        self.database.later(lambda connection: connection.execute(SET_ATTEMPT, values))

    def attempts_ended(self, order: JobSpec, attempts: Sequence[AttemptRow]) -> None:
        """Write down how attempts ended, while the job goes on; nobody waits for it."""

        def write(connection: Connection) -> None:
            try:
                self._claims.own(connection, order)
            except LeaseLost:
                if not keep(connection, order.id, attempts, self._clock()):
                    raise
                return
            for attempt in attempts:
                save(connection, attempt)

        self.database.later(write)

    async def ended(self, order: JobSpec, attempts: Sequence[AttemptRow], end: JobEnd) -> JobRow | None:
        """Write down how a job ended, before anybody is told; the job where it ended better than that, for another
        process had a picture for it, else None.

        Raises LedgerDown (it is then written as soon as it can be), and Superseded where it is another process's and
        there is no picture; with one it is written down all the same.
        """
        at = self._clock()

        values = {
            "this": order.id,
            "by": self.process,
            "state": end.state,
            "cost": end.cost,
            "result": end.result,
            "error": end.error,
            "ended_at": at,
            "owner": None,
            "reached": 1.0 if end.state == "completed" else None,
        }

        def write(connection: Connection) -> JobRow | None:
            held = connection.execute(END_OWN_JOB, values).first()
            if held is None:
                # It ended before anything was written of it, or is another process's by now.
                try:
                    self._claims.own(connection, order)
                except LeaseLost:
                    if not keep(connection, order.id, attempts, at):
                        raise
                    return None
                held = connection.execute(END_OWN_JOB, values).one()
            for attempt in attempts:
                save(connection, attempt)
            if held.charged_to is not None:
                settle(connection, order.id, order.key, held.charged, held.charged_to, end.cost)
            whole = end.state == "completed" and len((end.result or {}).get("pictures", ())) >= order.wanted
            better = None if whole else gather(connection, order.id, at)
            if end.deliveries and better is None:
                connection.execute(insert(DELIVERIES), list(end.deliveries))
            return better

        if order.webhook_url is not None:
            self.messages_ready.set()
        return await self._surely(write)

    def progressed(self, job: str, share: float, deliveries: Sequence[Json] = ()) -> None:
        """Write down how much of a job is done; nobody waits for it."""

        def write(connection: Connection) -> None:
            values = {"this": job, "by": self.process, "progress": share}
            if connection.execute(SET_OWN_JOB, values).rowcount and deliveries:
                connection.execute(insert(DELIVERIES), list(deliveries))

        self.database.later(write)
        if deliveries:
            self.messages_ready.set()

    def left(self, job: str, *, delivered: bool) -> None:
        """Write down that the caller who waited here is gone, with the whole answer or without it."""
        values: Json = {"this": job, "by": self.process, "caller": None}
        if delivered:
            values["delivered_at"] = self._clock()
        self.database.later(lambda connection: connection.execute(SET_AWAITED_JOB, values))

    def release(self, job: str) -> None:
        """Let another process take a job at once."""
        values = {"this": job, "by": self.process, "owner": None}
        self.database.later(lambda connection: connection.execute(SET_OWN_JOB, values))

    async def heard(self, attempt: str, name: str | None) -> AttemptRow | None:
        """Keep the provider's id of a job, as a webhook told it; the attempt, None where there is none. LedgerDown."""

        def write(connection: Connection) -> AttemptRow | None:
            silent = and_(ATTEMPTS.c.id == attempt, ATTEMPTS.c.heard.is_(None))
            connection.execute(update(ATTEMPTS).where(silent).values(heard=name))
            return _attempt(connection, attempt)

        found = await self.attempt(attempt)
        if found is None or name is None or found.heard is not None or found.handle is not None:
            return found
        return await self.database.write(write)

    async def attempt(self, attempt: str) -> AttemptRow | None:
        """An attempt by its id. Raises LedgerDown."""
        return await self.database.read(lambda connection: _attempt(connection, attempt))

    async def ask_to_cancel(self, job: str) -> None:
        """Ask whichever process works on a job to cancel it. Raises LedgerDown."""
        going = and_(JOBS.c.id == job, JOBS.c.state.in_(OPEN))
        asked = update(JOBS).where(going).values(cancel_asked=True)
        await self.database.write(lambda connection: connection.execute(asked))

    async def cancels(self, jobs: Collection[str]) -> list[str]:
        """Those of this process's jobs that somebody asked to cancel. Raises LedgerDown."""
        asked = select(JOBS.c.id).where(JOBS.c.id.in_(jobs), JOBS.c.cancel_asked)
        return await self.database.read(lambda connection: list(connection.execute(asked).scalars()))

    async def read(self, job: str) -> JobRow | None:
        """A job by its id. Raises LedgerDown."""

        def find(connection: Connection) -> JobRow | None:
            row = connection.execute(JOB, {"this": job}).first()
            return job_of(row) if row else None

        return await self.database.read(find)

    async def attempts(self, job: str) -> list[AttemptRow]:
        """A job's attempts in the order in which they were made. Raises LedgerDown."""
        wanted = select(ATTEMPTS).where(ATTEMPTS.c.job == job).order_by(ATTEMPTS.c.sent_at, ATTEMPTS.c.id)
        return await self.database.read(lambda c: [attempt_of(row) for row in c.execute(wanted)])

    async def others(self, attempt: AttemptRow) -> frozenset[str]:
        """The ids of the jobs at an attempt's provider that are other attempts', of about its time. LedgerDown."""
        around = ATTEMPTS.c.sent_at.between(attempt.sent_at - _AROUND_S, attempt.sent_at + _AROUND_S)
        there = and_(ATTEMPTS.c.provider == attempt.provider, around, ATTEMPTS.c.id != attempt.id)
        wanted = select(ATTEMPTS.c.upstream_id).where(there, ATTEMPTS.c.upstream_id.is_not(None))
        return await self.database.read(lambda connection: frozenset(connection.execute(wanted).scalars()))

    async def adopt_orphans(self, limit: int) -> list[JobRow]:
        """Take over jobs that nobody works on any more. Raises LedgerDown."""

        def take(connection: Connection) -> list[JobRow]:
            taken: list[JobRow] = []
            wanted = select(JOBS).where(
                JOBS.c.state.in_(OPEN), or_(JOBS.c.owner.is_(None), JOBS.c.owner != self.process)
            )
            for row in connection.execute(wanted.order_by(JOBS.c.created_at)):
                if len(taken) < limit and (row.owner is None or self.processes.gone(connection, row.owner)):
                    same = JOBS.c.owner.is_(None) if row.owner is None else JOBS.c.owner == row.owner
                    # A process that leaves in good order lets go of its jobs first.
                    kills = row.kills + (row.owner is not None)
                    mine = update(JOBS).where(JOBS.c.id == row.id, same).values(owner=self.process, kills=kills)
                    if connection.execute(mine).rowcount:
                        taken.append(replace(job_of(row), kills=kills))
            return taken

        return await self.database.write(take)

    async def own(self) -> list[str]:
        """The ids of the jobs that are this process's and go on. Raises LedgerDown."""
        mine = select(JOBS.c.id).where(JOBS.c.state.in_(OPEN), JOBS.c.owner == self.process)
        return await self.database.read(lambda connection: list(connection.execute(mine).scalars()))

    async def reopen(self, job: str) -> bool:
        """Take a job whose outcome is unknown up again; false where it is not one, or somebody did so before.

        Raises LedgerDown.
        """

        def take(connection: Connection) -> bool:
            lost = select(ATTEMPTS.c.id).where(ATTEMPTS.c.job == job, ATTEMPTS.c.state == "unknown")
            going = update(JOBS).where(JOBS.c.id == job, JOBS.c.state.in_(("failed", "completed")), lost.exists())
            values = {"state": "in_progress", "owner": self.process, "error": None, "ended_at": None}
            return bool(connection.execute(going.values(values)).rowcount)

        return await self.database.write(take)

    async def _surely(self, operation: Callable[[Connection], T]) -> T:
        """Write something that has happened and must not be forgotten. Raises LedgerDown, and goes on trying."""
        try:
            return await self.database.write(operation)
        except LedgerDown:
            self.database.later(operation)
            raise


def _attempt(connection: Connection, attempt: str) -> AttemptRow | None:
    row = connection.execute(ATTEMPT, {"this": attempt}).first()
    return attempt_of(row) if row else None
