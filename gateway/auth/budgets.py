"""Charges: what a key's budget holds for a job before anything is sent for it, and what it has cost in the end.

All of it runs in the transaction that writes down what is about to be sent, so that of many calls at once, in one
process or in several, none is sent that the budget does not reach for.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, case, func, literal_column, select, update

from gateway.auth.keys import Budget, BudgetExceeded, ConcurrencyExceeded, Quota
from gateway.auth.store import spent_in
from gateway.database.engine import insert_new, is_embedded
from gateway.database.schema import ATTEMPTS, JOBS, KEYS, SPENDING

_OPEN = ("queued", "in_progress")
_MICROS = 1_000_000

# Built once: building a statement costs several times what running it does.
_LOCK = select(KEYS.c.id).where(KEYS.c.id == bindparam("this")).with_for_update()
_HELD = select(JOBS.c.charged, JOBS.c.charged_to).where(JOBS.c.id == bindparam("this"))
_HOLD = update(JOBS).where(JOBS.c.id == bindparam("this"))
_GOING = select(func.count()).where(
    JOBS.c.key == bindparam("of_key"),
    # Its words stand in it: a list would be written into the statement at each call.
    JOBS.c.state.in_([literal_column(f"'{state}'") for state in _OPEN]),
    JOBS.c.charged.is_not(None),
    JOBS.c.id != bindparam("but"),
)
_BOUGHT = select(func.sum(case((ATTEMPTS.c.ended_at.is_not(None), ATTEMPTS.c.cost), else_=ATTEMPTS.c.estimate))).where(
    ATTEMPTS.c.job == bindparam("this")
)
_OPEN_ATTEMPTS = select(func.count()).where(ATTEMPTS.c.job == bindparam("this"), ATTEMPTS.c.ended_at.is_(None))
_ADD = (
    update(SPENDING)
    .where(SPENDING.c.key == bindparam("of_key"), SPENDING.c.period == bindparam("of"))
    .values(spent=SPENDING.c.spent + bindparam("more"))
)


def reserve(
    connection: Connection, job: str, key: str, quota: Quota, *, whole: int, now: float, margin: int = 0
) -> None:
    """Hold for a job what its attempts may cost, the one that is about to be made and is written down included.

    With its first attempt the `whole` is held that the job may cost, later as much as its attempts may come to, each
    that goes on with a `margin` above its estimate; in micro-dollars.
    Raises BudgetExceeded and ConcurrencyExceeded: then the attempt must not be made.
    """
    if not is_embedded(connection.engine):
        # Whoever charges the same key waits here until this transaction has ended. SQLite has one writer in any case.
        connection.execute(_LOCK, {"this": key})
    held, name = connection.execute(_HELD, {"this": job}).one()
    if held is None and quota.concurrency is not None:
        _check_capacity(connection, job, key, quota.concurrency)
    if quota.budget is None:
        connection.execute(_HOLD, {"this": job, "charged": 0})
        return
    period = quota.budget.period(now)
    wanted = whole if held is None else max(held, _bought(connection, job, margin))
    more = wanted - (held or 0)
    spent = spent_in(connection, key, name or period.name)
    if name is None:
        name = period.name
        if spent is None:
            spent = _begin(connection, key, name, period.start, period.end)
    if more > 0:
        check(quota.budget, spent or 0, more, now)
    _add(connection, key, name, more)
    connection.execute(_HOLD, {"this": job, "charged": wanted, "charged_to": name})


def settle(connection: Connection, job: str, key: str, held: int, period: str, cost: int) -> None:
    """Replace what a period of a key holds for a job by what the job has cost; both in micro-dollars."""
    if held != cost:
        _add(connection, key, period, cost - held)
        connection.execute(_HOLD, {"this": job, "charged": cost})


def check(budget: Budget, spent: int, more: int, now: float) -> None:
    """Raise BudgetExceeded where a budget, of which `spent` is gone, does not reach for `more`: in micro-dollars.

    What costs nothing is never over it.
    """
    if more <= 0 or spent + more <= budget.limit:
        return
    period = budget.period(now)
    left = max(0, budget.limit - spent) / _MICROS
    again = f"It begins anew at {period.until}." if period.until else "It does not begin anew."
    raise BudgetExceeded(
        f"This key's budget of {budget} has ${left:.4f} left, and this needs ${more / _MICROS:.4f}. {again}"
    )


def _check_capacity(connection: Connection, job: str, key: str, most: int) -> None:
    going = connection.execute(_GOING, {"of_key": key, "but": job}).scalar_one()
    if going >= most:
        raise ConcurrencyExceeded(
            f"{going} jobs of this key go on, and it may have {most} at once: try again when one has ended."
        )


def _bought(connection: Connection, job: str, margin: int) -> int:
    """What a job's attempts have cost, or may cost while they go on: each of those a margin above its estimate."""
    going = connection.execute(_OPEN_ATTEMPTS, {"this": job}).scalar_one() if margin else 0
    return int(connection.execute(_BOUGHT, {"this": job}).scalar() or 0) + margin * int(going)


def _begin(connection: Connection, key: str, period: str, start: float, end: float | None) -> int:
    """Open a period's account, with what was spent in it while the key had no budget, or another one; return that."""
    in_it = [JOBS.c.key == key, JOBS.c.created_at >= start, *([JOBS.c.created_at < end] if end is not None else [])]
    costs = case((JOBS.c.ended_at.is_not(None), JOBS.c.cost), else_=func.coalesce(JOBS.c.charged, 0))
    before = int(connection.execute(select(func.sum(costs)).where(*in_it)).scalar() or 0)
    connection.execute(insert_new(connection, SPENDING).values(key=key, period=period, spent=before))
    return before


def _add(connection: Connection, key: str, period: str, micros: int) -> None:
    connection.execute(_ADD, {"of_key": key, "of": period, "more": micros})
