"""What was spent, summed up over attempts: by provider, model, key or day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Connection, case, cast, func, select

from gateway.database.schema import ATTEMPTS, JOBS

By = Literal["provider", "model", "key", "day"]
_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What went to one provider, or for one model, key or day (UTC). Money is in micro-dollars.

    `estimated` is what of the cost no provider has confirmed, `lost` what was spent on attempts that gave no picture.
    """

    name: str
    jobs: int
    attempts: int
    cost: int
    estimated: int
    lost: int


def spent(connection: Connection, by: By, since: float | None) -> list[Spent]:
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
        Spent(name=_name(by, row[0]), jobs=int(row[1]), attempts=int(row[2]), cost=int(row[3]), estimated=int(row[4]),
              lost=int(row[5]))
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
