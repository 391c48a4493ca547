"""`make fuzz`: each property for a while under a fuzzer that is led by coverage, then under hypothesis.

`python -m tests.fuzz --seconds 60` runs them all, `python -m tests.fuzz sniff --seconds 600` one. What breaks a
property is written to `crash-…` in the folder that is named, and becomes a test.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.paths import ROOT

_NAMES = ("form", "sniff", "table", "guard", "wire")
_LARGEST = 32 << 10


def main() -> int:
    """Fuzz, and say how it ended: 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("property", nargs="?", choices=_NAMES)
    parser.add_argument("--seconds", type=int, default=30, help="for each property (default: 30)")
    options = parser.parse_args()
    if sys.version_info >= (3, 14):
        print("Fuzzing needs atheris, which there is for Python 3.11 to 3.13: make PYTHON=python3.13", file=sys.stderr)
        return 2
    if options.property:
        return _fuzz(options.property, options.seconds)
    ends = {name: _in_process(name, options.seconds) for name in _NAMES}
    ends["hypothesis"] = _hypothesis(options.seconds)
    print("\n" + "\n".join(f"{name}: {'nothing found' if code == 0 else 'FOUND'}" for name, code in ends.items()))
    return int(any(ends.values()))


def _in_process(name: str, seconds: int) -> int:
    """Each in a process of its own: the fuzzer takes over the one that it runs in, and ends it."""
    print(f"== {name}", flush=True)
    return subprocess.call([sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds)], cwd=ROOT)


def _hypothesis(seconds: int) -> int:
    print("== hypothesis", flush=True)
    environ = {**os.environ, "DARKROOM_FUZZ_EXAMPLES": str(100 * seconds)}
    return subprocess.call([sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/unit/fuzz"], cwd=ROOT, env=environ)


def _fuzz(name: str, seconds: int) -> int:
    # It has no types, and is not there on every Python.
    atheris = importlib.import_module("atheris")
    # Everything that is imported here is counted, and nothing of what others wrote.
    with atheris.instrument_imports(include=["gateway.api", "normalization", "providers"]):
        properties = importlib.import_module("tests.fuzz.properties")
        seeds = importlib.import_module("tests.fuzz.seeds")
    folder = Path(tempfile.mkdtemp(prefix=f"darkroom-fuzz-{name}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds.seeds(name)):
        (corpus / str(number)).write_bytes(seed)
    print(f"what breaks it is written to {folder}", flush=True)
    arguments = (f"-max_total_time={seconds}", f"-max_len={_LARGEST}", "-timeout=10", "-rss_limit_mb=1024")
    atheris.Setup(
        [sys.argv[0], *arguments, f"-artifact_prefix={folder}/", "-verbosity=1", "-print_final_stats=1", str(corpus)],
        properties.PROPERTIES[name],
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
