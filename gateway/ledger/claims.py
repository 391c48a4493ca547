"""Claims: whether a call starts a new job or repeats one, and which process owns the job. SQL over one connection.

A repeated call is recognised by its idempotency key, or, without one, by its fingerprint and time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, or_, select, update

from gateway.database.schema import JOBS
from gateway.database.writer import LedgerDown
from gateway.ledger.leases import Leases
from gateway.ledger.records import JobRow, JobSpec, Json
from gateway.ledger.statements import (
    JOB_IS_THERE,
    NEW_JOB,
    SET_OWN_JOB,
    job_of,
    job_values,
    unless_there,
)
from gateway.process import ahead

# How often an insert is tried while others insert, retire or delete the same job.
_TURNS = 50


class IdempotencyKeyReused(Exception):
    """The idempotency key was used for another request."""


class LeaseLost(Exception):
    """Another process owns the job: this one did not renew its lease in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMatches:
    """The matches of a repeated call without a key: the job that it joined, or the processes whose clients wait for
    equal jobs and have to be seen alive before another job is started."""

    joined: JobRow | None = None
    waiting: frozenset[str] = frozenset()


class Claims:
    """Claims jobs for one process. Times are in seconds by `clock`, the wall clock."""

    def __init__(
        self, processes: Leases, *, key_ttl_s: float, join_window_s: float, clock: Callable[[], float]
    ) -> None:
        self.processes = processes
        self.process = processes.id
        self._key_ttl_s = key_ttl_s
        self._join_window_s = join_window_s
        self._clock = clock

    def accept(self, connection: Connection, order: JobSpec) -> JobRow | None:
        """Insert a job and return None, or return the one it repeats. Raises IdempotencyKeyReused, LedgerDown."""
        if order.idempotency_key is None and (other := self._overtaken(connection, order)) is not None:
            return other
        # The client of a background job does not wait for it.
        caller = None if order.mode == "background" else self.process
        found = self._insert_or_find(connection, order, self._new(order, caller))
        if found is None:
            return None
        if self.may_run_again(found, order):
            retired = update(JOBS).where(JOBS.c.id == found.order.id)
            connection.execute(retired.values(idempotency_key=None))
            connection.execute(NEW_JOB, self._new(order, caller))
            return None
        if caller is not None:
            connection.execute(update(JOBS).where(JOBS.c.id == found.order.id).values(caller=caller))
        return found

    def _insert_or_find(self, connection: Connection, order: JobSpec, values: Json) -> JobRow | None:
        """Insert a job and return None, or lock and return the one with its idempotency key. Raises LedgerDown."""
        same = JOBS.c.id == order.id
        if order.idempotency_key is not None:
            same = or_(same, and_(JOBS.c.key == order.key, JOBS.c.idempotency_key == order.idempotency_key))
        for _ in range(_TURNS):
            # The unique index decides between two processes that insert at once.
            if connection.execute(unless_there(connection, JOBS), values).first() is not None:
                return None
            # The conflicting job may have lost its key or been deleted since: then try again.
            if (row := connection.execute(select(JOBS).where(same).with_for_update()).first()) is not None:
                # Its own row is from an earlier attempt that was committed without a confirmation.
                return None if row.id == order.id else job_of(row)
        raise LedgerDown("too many concurrent calls with the same idempotency key")

    def may_run_again(self, found: JobRow, order: JobSpec) -> bool:
        """Whether a new job may reuse the key of this job. Raises IdempotencyKeyReused."""
        old = found.order.created_at < self._clock() - ahead() - self._key_ttl_s
        if not old and found.order.fingerprint != order.fingerprint:
            raise IdempotencyKeyReused
        return old or found.spent_nothing

    def _new(self, order: JobSpec, caller: str | None, state: str = "queued") -> Json:
        return job_values(order, state=state, owner=self.process, caller=caller)

    def match(self, connection: Connection, order: JobSpec, retry: int) -> JobMatches:
        """Join an equal job of which this call is the SDK's retry number `retry`, and that no live client waits for."""
        alike = (
            select(JOBS)
            .where(
                JOBS.c.key == order.key,
                JOBS.c.fingerprint == order.fingerprint,
                # `coalesce` keeps the query planner from the index of keys, where most jobs have no key.
                func.coalesce(JOBS.c.idempotency_key, "") == "",
                JOBS.c.created_at > self._clock() - ahead() - self._join_window_s,
            )
            # First results that were not delivered yet, then jobs that were requested as often as this one.
            .order_by(JOBS.c.delivered_at.is_not(None), func.abs(JOBS.c.joins - (retry - 1)), JOBS.c.created_at)
            .with_for_update()
        )
        waiting = set()
        for row in connection.execute(alike).all():
            found = job_of(row)
            if found.spent_nothing:
                continue
            if found.caller is not None and not self.processes.is_silent(connection, found.caller):
                waiting.add(found.caller)
                continue
            caller = None if order.mode == "background" else self.process
            mine = update(JOBS).where(JOBS.c.id == row.id).values(caller=caller, joins=JOBS.c.joins + 1)
            connection.execute(mine)
            return JobMatches(joined=found)
        return JobMatches(waiting=frozenset(waiting))

    def _overtaken(self, connection: Connection, order: JobSpec) -> JobRow | None:
        """The job of a retry of this call that another process recorded first, else None.

        A client may time out and retry before its first request is recorded. Whichever of the two is recorded second
        joins the first.
        """
        if connection.execute(JOB_IS_THERE, {"this": order.id}).first() is not None:
            # From an earlier attempt that was committed without a confirmation.
            return None
        if connection.dialect.name == "postgresql":
            # SQLite allows only one writer at a time.
            of_both = func.hashtextextended(order.key + order.fingerprint, 0)
            connection.execute(select(func.pg_advisory_xact_lock(of_both)))
        if order.retry > 0 and (found := self.match(connection, order, order.retry).joined) is not None:
            return found
        later = (
            select(JOBS)
            .where(
                JOBS.c.key == order.key,
                JOBS.c.fingerprint == order.fingerprint,
                func.coalesce(JOBS.c.idempotency_key, "") == "",
                JOBS.c.created_at > order.arrived_at,
                JOBS.c.retry > order.retry,
            )
            .order_by(JOBS.c.created_at)
            .limit(1)
        )
        row = connection.execute(later).first()
        found = job_of(row) if row else None
        return None if found is None or found.spent_nothing else found

    def own(self, connection: Connection, order: JobSpec, *, new: bool = False) -> None:
        """Make sure that the job exists, is owned by this process and is in progress. Raises LeaseLost.

        With `new` an insert is tried first.
        """
        caller = None if order.mode == "background" else self.process
        values = self._new(order, caller, "in_progress")
        if new and connection.execute(unless_there(connection, JOBS), values).first() is not None:
            return
        if connection.execute(SET_OWN_JOB, {"this": order.id, "by": self.process, "state": "in_progress"}).rowcount:
            return
        if connection.execute(JOB_IS_THERE, {"this": order.id}).first() is not None:
            raise LeaseLost
        connection.execute(NEW_JOB, values)
