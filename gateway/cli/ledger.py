"""`darkroom jobs` and `darkroom costs`: what the ledger knows, read from it directly, with or without a server."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from gateway.api.requests import described, duration_ms, with_parameters
from gateway.api.schemas import listed
from gateway.cli.output import format_table
from gateway.database.migrate import opened
from gateway.ledger.reports import (
    By,
    CostTotals,
    JobFilter,
    JobPage,
    JobReport,
    blank_some,
    forget_some,
    in_force,
    left_from,
    read_one,
    read_page,
    spent,
)
from gateway.routing.pricing import MICROS
from gateway.settings.loader import SHIPPED, Config, load
from gateway.settings.types import secret_text

_HEAD = ("id", "created (UTC)", "state", "model", "provider", "seconds", "cost USD")
_ATTEMPTS = ("picture", "provider", "route", "outcome", "seconds", "estimate", "cost USD", "", "upstream id")
_COSTS = ("jobs", "attempts", "cost USD", "of it estimated", "of it lost")


def jobs(wanted: JobFilter, *, limit: int, as_json: bool) -> int:
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


def purge(before: float, *, as_json: bool) -> int:
    """Forget the jobs that ended before a time (seconds since the epoch), and say how many. Raises ConfigError.

    Of those whose idempotency key is in force only what was asked is forgotten: a repeated call would buy again.
    """
    config = _config()
    kept = in_force(time.time() - config.gateway.idempotency_ttl_s)
    with _ledger(config, writes=True) as engine:
        # A few at a time: a server that writes meanwhile is not held up.
        gone = _bit_by_bit(engine, lambda connection: forget_some(connection, before, kept))
        _bit_by_bit(engine, lambda connection: blank_some(connection, before))
        with engine.begin() as connection:
            left = left_from(connection, before)
    if as_json:
        _print_json({"object": "jobs.purged", "count": gone, "kept": left, "before": before})
        return 0
    print(f"{gone} {'job' if gone == 1 else 'jobs'} that ended before {_when(before)} UTC: forgotten")
    if left:
        what = "1 job with a key stays" if left == 1 else f"{left} jobs with keys stay"
        print(f"{what} without parameters: without it the key, good for idempotency_ttl_s, would buy again")
    return 0


def _bit_by_bit(engine: Engine, some: Callable[[Connection], int]) -> int:
    whole = 0
    while True:
        with engine.begin() as connection:
            done = some(connection)
        if not done:
            return whole
        whole += done


def costs(by: By, since: float | None, *, as_json: bool) -> int:
    """Print what was spent since a time (seconds since the epoch). Raises ConfigError."""
    with _ledger() as engine, engine.begin() as connection:
        rows = spent(connection, by, since)
    if as_json:
        _print_json({"object": "costs", "by": by, "since": since, "cost_currency": "USD", "data": _sums(by, rows)})
    else:
        print("\n".join(_costs(by, since, rows)))
    return 0


def _config() -> Config:
    return load(Path(os.environ.get("DARKROOM_CONFIG", SHIPPED)), os.environ)


def _ledger(config: Config | None = None, *, writes: bool = False) -> Any:
    config = config or _config()
    data = Path(os.environ.get("DARKROOM_DATA", ".darkroom"))
    return opened(secret_text(config.gateway.ledger_url), data, writes=writes)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _list(page: JobPage) -> Iterator[str]:
    if not page.entries:
        yield "no jobs"
        return
    yield from format_table([_HEAD, *(_row(told) for told in page.entries)], right=(5, 6))
    if page.more:
        yield f"… and older ones: --limit {2 * len(page.entries)} shows more"


def _row(told: JobReport) -> tuple[str, ...]:
    job, order = told.job, told.job.order
    provider = (job.result or {}).get("served", {}).get("provider") or _last_provider(told)
    return (order.id, _when(order.created_at), job.state, order.model, provider, _seconds(told), _usd(job.cost))


def _last_provider(told: JobReport) -> str:
    return told.attempts[-1].provider if told.attempts else "-"


def _whole(told: JobReport) -> Iterator[str]:
    """Everything about one job: what it is, what was asked, every attempt."""
    job, order = told.job, told.job.order
    facts = [
        ("job", order.id),
        ("state", job.state),
        ("model", order.model),
        ("created", f"{_when(order.created_at)} UTC"),
        ("seconds", _seconds(told)),
        ("cost", f"{_usd(job.cost)} USD (estimate {_usd(order.estimate)})"),
        ("asked", f"{order.wanted} picture{'s' * (order.wanted != 1)}, {order.mode}"),
        ("key", order.key or "-"),
        ("idempotency key", order.idempotency_key or "-"),
        ("request", order.request_id or "-"),
    ]
    error = described(told)["error"]
    if error is not None:
        facts.append(("error", f"{error['code']}: {error['message']}"))
    yield from format_table(facts)
    files = [str(kept["file"]) for attempt in told.attempts for kept in attempt.files if kept["file"]]
    yield from (f"file             {name}" for name in files)
    if order.params:
        yield f"parameters       {json.dumps(order.params, ensure_ascii=False)}"
    yield ""
    if not told.attempts:
        yield "nothing was sent to a provider"
        return
    rows = [
        (
            str(attempt.number),
            attempt.provider,
            attempt.route,
            attempt.outcome or attempt.state,
            f"{attempt.told().seconds:.1f}",
            _usd(attempt.estimate),
            _usd(attempt.cost),
            "told" if attempt.actual else "estimated" if attempt.cost else "",
            attempt.handle.id if attempt.handle else attempt.heard or "-",
        )
        for attempt in told.attempts
    ]
    yield from format_table([_ATTEMPTS, *rows], right=(0, 4, 5, 6))
    for attempt in told.attempts:
        if attempt.message:
            yield f"{attempt.provider}: {attempt.message}"


def _costs(by: By, since: float | None, rows: Sequence[CostTotals]) -> Iterator[str]:
    yield "everything that the ledger knows" if since is None else f"since {_when(since)} UTC"
    if not rows:
        yield "nothing was spent"
        return
    whole = CostTotals(
        name="all",
        # A job may have been at several providers, and around midnight: the sum would count it twice.
        jobs=-1 if by in ("provider", "day") else sum(row.jobs for row in rows),
        attempts=sum(row.attempts for row in rows),
        cost=sum(row.cost for row in rows),
        estimated=sum(row.estimated for row in rows),
        lost=sum(row.lost for row in rows),
    )
    lines = [(by, *_COSTS), *(_cost_row(row) for row in (*rows, whole))]
    yield from format_table(lines, right=range(1, 6))


def _cost_row(row: CostTotals) -> tuple[str, ...]:
    jobs_ = "" if row.jobs < 0 else str(row.jobs)
    return (row.name or "-", jobs_, str(row.attempts), _usd(row.cost), _usd(row.estimated), _usd(row.lost))


def _sums(by: By, rows: Sequence[CostTotals]) -> list[Mapping[str, Any]]:
    return [
        {
            by: row.name,
            "jobs": row.jobs,
            "attempts": row.attempts,
            "cost": row.cost / MICROS,
            "estimated": row.estimated / MICROS,
            "lost": row.lost / MICROS,
        }
        for row in rows
    ]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _seconds(told: JobReport) -> str:
    ms = duration_ms(told)
    return "-" if ms is None else f"{ms / 1000:.1f}"


def _usd(micros: int) -> str:
    return f"{micros / MICROS:.6f}"
