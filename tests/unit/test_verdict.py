"""A hole is told from a database that cannot be reached; both fail."""

import json
import subprocess

import pytest

from tests.audit.__main__ import main
from tests.audit.verdict import verdict

CLEAN = {"name": "a", "version": "1", "vulns": []}
HOLE = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"], "aliases": []}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("status", "found", "ours", "said"),
    [
        (0, [CLEAN], 0, "1 packages without a known hole"),
        (1, [CLEAN, HOLE], 1, "b 2: PYSEC-1, mended in 3"),
        (1, [SKIPPED, HOLE], 1, "b 2: PYSEC-1, mended in 3"),
        (0, [CLEAN, SKIPPED], 2, "not asked: c (not found)"),
        (0, [SKIPPED, SKIPPED], 2, "not asked: "),
        (0, [], 2, "not asked: "),
    ],
)
def test_answers(status: int, found: list[dict[str, object]], ours: int, said: str) -> None:
    """A hole fails, whatever could not be asked beside it; so does what was not asked for, with a status of its own."""
    got, lines = verdict(status, json.dumps({"dependencies": found, "fixes": []}), "")

    assert got == ours
    assert any(line.startswith(said) for line in lines), lines


def test_without_an_answer() -> None:
    """Nobody has looked then: that is no pass, whatever the reason."""
    assert verdict(1, "", "requests.exceptions.ConnectionError: …")[0] == 2
    assert verdict(1, "", "usage: pip-audit …")[0] == 2
    assert verdict(1, "[]", "")[0] == 2


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (([CLEAN],), 0),
        (([CLEAN], None), 2),
        (([CLEAN, HOLE], None), 1),
        ((None, [CLEAN, HOLE]), 1),
        (([SKIPPED], [CLEAN]), 2),
    ],
)
def test_of_several_files(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[list[dict[str, object]] | None, ...], status: int
) -> None:
    """A hole in one of them counts for more than that another could not be asked for, and that for more than none."""
    left = list(answers)

    def run(command: list[str], **more: object) -> subprocess.CompletedProcess[str]:
        found = left.pop(0)
        if found is None:
            raise subprocess.TimeoutExpired(command, 120)
        return subprocess.CompletedProcess(command, 0, json.dumps({"dependencies": found}), "")

    monkeypatch.setattr(subprocess, "run", run)
    assert main([f"{number}.lock" for number in range(len(answers))]) == status
