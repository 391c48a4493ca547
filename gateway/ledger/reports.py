"""Queries over the ledger: what happened, what it cost by provider, model, key or day; and purging old rows."""

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
    """What went to one provider, or for one model, key or day (UTC). Money is in micro-dollars.

    `estimated` is what of the cost no provider has confirmed, `lost` what was spent on attempts that gave no picture.
    """

    name: str
    jobs: int
    attempts: int
    cost: int
    estimated: int
    lost: int


def spent(connection: Connection, by: By, since: float | None) -> list[CostTotals]:
    """The sums over the attempts since a time (seconds since the epoch), days in order, others the dearest first."""
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
        # The one cuts the fraction off, the other one rounds.
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
# How many jobs are forgotten in one transaction: whoever buys something meanwhile must not wait for long.
_AT_ONCE = 500


class NoSuchCursor(Exception):
    """The list has no such entry to go on after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs. Times are in seconds since the epoch; `before` itself is not among them.

    `scope` is the one key whose jobs may be seen at all, `key` the one that is asked for.
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
            # Said, because a sum over attempts has them in its own FROM already.
            found.append(there.correlate(JOBS).exists())
        return found

    def scoped(self) -> list[ColumnElement[bool]]:
        """As SQL, what may be seen at all."""
        return [] if self.scope is None else [JOBS.c.key == self.scope]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """A job with its attempts."""

    job: JobRow
    attempts: tuple[AttemptRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Part of a list, the newest first."""

    entries: Sequence[JobReport]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Sums over jobs: how many, what they cost in micro-dollars, and both of the attempts at each provider."""

    count: int
    cost: int
    by_provider: dict[str, tuple[int, int]]


class Reports:
    """Reads the ledger for people, and forgets. All of it raises LedgerDown. `clock` is the wall's, in seconds.

    What a repeated call may still be given is not forgotten: a job with an idempotency key for `key_ttl_s` seconds from
    its beginning, one without for `join_window_s`.
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
        """Forget what was asked in a job that has ended, prompt included. What was done and what it cost stays."""
        await self._database.write(lambda connection: _blank(connection, [job]))

    async def purge(self, ttl_s: float, parameters_ttl_s: float) -> None:
        """Forget the jobs that ended so many seconds ago, and of younger ones what was asked in them."""
        now = self._clock() - ahead()
        kept = in_force(now - self._key_ttl_s, now - self._join_window_s)
        await self._bit_by_bit(and_(_ended_before(now - ttl_s), not_(kept)), _drop)
        await self._bit_by_bit(and_(_ended_before(now - parameters_ttl_s), _has_payload()), _blank)

    async def purge_for_ever(self, ttl_s: float, parameters_ttl_s: float) -> None:
        """Purge now and then, until cancelled."""
        while True:
            with contextlib.suppress(LedgerDown):  # there is a next time
                await self.purge(ttl_s, parameters_ttl_s)
            await asyncio.sleep(min(_PURGE_S, ttl_s, parameters_ttl_s))

    async def _bit_by_bit(self, wanted: ColumnElement[bool], change: Callable[..., None]) -> None:
        """Look for jobs without holding up whoever writes, and change a few at a time until there are none left."""
        some = select(JOBS.c.id).where(wanted).limit(_AT_ONCE)
        while found := await self._database.read(lambda connection: list(connection.execute(some).scalars())):
            await self._database.write(partial(change, jobs=found))


def read_page(connection: Connection, wanted: JobFilter, after: str | None, limit: int) -> JobPage:
    """The jobs after the one with this id, the newest first. Raises NoSuchCursor."""
    conditions = wanted.conditions()
    if after is not None:
        # It need not match any more what was asked for: a job that was in progress may have ended since.
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
    """The jobs that a repeated call would be given: those with a key that began since the one time, others since the
    other. Without its job such a call buys again."""
    keyed = and_(JOBS.c.idempotency_key.is_not(None), JOBS.c.created_at >= keys_since)
    if calls_since == math.inf:
        return keyed
    return or_(keyed, and_(JOBS.c.idempotency_key.is_(None), JOBS.c.created_at >= calls_since))


def forget_some(connection: Connection, before: float, kept: ColumnElement[bool]) -> int:
    """Forget a few of the jobs that ended before a time, with all that belongs to them, but for those that are `kept`;
    how many, 0 once all are."""
    some = select(JOBS.c.id).where(_ended_before(before), not_(kept)).limit(_AT_ONCE)
    found = list(connection.execute(some).scalars())
    _drop(connection, found)
    return len(found)


def blank_some(connection: Connection, before: float) -> int:
    """Forget what was asked in a few of the jobs that ended before a time; how many, 0 once all are."""
    some = select(JOBS.c.id).where(_ended_before(before), _has_payload()).limit(_AT_ONCE)
    found = list(connection.execute(some).scalars())
    _blank(connection, found)
    return len(found)


def left_from(connection: Connection, before: float) -> int:
    """How many of the jobs that ended before a time are still there."""
    return int(connection.execute(select(func.count()).select_from(JOBS).where(_ended_before(before))).scalar_one())


def _ended_before(moment: float) -> ColumnElement[bool]:
    # No job ends before it begins; said so, because it is by their beginnings that jobs are found quickly.
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
    # What was written down to recognise a job at its provider may hold what was asked, too.
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
