"""`python -m tests.audit FILE…`: known holes in what the lock files name, where their data can be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.audit.verdict import verdict

_MOST_S = 120
_CONNECT_S = 5


def main(paths: list[str]) -> int:
    """Ask for each file; 1 where there is a hole. Where nothing can be asked, one line says so."""
    worst = 0
    for path in paths:
        command = [str(Path(sys.executable).with_name("pip-audit")), "-r", path, "--require-hashes", "--disable-pip"]
        command += ["--progress-spinner", "off", "--timeout", str(_CONNECT_S), "--format", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_S, check=False)
            status, lines = verdict(done.returncode, done.stdout, done.stderr)
        except subprocess.TimeoutExpired:
            status, lines = 0, [f"skipped: no answer within {_MOST_S} s"]
        for line in lines:
            print(f"pip-audit {path}: {line}")
        worst = max(worst, status)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
