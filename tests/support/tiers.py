"""Which tests run when, on which worker, in which order; and what the summary says of those that did not run.

A test's folder says what it is, its markers when it runs: `make test` leaves out those of `REST`, `make test-rest` runs
them alone. See docs/testing.md.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.support.paths import ROOT

REST = {
    "system": "processes, kills, databases, Node, Landlock, official clients of the providers",
    "corpus": "the hostile corpus beyond its smoke run",
    "engines": "the engines for graphics cards, which need torch",
    "slow": "thousands of inputs, or seconds of work, for one test",
    "timing": "measures how long something takes: run by itself, one after another",
}
# The folders whose tests all have a marker.
_FOLDERS = {"system": "system", "engines": "engines", "cluster": "system"}
_TESTS = ROOT / "tests"
# On so many workers a processor: most tests wait for a part of their time.
_WORKERS = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--shuffle`."""
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests in each, in a random order")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    for name, text in REST.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    config.addinivalue_line("markers", "early: a file that takes long, and so is among the first to run")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many workers `-n auto` is."""
    return _WORKERS * (os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests by their folders, and begin with what takes long."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0] if item.path.is_relative_to(_TESTS) else ""
        if marker := _FOLDERS.get(folder):
            item.add_marker(marker)
    seed = config.getoption("--shuffle")
    if seed is None:
        items.sort(key=lambda item: item.get_closest_marker("early") is None)
    else:
        _shuffle(items, random.Random(seed))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out for want of a tool."""
    if skipped := _skipped(terminalreporter):
        terminalreporter.section("NOT TESTED", red=True, bold=True)
        for reason, count in sorted(skipped.items()):
            terminalreporter.line(f"{count} test{'s' * (count > 1)}: {reason}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a test was skipped in CI: there every tool is to be had."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and session.exitstatus == 0 and _skipped(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _shuffle(items: list[pytest.Item], chance: random.Random) -> None:
    """Put the files in a random order, and the tests of each; those of a file stay together, as they share fixtures."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    paths = sorted(files)
    chance.shuffle(paths)
    for tests in files.values():
        chance.shuffle(tests)
    items[:] = [item for path in paths for item in files[path]]


def _skipped(reporter: pytest.TerminalReporter) -> dict[str, int]:
    """How many tests were skipped, by the reason."""
    found: dict[str, int] = {}
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        found[reason] = found.get(reason, 0) + 1
    return found
