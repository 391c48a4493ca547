"""What only shows in time: the first answer, memory after many calls, many jobs that wait, the end of a job."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx

from tests.bench import pictures, processes
from tests.bench.load import Task
from tests.bench.processes import Server
from tests.bench.report import median, percentile, table

_WAITING = 1000
_WAIT_S = 30.0
_MANY = {
    "DARKROOM_GATEWAY__MAX_JOBS": "5000",
    "DARKROOM_GATEWAY__MAX_CONNECTIONS": "5000",
    "DARKROOM_GATEWAY__MAX_IN_FLIGHT_BYTES": str(4 << 30),
}


def measure_start(folder: Path) -> None:
    """Print how long the first answer takes, on a new ledger and on one that is there."""
    with processes.upstream(_files(folder)[1]) as upstream:
        firsts = []
        for _ in range(5):
            with processes.darkroom(folder / "started", upstream) as (server, _):
                firsts.append((server.first_s, server.resident))
    seconds = [first for first, _ in firsts]
    row = (median(seconds), min(seconds), max(seconds), median([resident for _, resident in firsts]))
    table(
        "Start", ["first answer s", "least", "most", "MB at rest"], [row], "Five starts, without the embedded worker."
    )


def measure_growth(folder: Path, *, quick: bool) -> None:
    """Print the memory after so many calls."""
    sent, given = _files(folder)
    steps = (200, 1000) if quick else (2000, 20_000)
    with processes.upstream(given) as upstream, processes.darkroom(folder / "growth", upstream) as (server, key):
        rows, made = [], 0
        for step in steps:
            processes.call(_task(server, key, sent, given, calls=step - made, concurrent=16))
            made = step
            rows.append((made, server.resident, server.peak))
    table("Growth", ["calls", "resident MB", "peak MB"], rows)


def measure_waiting(folder: Path, *, quick: bool) -> None:
    """Print what jobs that wait for their provider cost."""
    sent, given = _files(folder)
    jobs = _WAITING // (10 if quick else 1)
    with processes.upstream(given, _WAIT_S) as upstream:
        environ = {**processes.via_fal(upstream), **_MANY}
        with processes.darkroom(folder / "waiting", upstream, environ=environ) as (server, key):
            idle = server.resident
            with processes.calling(_task(server, key, sent, given, calls=jobs, concurrent=jobs)) as caller:
                deadline = time.monotonic() + 60
                while _going(upstream) < jobs and time.monotonic() < deadline:
                    time.sleep(0.2)
                before, began = server.cpu, time.monotonic()
                time.sleep(10)
                share = (server.cpu - before) / (time.monotonic() - began)
                done = processes.answered(caller)
            peak = server.peak
    row = (jobs, idle, peak, share * 100, median(done.ms) / 1000, max(done.ms) / 1000)
    columns = ["jobs", "MB at rest", "most MB", "% of a core while they wait", "p50 s", "most s"]
    table("Waiting", columns, [row], f"Each waits {_WAIT_S:g} s for its provider, with an upload of 590 kB.")


def measure_lag(folder: Path, *, quick: bool) -> None:
    """Print how long after a job is done upstream its caller has the picture, where that has to be asked for."""
    sent, given = _files(folder)
    rows = []
    for seconds in (2.0, 10.0):
        with (
            processes.upstream(given, seconds) as upstream,
            processes.darkroom(folder / f"lag-{seconds:g}", upstream, environ=processes.via_replicate(upstream)) as (
                server,
                key,
            ),
        ):
            calls = 20 if quick else 60
            task = _task(server, key, sent, given, calls=calls, concurrent=10, numbered=True)
            ended = processes.call(task).ended
            done = json.loads(httpx.get(f"{upstream.url}/done", trust_env=False).text)
            # The first ones are what the pace is learned from.
            lags = [ended[name] - done[name] for name in list(ended)[10:]]
        rows.append((f"{seconds:g}", median(lags), percentile(lags, 0.95), max(lags)))
    columns = ["job s", "p50 s", "p95 s", "most s"]
    table(
        "Completion lag",
        columns,
        rows,
        "Replicate, polled; the first ten jobs are left out. A webhook needs `public_url`.",
    )


def _going(upstream: Server) -> int:
    return int(httpx.get(f"{upstream.url}/going", trust_env=False).text)


def _files(folder: Path) -> tuple[Path, Path]:
    width, height = pictures.SIDES
    sent, given = folder / "sent.png", folder / "given.png"
    if not sent.exists():
        sent.write_bytes(pictures.upload(width, height))
        given.write_bytes(pictures.result(width * pictures.FACTOR, height * pictures.FACTOR))
    return sent, given


def _task(
    server: Server, key: str, sent: Path, given: Path, *, calls: int, concurrent: int, numbered: bool = False
) -> Task:
    return Task(url=server.url, key=key, image=str(sent), wanted=str(given), calls=calls, concurrent=concurrent,
                factor=pictures.FACTOR, numbered=numbered)  # fmt: skip
