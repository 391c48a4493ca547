"""Budget reservations: money is reserved before a job is submitted, and replaced by its actual cost afterwards.

Everything runs in the transaction that records what is about to be sent, so that concurrent requests, in one process or
several, can never spend more than the budget.
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
_RESERVED = select(JOBS.c.charged, JOBS.c.charged_to).where(JOBS.c.id == bindparam("this"))
_RESERVE = update(JOBS).where(JOBS.c.id == bindparam("this"))
_RUNNING = select(func.count()).where(
    JOBS.c.key == bindparam("of_key"),
    # Literals: a list parameter would be expanded into the statement on every call.
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
    """Reserve what a job's attempts may cost, including the recorded attempt that is about to start.

    The first attempt reserves `whole`, the most that the job may cost; later ones reserve the sum of its attempts, with
    a `margin` above the estimate of each running one. All amounts are in micro-dollars.
    Raises BudgetExceeded and ConcurrencyExceeded: the attempt must not be made.
    """
    if not is_embedded(connection.engine):
        # Reservations of the same key wait here for this transaction to end. SQLite has one writer in any case.
        connection.execute(_LOCK, {"this": key})
    reserved, name = connection.execute(_RESERVED, {"this": job}).one()
    if reserved is None and quota.concurrency is not None:
        _check_capacity(connection, job, key, quota.concurrency)
    if quota.budget is None:
        connection.execute(_RESERVE, {"this": job, "charged": 0})
        return
    period = quota.budget.period(now)
    total = whole if reserved is None else max(reserved, _bought(connection, job, margin))
    more = total - (reserved or 0)
    spent = spent_in(connection, key, name or period.name)
    if name is None:
        name = period.name
        if spent is None:
            spent = _begin(connection, key, name, period.start, period.end)
    if more > 0:
        check(quota.budget, spent or 0, more, now)
    _add(connection, key, name, more)
    connection.execute(_RESERVE, {"this": job, "charged": total, "charged_to": name})


def settle(connection: Connection, job: str, key: str, reserved: int, period: str, cost: int) -> None:
    """Replace a job's reservation in a key's period by its actual cost; both are in micro-dollars."""
    if reserved != cost:
        _add(connection, key, period, cost - reserved)
        connection.execute(_RESERVE, {"this": job, "charged": cost})


def check(budget: Budget, spent: int, more: int, now: float) -> None:
    """Raise BudgetExceeded if `spent` and `more`, in micro-dollars, exceed a budget. What is free always passes."""
    if more <= 0 or spent + more <= budget.limit:
        return
    period = budget.period(now)
    left = max(0, budget.limit - spent) / _MICROS
    reset = f"It resets at {period.until}." if period.until else "It does not reset."
    raise BudgetExceeded(
        f"This API key's budget of {budget} has ${left:.4f} left; this request needs ${more / _MICROS:.4f}. {reset}"
    )


def _check_capacity(connection: Connection, job: str, key: str, most: int) -> None:
    running = connection.execute(_RUNNING, {"of_key": key, "but": job}).scalar_one()
    if running >= most:
        raise ConcurrencyExceeded(
            f"This API key has {running} running jobs, and {most} is its limit. Try again when one has ended."
        )


def _bought(connection: Connection, job: str, margin: int) -> int:
    """What a job's attempts have cost, or may cost while they run: the estimate and a margin."""
    running = connection.execute(_OPEN_ATTEMPTS, {"this": job}).scalar_one() if margin else 0
    return int(connection.execute(_BOUGHT, {"this": job}).scalar() or 0) + margin * int(running)


def _begin(connection: Connection, key: str, period: str, start: float, end: float | None) -> int:
    """Open a period's account with what was already spent in it, under no budget or another one; return that."""
    in_it = [JOBS.c.key == key, JOBS.c.created_at >= start, *([JOBS.c.created_at < end] if end is not None else [])]
    costs = case((JOBS.c.ended_at.is_not(None), JOBS.c.cost), else_=func.coalesce(JOBS.c.charged, 0))
    before = int(connection.execute(select(func.sum(costs)).where(*in_it)).scalar() or 0)
    connection.execute(insert_new(connection, SPENDING).values(key=key, period=period, spent=before))
    return before


def _add(connection: Connection, key: str, period: str, micros: int) -> None:
    connection.execute(_ADD, {"of_key": key, "of": period, "more": micros})
