"""The official Node SDK, newest and the one before, as clients of a real gateway: the suite is `node/suite.mjs`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import COFFEE, ROOT
from tests.support.running import Served, clean_environ

FOLDER = ROOT / "tests" / "node"
NODE = Path(sys.executable).parent / "node"


@pytest.mark.parametrize("sdk", ["openai", "openai6"])
def test_suite(server: Served, sdk: str) -> None:
    """Every test of the suite passes."""
    assert (FOLDER / "node_modules" / sdk).is_dir(), "the Node packages are not there: `make test` installs them"
    environ = clean_environ(DARKROOM_BASE_URL=server.base_url, DARKROOM_PHOTO=str(COFFEE), DARKROOM_SDK=sdk)
    command = [str(NODE), "--test-reporter=tap", "suite.mjs"]
    ran = subprocess.run(command, cwd=FOLDER, env=environ, capture_output=True, text=True, timeout=100)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# fail 0" in ran.stdout
    print(*[line for line in ran.stdout.splitlines() if line.startswith(("# tests", "# pass"))])
