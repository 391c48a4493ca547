"""What is printed: Markdown, so that a run can be kept as it is."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def heading() -> None:
    """When, and on what."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    print(f"{when}, {os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, Linux {platform.release()}, "
          f"Python {platform.python_version()}; load before it began: {os.getloadavg()[0]:.2f}.")  # fmt: skip


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> None:
    """One table; numbers with three figures or so."""
    print(f"\n### {title}\n")
    if note:
        print(f"{note}\n")
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(map(_shown, row))} |", flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values is."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
