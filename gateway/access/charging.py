"""Charges: what a key's budget holds for a job before anything is sent for it, and what it has cost in the end.

All of it runs in the transaction that writes down what is about to be sent, so that of many calls at once, in one
process or in several, none is sent that the budget does not reach for.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, func, select, update

from gateway.access.budget import Budget
from gateway.access.grant import Allowance, AtCapacity, OverBudget
from gateway.access.register import spent_in
from gateway.database.engine import insert_new
from gateway.database.schema import ATTEMPTS, JOBS, KEYS, SPENDING

_OPEN = ("queued", "in_progress")
_MICROS = 1_000_000


def charge(
    connection: Connection, job: str, key: str, allowance: Allowance, *, whole: int, attempt: int, now: float
) -> None:
    """Hold for a job what its next attempt may cost.

    With its first attempt the `whole` estimate is held, later as much as its attempts may come to: both, and that of
    the next `attempt`, in micro-dollars. Raises OverBudget and AtCapacity: then the attempt must not be made.
    """
    # Whoever charges the same key waits here until this transaction has ended. SQLite has one writer in any case.
    connection.execute(select(KEYS.c.id).where(KEYS.c.id == key).with_for_update())
    held, name = connection.execute(select(JOBS.c.charged, JOBS.c.charged_to).where(JOBS.c.id == job)).one()
    if held is None and allowance.concurrency is not None:
        _check_capacity(connection, job, key, allowance.concurrency)
    if allowance.budget is None:
        connection.execute(update(JOBS).where(JOBS.c.id == job).values(charged=0))
        return
    period = allowance.budget.period(now)
    wanted = whole if held is None else max(held, _bought(connection, job) + attempt)
    more = wanted - (held or 0)
    if name is None:
        name = period.name
        _begin(connection, key, name, period.start, period.end)
    if more > 0:
        check(allowance.budget, spent_in(connection, key, name), more, now)
    _add(connection, key, name, more)
    connection.execute(update(JOBS).where(JOBS.c.id == job).values(charged=wanted, charged_to=name))


def settle(connection: Connection, job: str, cost: int) -> None:
    """Replace what is held for a job by what it has cost, in micro-dollars, in the period that held it."""
    row = connection.execute(select(JOBS.c.key, JOBS.c.charged, JOBS.c.charged_to).where(JOBS.c.id == job)).first()
    if row is None or row.charged_to is None or row.charged == cost:
        return
    _add(connection, row.key, row.charged_to, cost - row.charged)
    connection.execute(update(JOBS).where(JOBS.c.id == job).values(charged=cost))


def check(budget: Budget, spent: int, more: int, now: float) -> None:
    """Raise OverBudget where a budget, of which `spent` is gone, does not reach for `more`: in micro-dollars.

    What costs nothing is never over it.
    """
    if more <= 0 or spent + more <= budget.limit:
        return
    period = budget.period(now)
    left = max(0, budget.limit - spent) / _MICROS
    again = f"It begins anew at {period.until}." if period.until else "It does not begin anew."
    raise OverBudget(
        f"This key's budget of {budget} has ${left:.4f} left, and this needs ${more / _MICROS:.4f}. {again}"
    )


def _check_capacity(connection: Connection, job: str, key: str, most: int) -> None:
    others = JOBS.c.key == key, JOBS.c.state.in_(_OPEN), JOBS.c.charged.is_not(None), JOBS.c.id != job
    going = connection.execute(select(func.count()).select_from(JOBS).where(*others)).scalar_one()
    if going >= most:
        raise AtCapacity(
            f"{going} jobs of this key go on, and it may have {most} at once: try again when one has ended."
        )


def _bought(connection: Connection, job: str) -> int:
    """What a job's attempts have cost, or may cost while they go on."""
    costs = case((ATTEMPTS.c.ended_at.is_not(None), ATTEMPTS.c.cost), else_=ATTEMPTS.c.estimate)
    return int(connection.execute(select(func.sum(costs)).where(ATTEMPTS.c.job == job)).scalar() or 0)


def _begin(connection: Connection, key: str, period: str, start: float, end: float | None) -> None:
    """Open a period's account, with what was spent in it while the key had no budget, or another one."""
    there = select(SPENDING.c.spent).where(SPENDING.c.key == key, SPENDING.c.period == period)
    if connection.execute(there).first() is not None:
        return
    in_it = [JOBS.c.key == key, JOBS.c.created_at >= start, *([JOBS.c.created_at < end] if end is not None else [])]
    costs = case((JOBS.c.ended_at.is_not(None), JOBS.c.cost), else_=func.coalesce(JOBS.c.charged, 0))
    before = connection.execute(select(func.sum(costs)).where(*in_it)).scalar() or 0
    connection.execute(insert_new(connection, SPENDING).values(key=key, period=period, spent=int(before)))


def _add(connection: Connection, key: str, period: str, micros: int) -> None:
    mine = SPENDING.c.key == key, SPENDING.c.period == period
    connection.execute(update(SPENDING).where(*mine).values(spent=SPENDING.c.spent + micros))
