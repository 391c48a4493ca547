"""The ledger: the durable record of jobs and attempts. Every step is written before it takes effect.

The writes of one provider call in order, and the situation after a crash that follows each:

    accepted    the job exists, and no process works on it: nothing was bought
    submitting  the request may have been sent: the provider is asked whether it accepted the job
    submitted   the provider has the job: it is awaited
    ended       the images are stored: they are delivered
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
# The largest difference between the submit times of attempts that may be confused with each other at a provider, in
# seconds: this machine's clock may have been wrong by a day.
_AROUND_S = 25 * 3600.0


class UpstreamJobClaimed(Exception):
    """The provider's job belongs to another attempt: the search for a lost job found the wrong one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """The end of a job. `deliveries` are rows of webhooks to send."""

    state: str
    cost: int
    result: Json | None = None
    error: Json | None = None
    deliveries: Sequence[Json] = ()


class Ledger:
    """The jobs and attempts of all processes, written by this one. `clock` is the wall clock, in seconds."""

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
        """Set whenever messages are queued: a write that follows the event comes after them."""
        self._clock = clock
        self._claims = Claims(processes, key_ttl_s=key_ttl_s, join_window_s=join_window_s, clock=self._now)

    @property
    def up(self) -> bool:
        """Whether the last write and the last heartbeat succeeded, and no write is pending."""
        return self.database.up and self.processes.renewed

    def _now(self) -> float:
        return self._clock()

    async def accept(self, order: JobSpec) -> JobRow | None:
        """Record a new job and return None, or return the job that already has its idempotency key.

        Raises IdempotencyKeyReused if that job was for another request, and LedgerDown.
        """
        return await self.database.write(lambda connection: self._claims.accept(connection, order))

    async def lookup(self, order: JobSpec) -> JobRow | None:
        """The job with the same idempotency key; None if the job would be new. Raises the errors of `accept`."""

        def find(connection: Connection) -> JobRow | None:
            same = and_(JOBS.c.key == order.key, JOBS.c.idempotency_key == order.idempotency_key)
            row = connection.execute(select(JOBS).where(same)).first()
            found = job_of(row) if row else None
            return found if found is not None and not self._claims.may_run_again(found, order) else None

        return await self.database.read(find)

    async def match(self, order: JobSpec, retry: int) -> JobMatches:
        """Join an equal job of which this call is the SDK's retry number `retry`, and that no live client waits for.

        Raises LedgerDown.
        """
        return await self.database.write(lambda connection: self._claims.match(connection, order, retry))

    async def sending(
        self, order: JobSpec, attempt: AttemptRow, ended: Sequence[AttemptRow], *, first: bool = False
    ) -> None:
        """Record a billable request before it is sent.

        `ended` are earlier attempts whose end is not written yet; `first` says that the job is probably not recorded
        so far. Raises LeaseLost, LedgerDown, and QuotaExceeded if the key's limits do not allow it: then nothing is
        written, and nothing may be sent.
        """

        def write(connection: Connection) -> None:
            self._claims.own(connection, order, new=first)
            for old in ended:
                save(connection, old)
            values = attempt_values(attempt)
            if connection.execute(unless_there(connection, ATTEMPTS), values).first() is None:
                # Sent again with another provider key after a response that certainly bought nothing: charged already.
                connection.execute(SET_ATTEMPT, {"this": attempt.id, "sent": values["sent"]})
            elif order.quota is not None:
                whole = max(order.estimate, order.reserve, attempt.estimate, attempt.reserve)
                margin = max(0, attempt.reserve - attempt.estimate)
                now = self._clock()
                reserve(connection, order.id, order.key, order.quota, whole=whole, margin=margin, now=now)

        await self.database.write(write)

    async def confirm_lease(self, order: JobSpec) -> None:
        """Make sure that this process owns a job, and will for long enough that a request sent now arrives.

        A process that was paused after `sending` may have lost the job. Raises LeaseLost, LedgerDown.
        """
        while not self.processes.sure:
            await self.processes.heartbeat()
            await self.database.write(lambda connection: self._claims.own(connection, order))

    async def submitted(self, attempt: str, handle: Handle, at: float) -> None:
        """Record that a provider accepted a job.

        Raises LedgerDown, then the write is retried in the background; and UpstreamJobClaimed if the job belongs to
        another attempt.
        """
        try:
            await self._write_durably(taken(self.process, attempt, handle, at))
        except IntegrityError as error:
            raise UpstreamJobClaimed from error

    def held(self, attempt: str, handle: Handle, at: float) -> None:
        """Record in the background that a provider accepted a job that lives in a connection of this process."""
        self.database.write_behind(taken(self.process, attempt, handle, at))

    def succeeded(self, attempt: str, handle: Handle) -> None:
        """Record in the background that a provider reported success: the result only has to be downloaded."""
        values = {"this": attempt, "handle": handle_to_json(succeeded(handle))}
        self.database.write_behind(lambda connection: connection.execute(SET_ATTEMPT, values))

    def attempts_ended(self, order: JobSpec, attempts: Sequence[AttemptRow]) -> None:
        """Record in the background the ends of attempts of a job that is still running."""

        def write(connection: Connection) -> None:
            try:
                self._claims.own(connection, order)
            except LeaseLost:
                if not keep(connection, order.id, attempts, self._clock()):
                    raise
                return
            for attempt in attempts:
                save(connection, attempt)

        self.database.write_behind(write)

    async def ended(self, order: JobSpec, attempts: Sequence[AttemptRow], end: JobEnd) -> JobRow | None:
        """Record the end of a job before it is reported; return the job if another process has recorded a better
        result, else None.

        Raises LedgerDown, then the write is retried in the background; and LeaseLost if another process owns the job
        and `attempts` have no images; their images are recorded in any case.
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
                # The job was not recorded before, or another process owns it now.
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
        return await self._write_durably(write)

    def progressed(self, job: str, share: float, deliveries: Sequence[Json] = ()) -> None:
        """Record in the background the progress of a job, from 0 to 1."""

        def write(connection: Connection) -> None:
            values = {"this": job, "by": self.process, "progress": share}
            if connection.execute(SET_OWN_JOB, values).rowcount and deliveries:
                connection.execute(insert(DELIVERIES), list(deliveries))

        self.database.write_behind(write)
        if deliveries:
            self.messages_ready.set()

    def left(self, job: str, *, delivered: bool) -> None:
        """Record in the background that the waiting client has left, with the whole response `delivered` or not."""
        values: Json = {"this": job, "by": self.process, "caller": None}
        if delivered:
            values["delivered_at"] = self._clock()
        self.database.write_behind(lambda connection: connection.execute(SET_AWAITED_JOB, values))

    def release(self, job: str) -> None:
        """Give up the ownership of a job, so that another process can adopt it at once."""
        values = {"this": job, "by": self.process, "owner": None}
        self.database.write_behind(lambda connection: connection.execute(SET_OWN_JOB, values))

    async def record_upstream_id(self, attempt: str, name: str | None) -> AttemptRow | None:
        """Record the provider's job id from a webhook; return the attempt, None if it is unknown. Raises LedgerDown."""

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
        """Ask the process that owns a job to cancel it. Raises LedgerDown."""
        going = and_(JOBS.c.id == job, JOBS.c.state.in_(OPEN))
        asked = update(JOBS).where(going).values(cancel_asked=True)
        await self.database.write(lambda connection: connection.execute(asked))

    async def cancels(self, jobs: Collection[str]) -> list[str]:
        """The ids of those `jobs` for which a cancellation was requested. Raises LedgerDown."""
        asked = select(JOBS.c.id).where(JOBS.c.id.in_(jobs), JOBS.c.cancel_asked)
        return await self.database.read(lambda connection: list(connection.execute(asked).scalars()))

    async def read(self, job: str) -> JobRow | None:
        """A job by its id. Raises LedgerDown."""

        def find(connection: Connection) -> JobRow | None:
            row = connection.execute(JOB, {"this": job}).first()
            return job_of(row) if row else None

        return await self.database.read(find)

    async def attempts(self, job: str) -> list[AttemptRow]:
        """A job's attempts in the order of their submits. Raises LedgerDown."""
        wanted = select(ATTEMPTS).where(ATTEMPTS.c.job == job).order_by(ATTEMPTS.c.sent_at, ATTEMPTS.c.id)
        return await self.database.read(lambda c: [attempt_of(row) for row in c.execute(wanted)])

    async def others(self, attempt: AttemptRow) -> frozenset[str]:
        """The ids of the provider's jobs that belong to other attempts of about that time. Raises LedgerDown."""
        around = ATTEMPTS.c.sent_at.between(attempt.sent_at - _AROUND_S, attempt.sent_at + _AROUND_S)
        there = and_(ATTEMPTS.c.provider == attempt.provider, around, ATTEMPTS.c.id != attempt.id)
        wanted = select(ATTEMPTS.c.upstream_id).where(there, ATTEMPTS.c.upstream_id.is_not(None))
        return await self.database.read(lambda connection: frozenset(connection.execute(wanted).scalars()))

    async def adopt_orphans(self, limit: int) -> list[JobRow]:
        """Adopt up to `limit` jobs that no process works on. Raises LedgerDown."""

        def take(connection: Connection) -> list[JobRow]:
            taken: list[JobRow] = []
            wanted = select(JOBS).where(
                JOBS.c.state.in_(OPEN), or_(JOBS.c.owner.is_(None), JOBS.c.owner != self.process)
            )
            for row in connection.execute(wanted.order_by(JOBS.c.created_at)):
                if len(taken) < limit and (row.owner is None or self.processes.is_dead(connection, row.owner)):
                    same = JOBS.c.owner.is_(None) if row.owner is None else JOBS.c.owner == row.owner
                    # A process that shuts down properly releases its jobs first.
                    kills = row.kills + (row.owner is not None)
                    mine = update(JOBS).where(JOBS.c.id == row.id, same).values(owner=self.process, kills=kills)
                    if connection.execute(mine).rowcount:
                        taken.append(replace(job_of(row), kills=kills))
            return taken

        return await self.database.write(take)

    async def own(self) -> list[str]:
        """The ids of the unfinished jobs that this process owns. Raises LedgerDown."""
        mine = select(JOBS.c.id).where(JOBS.c.state.in_(OPEN), JOBS.c.owner == self.process)
        return await self.database.read(lambda connection: list(connection.execute(mine).scalars()))

    async def reopen(self, job: str) -> bool:
        """Reopen a job with an attempt of unknown outcome; false if it has none or was reopened already.

        Raises LedgerDown.
        """

        def take(connection: Connection) -> bool:
            lost = select(ATTEMPTS.c.id).where(ATTEMPTS.c.job == job, ATTEMPTS.c.state == "unknown")
            going = update(JOBS).where(JOBS.c.id == job, JOBS.c.state.in_(("failed", "completed")), lost.exists())
            values = {"state": "in_progress", "owner": self.process, "error": None, "ended_at": None}
            return bool(connection.execute(going.values(values)).rowcount)

        return await self.database.write(take)

    async def _write_durably(self, operation: Callable[[Connection], T]) -> T:
        """Write a fact that must not be lost. Raises LedgerDown, and retries in the background."""
        try:
            return await self.database.write(operation)
        except LedgerDown:
            self.database.write_behind(operation)
            raise


def _attempt(connection: Connection, attempt: str) -> AttemptRow | None:
    row = connection.execute(ATTEMPT, {"this": attempt}).first()
    return attempt_of(row) if row else None
