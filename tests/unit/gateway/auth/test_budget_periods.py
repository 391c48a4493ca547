"""Budgets and the periods that they are for."""

from datetime import UTC, datetime

import pytest

from gateway.auth.keys import Budget, Every


def at(text: str) -> float:
    """A time in seconds since the epoch."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "limit", "every", "shown"),
    [
        ("25/month", 25_000_000, "month", "$25.00/month"),
        ("$25/month", 25_000_000, "month", "$25.00/month"),
        ("0.29/day", 290_000, "day", "$0.29/day"),
        ("0.000001/week", 1, "week", "$0.000001/week"),
        ("100", 100_000_000, "total", "$100.00"),
        ("0/total", 0, "total", "$0.00"),
    ],
)
def test_parse(text: str, limit: int, every: Every, shown: str) -> None:
    """Dollars become micro-dollars exactly, and are shown as they were given."""
    budget = Budget.parse(text)

    assert budget == Budget(limit=limit, every=every)
    assert str(budget) == shown


@pytest.mark.parametrize(
    "text", ["", "25/year", "25/", "/month", "-1/month", "1e3", "nan", "25 /month", "1.0000001", "٣/day"]
)
def test_what_is_no_budget(text: str) -> None:
    """The message says what would be one."""
    with pytest.raises(ValueError, match="such as 25/month"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("every", "now", "start", "end"),
    [
        ("day", "2026-11-25T23:59:59", "2026-11-25", "2026-11-26"),
        ("day", "2026-11-25T00:00:00", "2026-11-25", "2026-11-26"),
        ("week", "2026-11-25T12:00:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),
        ("month", "2026-11-25T12:00:00", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods(every: Every, now: str, start: str, end: str) -> None:
    """Periods are the calendar's, in UTC; the next one begins where one ends."""
    budget = Budget(limit=1, every=every)
    period = budget.period(at(now))

    assert (period.start, period.end) == (at(start), at(end))
    assert period.until == f"{end}T00:00:00Z"
    assert budget.period(at(end)).start == at(end)
    assert budget.period(at(end)).name != period.name


def test_for_good() -> None:
    """A budget without a period is one account for ever."""
    period = Budget.parse("5").period(at("2026-11-25"))

    assert (period.name, period.end, period.until) == ("total", None, None)
