"""Darkroom alone: through each shape of provider, and in two processes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.bench import pictures, processes
from tests.bench.load import Task
from tests.bench.report import median, percentile, table
from tests.bench.side_by_side import ROUNDS, Seen


def measure_shapes(folder: Path, *, quick: bool) -> None:
    """Print what a call costs through each shape of provider."""
    sent, given = folder / "sent.png", folder / "given.png"
    sent.write_bytes(pictures.upload(*pictures.SIDES))
    given.write_bytes(pictures.result(*(side * pictures.FACTOR for side in pictures.SIDES)))
    rows: list[tuple[object, ...]] = []
    shapes = {
        "fal, synchronous": processes.via_fal,
        "Replicate, held open": processes.via_replicate,
        "Cog": processes.via_cog,
    }
    with processes.upstream(given) as upstream:
        for name, settings in shapes.items():
            data = folder / f"shape-{len(rows)}"
            with processes.darkroom(data, upstream, environ=settings(upstream)) as (server, key):
                seen = Seen()
                for calls in (20, *([80] if quick else [320] * ROUNDS)):
                    before = server.cpu
                    done = processes.call(
                        Task(url=server.url, key=key, image=str(sent), wanted=str(given), calls=calls, concurrent=16)
                    )
                    if calls > 20:
                        seen.add(done, server.cpu - before)
            rows.append((name, median(seen.ms), percentile(seen.ms, 0.99), median(seen.per_s), median(seen.cpu)))
    table("Shapes of providers", ["", "p50 ms", "p99 ms", "calls/s", "CPU s per 1k"], rows, "At 16.")


def measure_processes(folder: Path, *, quick: bool) -> None:
    """Print what a second process brings. The caller and the upstream take their share of the same cores."""
    sent, given = folder / "sent.png", folder / "given.png"
    sent.write_bytes(pictures.upload(*pictures.SIDES))
    given.write_bytes(pictures.result(*(side * pictures.FACTOR for side in pictures.SIDES)))
    seen = {1: Seen(), 2: Seen()}
    with processes.upstream(given) as upstream, ExitStack() as stack:
        servers = {
            workers: stack.enter_context(
                processes.darkroom(folder / f"workers-{workers}", upstream, "--workers", str(workers))
            )
            for workers in seen
        }
        for number in range(1 + (1 if quick else ROUNDS)):
            for workers, (server, key) in servers.items():
                before = server.cpu
                done = processes.call(
                    Task(url=server.url, key=key, image=str(sent), wanted=str(given), calls=320, concurrent=32)
                )
                if number:
                    seen[workers].add(done, server.cpu - before)
    ratios = [two / one for one, two in zip(seen[1].per_s, seen[2].per_s, strict=True)]
    rows = [
        (workers, median(own.per_s), median(own.cpu), "" if workers == 1 else median(ratios))
        for workers, own in seen.items()
    ]
    table("Processes", ["--workers", "calls/s", "CPU s per 1k", "calls/s, to one"], rows, "At 32.")
