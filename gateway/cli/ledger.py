"""`darkroom jobs` and `darkroom costs`: reports from the ledger, whether or not a server is running."""

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
_ATTEMPTS = ("image", "provider", "route", "outcome", "seconds", "estimate", "cost USD", "", "upstream id")
_COSTS = ("jobs", "attempts", "cost USD", "estimated USD", "failed USD")


def jobs(job_filter: JobFilter, *, limit: int, as_json: bool) -> int:
    """Print jobs, the newest first. Raises ConfigError."""
    with _ledger() as engine, engine.begin() as connection:
        page = read_page(connection, job_filter, None, limit)
    if as_json:
        _print_json(listed([described(entry) for entry in page.entries], more=page.more))
    else:
        print("\n".join(_list(page)))
    return 0


def job(name: str, *, as_json: bool) -> int:
    """Print everything about one job. Raises ConfigError."""
    with _ledger() as engine, engine.begin() as connection:
        report = read_one(connection, name)
    if report is None:
        print(f"darkroom: no such job: {name!r} (it may have expired)", file=sys.stderr)
        return 1
    if as_json:
        _print_json(with_parameters(report))
    else:
        print("\n".join(_details(report)))
    return 0


def purge(before: float, *, as_json: bool) -> int:
    """Delete the jobs that ended before a time (seconds since the epoch), and print how many. Raises ConfigError.

    A job whose idempotency key is still valid loses its parameters only: without the job, a retry would buy it again.
    """
    config = _config()
    kept = in_force(time.time() - config.gateway.idempotency_ttl_s)
    with _ledger(config, writes=True) as engine:
        # In small batches, so that a server writing at the same time is not blocked.
        deleted = _in_batches(engine, lambda connection: forget_some(connection, before, kept))
        _in_batches(engine, lambda connection: blank_some(connection, before))
        with engine.begin() as connection:
            kept_jobs = left_from(connection, before)
    if as_json:
        _print_json({"object": "jobs.purged", "count": deleted, "kept": kept_jobs, "before": before})
        return 0
    print(f"{deleted} {'job' if deleted == 1 else 'jobs'} deleted that ended before {_when(before)} UTC")
    if kept_jobs:
        which = "1 job with a valid idempotency key was"
        if kept_jobs > 1:
            which = f"{kept_jobs} jobs with valid idempotency keys were"
        print(f"{which} kept without parameters, so that a retry within idempotency_ttl_s does not buy again")
    return 0


def _in_batches(engine: Engine, some: Callable[[Connection], int]) -> int:
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
    yield from format_table([_HEAD, *(_row(report) for report in page.entries)], right=(5, 6))
    if page.more:
        yield f"… older jobs exist: use --limit {2 * len(page.entries)} to list more"


def _row(report: JobReport) -> tuple[str, ...]:
    job, order = report.job, report.job.order
    provider = (job.result or {}).get("served", {}).get("provider") or _last_provider(report)
    return (order.id, _when(order.created_at), job.state, order.model, provider, _seconds(report), _usd(job.cost))


def _last_provider(report: JobReport) -> str:
    return report.attempts[-1].provider if report.attempts else "-"


def _details(report: JobReport) -> Iterator[str]:
    """Everything about one job: its facts, its parameters, every attempt."""
    job, order = report.job, report.job.order
    facts = [
        ("job", order.id),
        ("state", job.state),
        ("model", order.model),
        ("created", f"{_when(order.created_at)} UTC"),
        ("seconds", _seconds(report)),
        ("cost", f"{_usd(job.cost)} USD (estimate {_usd(order.estimate)})"),
        ("requested", f"{order.wanted} image{'s' * (order.wanted != 1)}, {order.mode}"),
        ("key", order.key or "-"),
        ("idempotency key", order.idempotency_key or "-"),
        ("request", order.request_id or "-"),
    ]
    error = described(report)["error"]
    if error is not None:
        facts.append(("error", f"{error['code']}: {error['message']}"))
    yield from format_table(facts)
    files = [str(kept["file"]) for attempt in report.attempts for kept in attempt.files if kept["file"]]
    yield from (f"file             {name}" for name in files)
    if order.params:
        yield f"parameters       {json.dumps(order.params, ensure_ascii=False)}"
    yield ""
    if not report.attempts:
        yield "no attempts: nothing was sent to a provider"
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
            "billed" if attempt.actual else "estimated" if attempt.cost else "",
            attempt.handle.id if attempt.handle else attempt.heard or "-",
        )
        for attempt in report.attempts
    ]
    yield from format_table([_ATTEMPTS, *rows], right=(0, 4, 5, 6))
    for attempt in report.attempts:
        if attempt.message:
            yield f"{attempt.provider}: {attempt.message}"


def _costs(by: By, since: float | None, rows: Sequence[CostTotals]) -> Iterator[str]:
    yield "all recorded jobs" if since is None else f"since {_when(since)} UTC"
    if not rows:
        yield "no costs"
        return
    whole = CostTotals(
        name="all",
        # A job can have several providers, or span midnight: a sum would count it twice.
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


def _seconds(report: JobReport) -> str:
    ms = duration_ms(report)
    return "-" if ms is None else f"{ms / 1000:.1f}"


def _usd(micros: int) -> str:
    return f"{micros / MICROS:.6f}"
