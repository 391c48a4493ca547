"""Queries on the ledger: lists of jobs, costs by provider, model, key or day; and the purge of old rows."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, case, cast, delete, func, not_, or_, select, update

from gateway.database.schema import ATTEMPTS, DELIVERIES, JOBS
from gateway.database.writer import Database, LedgerDown
from gateway.ledger.records import AttemptRow, JobRow
from gateway.ledger.statements import attempt_of, job_of
from gateway.ledger.store import OPEN
from gateway.process import ahead

By = Literal["provider", "model", "key", "day"]
_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTotals:
    """The costs of one provider, model, key or day (UTC), in micro-dollars.

    `estimated` is the part of `cost` that no provider has confirmed, `lost` that of attempts without an image.
    """

    name: str
    jobs: int
    attempts: int
    cost: int
    estimated: int
    lost: int


def spent(connection: Connection, by: By, since: float | None) -> list[CostTotals]:
    """The totals of the attempts since a time (seconds since the epoch): days in order, others by falling cost."""
    group = _group(connection, by)
    cost: Any = func.sum(ATTEMPTS.c.cost)
    sums = (
        select(
            group.label("grouped"),
            func.count(ATTEMPTS.c.job.distinct()),
            func.count(),
            cost,
            func.sum(case((ATTEMPTS.c.actual, 0), else_=ATTEMPTS.c.cost)),
            func.sum(case((ATTEMPTS.c.outcome == "ok", 0), else_=ATTEMPTS.c.cost)),
        )
        .select_from(ATTEMPTS.join(JOBS, ATTEMPTS.c.job == JOBS.c.id))
        .group_by("grouped")
        .order_by(*(["grouped"] if by == "day" else [cost.desc(), "grouped"]))
    )
    if since is not None:
        sums = sums.where(ATTEMPTS.c.sent_at >= since)
    return [
        CostTotals(
            name=_name(by, row[0]),
            jobs=int(row[1]),
            attempts=int(row[2]),
            cost=int(row[3]),
            estimated=int(row[4]),
            lost=int(row[5]),
        )
        for row in connection.execute(sums)
    ]  # fmt: skip


def _group(connection: Connection, by: By) -> ColumnElement[Any]:
    if by == "day":
        # A cast truncates in SQLite and rounds in Postgres.
        sqlite = connection.dialect.name == "sqlite"
        second = cast(ATTEMPTS.c.sent_at if sqlite else func.floor(ATTEMPTS.c.sent_at), BigInteger)
        return second - second % _DAY_S
    columns: dict[str, ColumnElement[Any]] = {
        "provider": ATTEMPTS.c.provider,
        "model": JOBS.c.model,
        "key": JOBS.c.key,
    }
    return columns[by]


def _name(by: By, value: object) -> str:
    return datetime.fromtimestamp(int(str(value)), UTC).date().isoformat() if by == "day" else str(value)


__all__ = [
    "JobFilter",
    "JobPage",
    "JobReport",
    "NoSuchCursor",
    "Reports",
    "Summary",
    "blank_some",
    "forget_some",
    "in_force",
    "left_from",
    "read_one",
    "read_page",
]

_PURGE_S = 600.0
# How many jobs are deleted in one transaction: other writes must not wait for long.
_AT_ONCE = 500


class NoSuchCursor(Exception):
    """The list has no entry with the id of the cursor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """A filter of jobs. Times are in seconds since the epoch; `before` is exclusive.

    `scope` is the only key whose jobs are visible to the client, `key` the requested one.
    """

    scope: str | None = None
    key: str | None = None
    model: str | None = None
    provider: str | None = None
    state: str | None = None
    since: float | None = None
    before: float | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        found = self.scoped()
        for column, value in ((JOBS.c.key, self.key), (JOBS.c.model, self.model), (JOBS.c.state, self.state)):
            if value is not None:
                found.append(column == value)
        if self.since is not None:
            found.append(JOBS.c.created_at >= self.since)
        if self.before is not None:
            found.append(JOBS.c.created_at < self.before)
        if self.provider is not None:
            there = select(ATTEMPTS.c.id).where(ATTEMPTS.c.job == JOBS.c.id, ATTEMPTS.c.provider == self.provider)
            # Explicit, because a sum over attempts already has ATTEMPTS in its FROM clause.
            found.append(there.correlate(JOBS).exists())
        return found

    def scoped(self) -> list[ColumnElement[bool]]:
        """The visibility condition as SQL."""
        return [] if self.scope is None else [JOBS.c.key == self.scope]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """A job with its attempts."""

    job: JobRow
    attempts: tuple[AttemptRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One page of a list, the newest jobs first."""

    entries: Sequence[JobReport]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The number of jobs, their cost in micro-dollars, and both for the attempts at each provider."""

    count: int
    cost: int
    by_provider: dict[str, tuple[int, int]]


class Reports:
    """Reads and purges the ledger. All methods raise LedgerDown. `clock` is the wall clock, in seconds.

    Jobs that a repeated call may still join are not purged: a job with an idempotency key for `key_ttl_s` seconds after
    its start, one without for `join_window_s`.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        *,
        key_ttl_s: float = 0.0,
        join_window_s: float = 0.0,
    ) -> None:
        self._database = database
        self._clock = clock
        self._key_ttl_s = key_ttl_s
        self._join_window_s = join_window_s

    async def page(self, wanted: JobFilter, *, after: str | None, limit: int) -> JobPage:
        """The jobs after the one with this id, the newest first. Raises NoSuchCursor."""
        return await self._database.read(lambda connection: read_page(connection, wanted, after, limit))

    async def one(self, job: str) -> JobReport | None:
        """One job by its id."""
        return await self._database.read(lambda connection: read_one(connection, job))

    async def summary(self, wanted: JobFilter) -> Summary:
        """Sums over the jobs of a filter."""
        return await self._database.read(lambda connection: _summary(connection, wanted))

    async def forget_payload(self, job: str) -> None:
        """Delete the parameters of an ended job, including the prompt. Its attempts and costs stay."""
        await self._database.write(lambda connection: _blank(connection, [job]))

    async def purge(self, ttl_s: float, parameters_ttl_s: float) -> None:
        """Delete jobs that ended `ttl_s` seconds ago, and the parameters of those older than `parameters_ttl_s`."""
        now = self._clock() - ahead()
        kept = in_force(now - self._key_ttl_s, now - self._join_window_s)
        await self._bit_by_bit(and_(_ended_before(now - ttl_s), not_(kept)), _drop)
        await self._bit_by_bit(and_(_ended_before(now - parameters_ttl_s), _has_payload()), _blank)

    async def purge_for_ever(self, ttl_s: float, parameters_ttl_s: float) -> None:
        """Purge periodically, until cancelled."""
        while True:
            with contextlib.suppress(LedgerDown):  # the next purge tries again
                await self.purge(ttl_s, parameters_ttl_s)
            await asyncio.sleep(min(_PURGE_S, ttl_s, parameters_ttl_s))

    async def _bit_by_bit(self, wanted: ColumnElement[bool], change: Callable[..., None]) -> None:
        """Apply `change` to all matching jobs in small batches, so that other writes do not wait."""
        some = select(JOBS.c.id).where(wanted).limit(_AT_ONCE)
        while found := await self._database.read(lambda connection: list(connection.execute(some).scalars())):
            await self._database.write(partial(change, jobs=found))


def read_page(connection: Connection, wanted: JobFilter, after: str | None, limit: int) -> JobPage:
    """The jobs after the one with this id, the newest first. Raises NoSuchCursor."""
    conditions = wanted.conditions()
    if after is not None:
        # The cursor's job need not match the filter any more: it may have ended since.
        marked = select(JOBS.c.created_at).where(JOBS.c.id == after, *wanted.scoped())
        mark = connection.execute(marked).scalar()
        if mark is None:
            raise NoSuchCursor(after)
        conditions.append(or_(JOBS.c.created_at < mark, and_(JOBS.c.created_at == mark, JOBS.c.id < after)))
    newest = select(JOBS).where(*conditions).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(limit + 1)
    rows = [job_of(row) for row in connection.execute(newest)]
    return JobPage(entries=_with_attempts(connection, rows[:limit]), more=len(rows) > limit)


def read_one(connection: Connection, job: str) -> JobReport | None:
    """One job by its id."""
    row = connection.execute(select(JOBS).where(JOBS.c.id == job)).first()
    return _with_attempts(connection, [job_of(row)])[0] if row else None


def in_force(keys_since: float, calls_since: float = math.inf) -> ColumnElement[bool]:
    """The jobs that a repeated call would join: those with a key that started since `keys_since`, others since
    `calls_since`. Without its job a repeated call buys again."""
    keyed = and_(JOBS.c.idempotency_key.is_not(None), JOBS.c.created_at >= keys_since)
    if calls_since == math.inf:
        return keyed
    return or_(keyed, and_(JOBS.c.idempotency_key.is_(None), JOBS.c.created_at >= calls_since))


def forget_some(connection: Connection, before: float, kept: ColumnElement[bool]) -> int:
    """Delete a batch of the jobs that ended before a time, with their attempts, except those that are `kept`; return
    how many were found, 0 once all are deleted."""
    some = select(JOBS.c.id).where(_ended_before(before), not_(kept)).limit(_AT_ONCE)
    found = list(connection.execute(some).scalars())
    _drop(connection, found)
    return len(found)


def blank_some(connection: Connection, before: float) -> int:
    """Delete the parameters of a batch of jobs that ended before a time; return how many, 0 once all are done."""
    some = select(JOBS.c.id).where(_ended_before(before), _has_payload()).limit(_AT_ONCE)
    found = list(connection.execute(some).scalars())
    _blank(connection, found)
    return len(found)


def left_from(connection: Connection, before: float) -> int:
    """How many jobs that ended before a time still exist."""
    return int(connection.execute(select(func.count()).select_from(JOBS).where(_ended_before(before))).scalar_one())


def _ended_before(moment: float) -> ColumnElement[bool]:
    # Redundant, since no job ends before it starts, but the index is on `created_at`.
    began = JOBS.c.created_at < moment
    return and_(began, JOBS.c.ended_at < moment, JOBS.c.state.not_in(OPEN))


def _has_payload() -> ColumnElement[bool]:
    sent = select(ATTEMPTS.c.id).where(ATTEMPTS.c.job == JOBS.c.id, ATTEMPTS.c.sent.is_not(None))
    return or_(JOBS.c.params.is_not(None), JOBS.c.webhook_url.is_not(None), sent.exists())


def _drop(connection: Connection, jobs: Sequence[str]) -> None:
    connection.execute(delete(JOBS).where(JOBS.c.id.in_(jobs), JOBS.c.state.not_in(OPEN)))


def _blank(connection: Connection, jobs: Sequence[str]) -> None:
    ended = JOBS.c.id.in_(jobs), JOBS.c.state.not_in(OPEN)
    found = list(connection.execute(select(JOBS.c.id).where(*ended)).scalars())
    connection.execute(update(JOBS).where(JOBS.c.id.in_(found)).values(params=None, webhook_url=None))
    # The data stored to find a job at its provider may contain parameters, too.
    connection.execute(update(ATTEMPTS).where(ATTEMPTS.c.job.in_(found)).values(sent=None))
    told = DELIVERIES.c.job.in_(found), DELIVERIES.c.state != "pending"
    connection.execute(delete(DELIVERIES).where(*told))


def _with_attempts(connection: Connection, jobs: Sequence[JobRow]) -> list[JobReport]:
    wanted = select(ATTEMPTS).where(ATTEMPTS.c.job.in_([job.order.id for job in jobs]))
    found: dict[str, list[AttemptRow]] = {job.order.id: [] for job in jobs}
    for row in connection.execute(wanted.order_by(ATTEMPTS.c.sent_at, ATTEMPTS.c.id)):
        found[row.job].append(attempt_of(row))
    return [JobReport(job=job, attempts=tuple(found[job.order.id])) for job in jobs]


def _summary(connection: Connection, wanted: JobFilter) -> Summary:
    conditions = wanted.conditions()
    sums: Any = select(func.count(), func.coalesce(func.sum(JOBS.c.cost), 0)).where(*conditions)
    count, cost = connection.execute(sums).one()
    joined = ATTEMPTS.join(JOBS, ATTEMPTS.c.job == JOBS.c.id)
    only = [ATTEMPTS.c.provider == wanted.provider] if wanted.provider is not None else []
    each = (
        select(ATTEMPTS.c.provider, func.count(), func.coalesce(func.sum(ATTEMPTS.c.cost), 0))
        .select_from(joined)
        .where(*conditions, *only)
        .group_by(ATTEMPTS.c.provider)
    )
    by_provider = {name: (int(number), int(spent)) for name, number, spent in connection.execute(each)}
    return Summary(count=int(count), cost=int(cost), by_provider=by_provider)
