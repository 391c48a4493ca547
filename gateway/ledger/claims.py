"""Claims: which job a call is, new or repeated, and which process works on it. SQL over one connection.

A repeated call is known by its idempotency key, or, without one, by its fingerprint and time.
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

# How often a job is inserted that others insert, retire or forget at the same moment.
_TURNS = 50


class IdempotencyKeyReused(Exception):
    """The idempotency key was used for another request."""


class LeaseLost(Exception):
    """Another process works on the job: this one had not been heard of for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMatches:
    """What a repeated call without a key found: the job that it joined, or the processes whose callers wait for jobs
    like it, and have to be seen alive before another one is bought."""

    joined: JobRow | None = None
    waiting: frozenset[str] = frozenset()


class Claims:
    """Claims of the jobs of one process. Times in seconds by `clock`, the wall's."""

    def __init__(
        self, processes: Leases, *, key_ttl_s: float, join_window_s: float, clock: Callable[[], float]
    ) -> None:
        self.processes = processes
        self.process = processes.id
        self._key_ttl_s = key_ttl_s
        self._join_window_s = join_window_s
        self._clock = clock

    def accept(self, connection: Connection, order: JobSpec) -> JobRow | None:
        """Insert a job, or find the one it repeats; None where it is new. Raises IdempotencyKeyReused, LedgerDown."""
        if order.idempotency_key is None and (other := self._overtaken(connection, order)) is not None:
            return other
        # A background job's caller is gone as soon as it is accepted.
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
        """Insert a job, or find and lock the one that has its idempotency key. Raises LedgerDown."""
        same = JOBS.c.id == order.id
        if order.idempotency_key is not None:
            same = or_(same, and_(JOBS.c.key == order.key, JOBS.c.idempotency_key == order.idempotency_key))
        for _ in range(_TURNS):
            # Two processes that do so at once are told apart by the unique index.
            if connection.execute(unless_there(connection, JOBS), values).first() is not None:
                return None
            # The one that stood in the way may have lost its key to a third since, or be forgotten: then once more.
            if (row := connection.execute(select(JOBS).where(same).with_for_update()).first()) is not None:
                # Its own row is from a try whose commit was made and whose answer was lost.
                return None if row.id == order.id else job_of(row)
        raise LedgerDown("too many concurrent calls with the same idempotency key")

    def may_run_again(self, found: JobRow, order: JobSpec) -> bool:
        """Whether a key's job does not stand in the way of another one. Raises IdempotencyKeyReused."""
        old = found.order.created_at < self._clock() - ahead() - self._key_ttl_s
        if not old and found.order.fingerprint != order.fingerprint:
            raise IdempotencyKeyReused
        return old or found.spent_nothing

    def _new(self, order: JobSpec, caller: str | None, state: str = "queued") -> Json:
        return job_values(order, state=state, owner=self.process, caller=caller)

    def match(self, connection: Connection, order: JobSpec, retry: int) -> JobMatches:
        """Join a job of which this call is an SDK's repetition number `retry`: one that no living client waits for."""
        alike = (
            select(JOBS)
            .where(
                JOBS.c.key == order.key,
                JOBS.c.fingerprint == order.fingerprint,
                # So written that no index of keys is taken for it, in which most jobs are alike.
                func.coalesce(JOBS.c.idempotency_key, "") == "",
                JOBS.c.created_at > self._clock() - ahead() - self._join_window_s,
            )
            # First what nobody has had yet, then what has been asked for as often as this caller has asked.
            .order_by(JOBS.c.delivered_at.is_not(None), func.abs(JOBS.c.joins - (retry - 1)), JOBS.c.created_at)
            .with_for_update()
        )
        waiting = set()
        for row in connection.execute(alike).all():
            found = job_of(row)
            if found.spent_nothing:
                continue
            if found.caller is not None and not self.processes.silent(connection, found.caller):
                waiting.add(found.caller)
                continue
            caller = None if order.mode == "background" else self.process
            mine = update(JOBS).where(JOBS.c.id == row.id).values(caller=caller, joins=JOBS.c.joins + 1)
            connection.execute(mine)
            return JobMatches(joined=found)
        return JobMatches(waiting=frozenset(waiting))

    def _overtaken(self, connection: Connection, order: JobSpec) -> JobRow | None:
        """The job of the same call, where that was repeated and another process was quicker with it.

        The caller may have given up on a request that had come, and was not written down yet: it holds for this one as
        for its repetition that what is written second joins what was written first.
        """
        if connection.execute(JOB_IS_THERE, {"this": order.id}).first() is not None:
            # From a try whose commit was made and whose answer was lost.
            return None
        if connection.dialect.name == "postgresql":
            # SQLite has one writer at a time by itself.
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
        """Make sure that the job is there, this process's and going on. Raises LeaseLost.

        With `new` it is inserted without a look whether it is there, if it can be.
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
