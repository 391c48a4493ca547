"""A hole is told from a database that cannot be reached."""

import json

import pytest

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
        (0, [CLEAN, SKIPPED], 0, "not asked: c (not found)"),
        (0, [SKIPPED, SKIPPED], 0, "skipped: "),
    ],
)
def test_answers(status: int, found: list[dict[str, object]], ours: int, said: str) -> None:
    """A hole fails, whatever could not be asked beside it; nothing asked at all is said, and is no failure."""
    got, lines = verdict(status, json.dumps({"dependencies": found, "fixes": []}), "")

    assert got == ours
    assert any(line.startswith(said) for line in lines), lines


def test_without_an_answer() -> None:
    """No network is no failure; anything else that is wrong is one."""
    assert verdict(1, "", "requests.exceptions.ConnectionError: …")[0] == 0
    assert verdict(1, "", "usage: pip-audit …")[0] == 1
    assert verdict(1, "[]", "")[0] == 1
