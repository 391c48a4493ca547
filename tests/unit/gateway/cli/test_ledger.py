"""`darkroom jobs` and `darkroom costs` as commands, over a ledger that a gateway's own parts have written."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from gateway.ledger.records import AllFailed
from gateway.ledger.store import JobEnd, Ledger
from providers.base import Handle
from providers.errors import Failed
from tests.support import warm
from tests.support.ledgers import attempted, ledger, order

_DAY = 86_400.0
# The middle of two days, so that a run around midnight tells no other days.
_NOW = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()
_BEFORE = _NOW - _DAY


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


def as_process(data: Path, *arguments: str) -> Ran:
    """Run the command with this data folder, as a process of its own."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("DARKROOM")}
    ran = warm.command(arguments, environ={**plain, "DARKROOM_DATA": str(data)})
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def darkroom(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command with a data folder, here: a process would spend most of its time on imports."""

    def run(data: Path, *arguments: str) -> Ran:
        for name in [name for name in os.environ if name.startswith("DARKROOM")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("DARKROOM_DATA", str(data))
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as ended:  # argparse's way
            status = int(ended.code or 0)
        return Ran(status, *capsys.readouterr())

    return run


def printed(ran: Ran) -> list[list[str]]:
    """What a command that went well printed: the words of each line."""
    assert (ran.returncode, ran.stderr) == (0, "")
    return [line.split() for line in ran.stdout.splitlines()]


def told(ran: Ran) -> Any:
    """What a command that went well printed as JSON."""
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three jobs: `img_a` a day before `img_b`, and `img_c`, which goes on."""
    folder = tmp_path_factory.mktemp("written")
    asyncio.run(_write(folder))
    return folder


@pytest.fixture
def data(written: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(written, tmp_path / "data")


async def _write(folder: Path) -> None:
    async with ledger(folder) as opened:
        await _served(opened)
        await _failed(opened)
        going = order(id="img_c", created_at=_NOW + 60)
        await opened.accept(going)
        sent = attempted("img_c", _NOW + 60, id="att_c", handle=Handle(provider="fal", id="fal-3"))
        await opened.sending(going, sent, ())


async def _served(opened: Ledger) -> None:
    """By Replicate, after fal had charged for nothing."""
    asked = order(id="img_a", created_at=_BEFORE, key="key_one", idempotency_key="once")
    rows = [
        attempted("img_a", _BEFORE, id="att_1", state="ended", outcome="failed", cost=20_000, ended_at=_BEFORE + 1),
        attempted(
            "img_a", _BEFORE + 1, id="att_2", provider="replicate", route="replicate", state="ended", outcome="ok",
            cost=12_345, actual=True, ended_at=_BEFORE + 2.5, handle=Handle(provider="replicate", id="rep-1"),
        ),
    ]  # fmt: skip
    await opened.accept(asked)
    for row in rows:
        await opened.sending(asked, row, ())
    result = {"served": {"provider": "replicate"}, "pictures": [{}]}
    opened._clock = lambda: _BEFORE + 2.5
    await opened.ended(asked, rows, JobEnd(state="completed", cost=32_345, result=result))


async def _failed(opened: Ledger) -> None:
    """At fal, for nothing."""
    asked = order(id="img_b", model="other", created_at=_NOW)
    row = attempted(
        "img_b", _NOW, id="att_3", state="ended", outcome="failed", ended_at=_NOW + 1, message="out of memory"
    )
    await opened.accept(asked)
    await opened.sending(asked, row, ())
    opened._clock = lambda: _NOW + 1
    error = AllFailed([Failed("out of memory")], ()).to_json()
    await opened.ended(asked, [row], JobEnd(state="failed", cost=0, error=error))


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("jobs",), 0), (("costs", "--json"), 0), (("jobs", "img_x"), 1), (("jobs", "--purge"), 2)],
    ids=["jobs", "costs", "an unknown job", "a mistake"],
)
def test_as_a_process(darkroom: Run, data: Path, arguments: tuple[str, ...], status: int) -> None:
    """What the other tests call here is what `python -m gateway` does, to the letter."""
    ran = as_process(data, *arguments)

    assert ran.returncode == status
    assert ran == darkroom(data, *arguments)


def test_the_table(darkroom: Run, data: Path) -> None:
    """A line a job, the newest first: when, how it ended, who served it, how long it took and what it cost."""
    head, *lines = printed(darkroom(data, "jobs"))

    assert head[:2] == ["id", "created"]
    assert lines == [
        ["img_c", "2026-03-02", "12:01:00", "in_progress", "made-up", "fal", "-", "0.000000"],
        ["img_b", "2026-03-02", "12:00:00", "failed", "other", "fal", "1.0", "0.000000"],
        ["img_a", "2026-03-01", "12:00:00", "completed", "made-up", "replicate", "2.5", "0.032345"],
    ]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--state", "failed"), ["img_b"]),
        (("--model", "made-up", "--limit", "1"), ["img_c"]),
        (("--provider", "replicate", "--key", "key_one"), ["img_a"]),
    ],
)
def test_filters(darkroom: Run, data: Path, arguments: tuple[str, ...], found: list[str]) -> None:
    """Each filter leaves what it names."""
    page = told(darkroom(data, "jobs", *arguments, "--json"))
    assert [entry["id"] for entry in page["data"]] == found
    assert page["has_more"] is ("--limit" in arguments)


def test_one_job(darkroom: Run, data: Path) -> None:
    """Everything about one job: what was asked, each attempt, what was billed and what is only estimated."""
    text = darkroom(data, "jobs", "img_a").stdout
    lines = [line.split() for line in text.splitlines()]

    assert ["cost", "0.032345", "USD", "(estimate", "0.030000)"] in lines
    assert ["idempotency", "key", "once"] in lines
    assert '"prompt": "a cup"' in text
    assert lines[-2:] == [
        ["1", "fal", "fal", "failed", "1.0", "0.030000", "0.020000", "estimated", "-"],
        ["1", "replicate", "replicate", "ok", "1.5", "0.030000", "0.012345", "billed", "rep-1"],
    ]
    assert (
        "all_providers_failed: No provider returned an image: out of memory." in darkroom(data, "jobs", "img_b").stdout
    )


def test_one_job_as_json(darkroom: Run, data: Path) -> None:
    """For scripts it is what the API tells."""
    found = told(darkroom(data, "jobs", "img_a", "--json"))

    assert (found["object"], found["status"], found["cost"]) == ("request", "completed", 0.032345)
    assert [attempt["cost"] for attempt in found["attempts"]] == [0.02, 0.012345]
    assert found["parameters"] == {"params": {"prompt": "a cup"}}


def test_an_unknown_job(darkroom: Run, data: Path) -> None:
    """It is said, and the status is 1."""
    ran = darkroom(data, "jobs", "img_x")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "no such job: 'img_x'" in ran.stderr


def test_costs(darkroom: Run, data: Path) -> None:
    """By provider the dearest first, by day in order; with what is only estimated, what was lost, and the sum."""
    by_provider = [
        ["fal", "3", "3", "0.020000", "0.020000", "0.020000"],
        ["replicate", "1", "1", "0.012345", "0.000000", "0.000000"],
        ["all", "4", "0.032345", "0.020000", "0.020000"],
    ]
    by_day = [
        ["2026-03-01", "1", "2", "0.032345", "0.020000", "0.020000"],
        ["2026-03-02", "2", "2", "0.000000", "0.000000", "0.000000"],
        ["all", "4", "0.032345", "0.020000", "0.020000"],
    ]
    assert printed(darkroom(data, "costs"))[2:] == by_provider
    assert printed(darkroom(data, "costs", "--by", "day"))[2:] == by_day
    assert [row["key"] for row in told(darkroom(data, "costs", "--by", "key", "--json"))["data"]] == ["key_one", ""]


def test_purge(darkroom: Run, data: Path) -> None:
    """Everything that has ended is forgotten with --before 0s; a job that goes on stays, and so do younger ones."""
    years = printed(darkroom(data, "jobs", "--purge", "--before", "2000w"))
    purged = printed(darkroom(data, "jobs", "--purge", "--before", "0s"))

    assert years[0][:2] == ["0", "jobs"]
    assert purged[0][:2] == ["2", "jobs"]
    assert [entry["id"] for entry in told(darkroom(data, "jobs", "--json"))["data"]] == ["img_c"]


def test_purge_keeps_what_a_repeated_call_is_given(darkroom: Run, tmp_path: Path) -> None:
    """A job whose key is in force stays with its bill, without what was asked: else the call would buy again."""
    asked = order(idempotency_key="k", id="img_young")

    async def fill() -> None:
        async with ledger(tmp_path) as opened:
            await opened.accept(asked)
            await opened.ended(asked, (), JobEnd(state="completed", cost=30_000))

    asyncio.run(fill())
    purged = told(darkroom(tmp_path, "jobs", "--purge", "--before", "0s", "--json"))
    assert (purged["count"], purged["kept"]) == (0, 1)
    assert (
        "1 job with a valid idempotency key was kept" in darkroom(tmp_path, "jobs", "--purge", "--before", "0s").stdout
    )
    [job] = told(darkroom(tmp_path, "jobs", "--json"))["data"]
    assert (job["id"], job["cost"]) == ("img_young", 0.03)
    assert not told(darkroom(tmp_path, "jobs", "img_young", "--json"))["parameters"]


def test_purge_as_json(darkroom: Run, data: Path) -> None:
    """For scripts the number alone."""
    purged = told(darkroom(data, "jobs", "--purge", "--before", "0s", "--json"))
    assert (purged["object"], purged["count"]) == ("jobs.purged", 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--purge",),
        ("--purge", "--before", "0s", "--model", "other"),
        ("img_a", "--purge", "--before", "0s"),
        ("--purge", "--before", "0s", "--since", "1h"),
        ("--before", "0s"),
        ("--purge", "--before", "soon"),
        ("--limit", "0"),
        ("--limit=-1",),
    ],
    ids=" ".join,
)
def test_nothing_is_forgotten_by_mistake(darkroom: Run, data: Path, arguments: tuple[str, ...]) -> None:
    """Options that do not go together, or mean nothing, are told with status 2, and every job is still there."""
    ran = darkroom(data, "jobs", *arguments)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "error: " in ran.stderr
    assert len(told(darkroom(data, "jobs", "--json"))["data"]) == 3


def test_ages_beyond_all_time(darkroom: Run, data: Path) -> None:
    """An age from before the epoch means everything there is."""
    assert printed(darkroom(data, "costs", "--since", "99999999w"))[-1][0] == "all"
    assert len(told(darkroom(data, "jobs", "--since", "99999999w", "--json"))["data"]) == 3


@pytest.mark.parametrize("arguments", [("jobs",), ("jobs", "--purge", "--before", "1d"), ("costs",)])
def test_no_ledger(darkroom: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Where there is no ledger a sentence says so, the status is 2, and nothing is created."""
    ran = darkroom(tmp_path / "none", *arguments)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "DARKROOM_DATA" in ran.stderr
    assert "no file" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_question_changes_nothing(darkroom: Run, data: Path) -> None:
    """Reading leaves the database's file as it is."""
    file = data / "darkroom.db"
    before = file.read_bytes()
    assert len(told(darkroom(data, "jobs", "--json"))["data"]) == 3
    assert file.read_bytes() == before
