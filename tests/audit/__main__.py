"""`python -m tests.audit FILE…`: known holes in what the lock files name; it fails where it could not look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.audit.verdict import CLEAN, HOLES, UNASKED, verdict

_MOST_S = 120
_CONNECT_S = 5


def main(paths: list[str]) -> int:
    """Ask for each file; 1 where there is a hole, 2 where one of them, or a part of one, could not be asked for."""
    found = {CLEAN}
    for path in paths:
        command = [str(Path(sys.executable).with_name("pip-audit")), "-r", path, "--require-hashes", "--disable-pip"]
        command += ["--progress-spinner", "off", "--timeout", str(_CONNECT_S), "--format", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_S, check=False)
            status, lines = verdict(done.returncode, done.stdout, done.stderr)
        except subprocess.TimeoutExpired:
            status, lines = UNASKED, [f"not asked: no answer within {_MOST_S} s"]
        for line in lines:
            print(f"pip-audit {path}: {line}")
        found.add(status)
    return HOLES if HOLES in found else max(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
