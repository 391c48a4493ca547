"""`make bench`: what a call costs, beside what it would cost without a gateway. Compare within one run only.

`python -m tests.bench [--quick] [SECTION ...]`: the sections are named below; all of them take about nine minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench import conversions, endurance, parts, report, side_by_side, variants


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What a call costs.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="of: " + ", ".join(sections("", quick=True)))
    parser.add_argument("--quick", action="store_true", help="few calls, for a look")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = sections(folder, quick=told.quick)
        if strange := set(told.sections) - known.keys():
            parser.error(f"no such section: {', '.join(strange)}; there are {', '.join(known)}")
        report.heading()
        for name in told.sections or known:
            known[name]()


def sections(folder: str, *, quick: bool) -> Mapping[str, Callable[[], None]]:
    """What is measured, by its name."""
    here = Path(folder)
    return {
        "calls": lambda: side_by_side.measure(here, quick=quick),
        "sizes": lambda: side_by_side.measure_sizes(here, quick=quick),
        "shapes": lambda: variants.measure_shapes(here, quick=quick),
        "processes": lambda: variants.measure_processes(here, quick=quick),
        "parts": lambda: parts.measure(here),
        "start": lambda: endurance.measure_start(here),
        "waiting": lambda: endurance.measure_waiting(here, quick=quick),
        "lag": lambda: endurance.measure_lag(here, quick=quick),
        "growth": lambda: endurance.measure_growth(here, quick=quick),
        "conversions": conversions.measure,
    }


if __name__ == "__main__":
    main()
