"""`darkroom jobs` and `darkroom costs`: what the ledger knows, read from it directly, with or without a server."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.api.listing import listed
from gateway.api.request_body import described, duration_ms, with_parameters
from gateway.config import SHIPPED, load
from gateway.database.reader import opened
from gateway.jobs.reports import Filter, Page, Told, forget_some, read_one, read_page
from gateway.jobs.sums import By, Spent, spent
from gateway.mistakes import ConfigError, Mistake
from gateway.routing.pricing import MICROS
from gateway.tables import columns

_AGE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_HEAD = ("id", "created (UTC)", "state", "model", "provider", "seconds", "cost USD")
_ATTEMPTS = ("picture", "provider", "route", "outcome", "seconds", "estimate", "cost USD", "", "upstream id")
_COSTS = ("jobs", "attempts", "cost USD", "of it estimated", "of it lost")


def age(text: str) -> float:
    """Seconds, from text such as 90s, 30m, 24h, 7d or 2w. Raises ValueError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _UNITS[match[2]]


def jobs(wanted: Filter, *, limit: int, as_json: bool) -> int:
    """Print jobs, the newest first. Raises ConfigError."""
    with _ledger() as engine, engine.begin() as connection:
        page = read_page(connection, wanted, None, limit)
    if as_json:
        _print_json(listed([described(entry) for entry in page.entries], more=page.more))
    else:
        print("\n".join(_list(page)))
    return 0


def job(name: str, *, as_json: bool) -> int:
    """Print everything about one job. Raises ConfigError."""
    with _ledger() as engine, engine.begin() as connection:
        told = read_one(connection, name)
    if told is None:
        print(f"darkroom: the ledger has no job {name!r}, or not any more", file=sys.stderr)
        return 1
    if as_json:
        _print_json(with_parameters(told))
    else:
        print("\n".join(_whole(told)))
    return 0


def purge(before: float) -> int:
    """Forget the jobs that ended before a time (seconds since the epoch), and say how many. Raises ConfigError."""
    gone = 0
    with _ledger(writes=True) as engine:
        while True:
            # A few at a time: a server that writes meanwhile is not held up.
            with engine.begin() as connection:
                some = forget_some(connection, before)
            gone += some
            if not some:
                break
    print(f"{gone} {'job' if gone == 1 else 'jobs'} that ended before {_when(before)} UTC: forgotten")
    return 0


def costs(by: By, since: float | None, *, as_json: bool) -> int:
    """Print what was spent since a time (seconds since the epoch). Raises ConfigError."""
    with _ledger() as engine, engine.begin() as connection:
        rows = spent(connection, by, since)
    if as_json:
        _print_json({"object": "costs", "by": by, "since": since, "cost_currency": "USD", "data": _sums(by, rows)})
    else:
        print("\n".join(_costs(by, since, rows)))
    return 0


def _ledger(*, writes: bool = False) -> Any:
    config = load(Path(os.environ.get("DARKROOM_CONFIG", SHIPPED)), os.environ)
    data = Path(os.environ.get("DARKROOM_DATA", ".darkroom"))
    return opened(config.gateway.ledger_url, data, writes=writes)
