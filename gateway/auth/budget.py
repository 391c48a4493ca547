"""A budget: so much money in a period of the calendar."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal, get_args

Every = Literal["day", "week", "month", "total"]
PERIODS: tuple[Every, ...] = get_args(Every)

_MICROS = 1_000_000
_TEXT = re.compile(r"\$?([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/([a-z]+))?")
_WANTED = f"expected dollars and a period, such as 25/month (the periods: {', '.join(PERIODS)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A period of the calendar, in UTC. `end` is in seconds since the epoch; None where it never ends."""

    name: str
    start: float
    end: float | None

    @property
    def until(self) -> str | None:
        """Its end in ISO 8601."""
        return None if self.end is None else f"{datetime.fromtimestamp(self.end, UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be spent in each period. `limit` is in micro-dollars."""

    limit: int
    every: Every

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `25/month`, `0.50/day` or `100`, which is for good. Raises ValueError that says what is expected."""
        match = _TEXT.fullmatch(text.strip())
        every = (match[2] or "total") if match else ""
        if match is None or every not in PERIODS:
            raise ValueError(_WANTED)
        return cls(limit=int(Decimal(match[1]) * _MICROS), every=every)

    def period(self, at: float) -> Period:
        """The period that a time, in seconds since the epoch, falls into."""
        if self.every == "total":
            return Period(name="total", start=0.0, end=None)
        day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.every == "day":
            start, end = day, day + timedelta(days=1)
        elif self.every == "week":
            start = day - timedelta(days=day.weekday())
            end = start + timedelta(days=7)
        else:
            start = day.replace(day=1)
            end = (start + timedelta(days=32)).replace(day=1)
        return Period(name=f"{self.every}:{start:%Y-%m-%d}", start=start.timestamp(), end=end.timestamp())

    def __str__(self) -> str:
        amount = f"${self.limit / _MICROS:.6f}".rstrip("0")
        whole, _, cents = amount.partition(".")
        return f"{whole}.{cents:0<2}" + ("" if self.every == "total" else f"/{self.every}")
