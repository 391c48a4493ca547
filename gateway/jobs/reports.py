"""What happened, and what it cost: questions to the ledger, and what is forgotten after a while."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from gateway.database.schema import ATTEMPTS, JOBS
from gateway.database.writer import Database, LedgerDown
from gateway.jobs.ledger import OPEN
from gateway.jobs.records import AttemptRow, JobRow, Json
from gateway.jobs.rows import attempt_of, job_of

_PURGE_S = 600.0


class NoSuchCursor(Exception):
    """The list has no such entry to go on after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which jobs. Times are in seconds since the epoch; `before` itself is not among them."""

    key: str | None = None
    model: str | None = None
    provider: str | None = None
    state: str | None = None
    since: float | None = None
    before: float | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        found: list[ColumnElement[bool]] = []
        for column, value in ((JOBS.c.key, self.key), (JOBS.c.model, self.model), (JOBS.c.state, self.state)):
            if value is not None:
                found.append(column == value)
        if self.since is not None:
            found.append(JOBS.c.created_at >= self.since)
        if self.before is not None:
            found.append(JOBS.c.created_at < self.before)
        if self.provider is not None:
            there = select(ATTEMPTS.c.id).where(ATTEMPTS.c.job == JOBS.c.id, ATTEMPTS.c.provider == self.provider)
            found.append(there.exists())
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A job with its attempts."""

    job: JobRow
    attempts: tuple[AttemptRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Part of a list, the newest first."""

    entries: Sequence[Told]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Sums over jobs: how many, what they cost in micro-dollars, and both of the attempts at each provider."""

    count: int
    cost: int
    by_provider: dict[str, tuple[int, int]]


class Reports:
    """Reads the ledger for people. All of it raises LedgerDown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: Filter, *, after: str | None, limit: int) -> Page:
        """The jobs after the one with this id, the newest first. Raises NoSuchCursor."""
        return await self._database.read(lambda connection: _page(connection, wanted, after, limit))

    async def one(self, job: str) -> Told | None:
        """One job by its id."""

        def find(connection: Connection) -> Told | None:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job)).first()
            return _with_attempts(connection, [job_of(row)])[0] if row else None

        return await self._database.read(find)

    async def summary(self, wanted: Filter) -> Summary:
        """Sums over the jobs of a filter."""
        return await self._database.read(lambda connection: _summary(connection, wanted))

    async def purge(self, before: float) -> int:
        """Forget the jobs that ended before a time, with all that belongs to them; how many those were."""
        old = delete(JOBS).where(JOBS.c.ended_at < before, JOBS.c.state.not_in(OPEN))
        return await self._database.write(lambda connection: connection.execute(old).rowcount)

    async def purge_for_ever(self, ttl_s: float, parameters_ttl_s: float) -> None:
        """Forget what is older than these seconds, now and then, until cancelled."""
        while True:
            with contextlib.suppress(LedgerDown):  # there is a next time
                await self.purge(time.time() - ttl_s)
                await self.forget_parameters(before=time.time() - parameters_ttl_s)
            await asyncio.sleep(min(_PURGE_S, ttl_s, parameters_ttl_s))

    async def forget_parameters(self, job: str | None = None, before: float | None = None) -> int:
        """Forget what was asked, prompts included, of a job or of those that ended before a time; how many.

        What was done and what it cost stays.
        """
        wanted: list[ColumnElement[bool]] = [JOBS.c.state.not_in(OPEN), JOBS.c.params.is_not(None)]
        wanted += [JOBS.c.id == job] if job is not None else []
        wanted += [JOBS.c.ended_at < before] if before is not None else []
        blank = update(JOBS).where(and_(*wanted)).values(params=None)
        return await self._database.write(lambda connection: connection.execute(blank).rowcount)


def _page(connection: Connection, wanted: Filter, after: str | None, limit: int) -> Page:
    conditions = wanted.conditions()
    if after is not None:
        mark = connection.execute(select(JOBS.c.created_at).where(JOBS.c.id == after, *conditions)).scalar()
        if mark is None:
            raise NoSuchCursor(after)
        conditions.append(or_(JOBS.c.created_at < mark, and_(JOBS.c.created_at == mark, JOBS.c.id < after)))
    newest = select(JOBS).where(*conditions).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(limit + 1)
    rows = [job_of(row) for row in connection.execute(newest)]
    return Page(entries=_with_attempts(connection, rows[:limit]), more=len(rows) > limit)


def _with_attempts(connection: Connection, jobs: Sequence[JobRow]) -> list[Told]:
    wanted = select(ATTEMPTS).where(ATTEMPTS.c.job.in_([job.order.id for job in jobs]))
    found: dict[str, list[AttemptRow]] = {job.order.id: [] for job in jobs}
    for row in connection.execute(wanted.order_by(ATTEMPTS.c.sent_at, ATTEMPTS.c.id)):
        found[row.job].append(attempt_of(row))
    return [Told(job=job, attempts=tuple(found[job.order.id])) for job in jobs]


def _summary(connection: Connection, wanted: Filter) -> Summary:
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


__all__ = ["Filter", "Json", "NoSuchCursor", "Page", "Reports", "Summary", "Told"]
