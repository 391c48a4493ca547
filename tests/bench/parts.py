"""Where a call's time goes, by a sampling profiler from outside: by thread and by part of the path."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from tests.bench import pictures
from tests.bench.report import table
from tests.bench.side_by_side import stage

_SECONDS = 8
_CALLS = 1500
# A part is what the innermost of these in a stack says: files of this house, by the beginning of their paths.
_PARTS: tuple[tuple[str, str], ...] = (
    ("gateway/api/multipart", "form"),
    ("gateway/api/form", "form"),
    ("gateway/api/body", "form"),
    ("gateway/api/request", "fields"),
    ("gateway/api/placing", "fingerprint"),
    ("gateway/routing", "plan and route"),
    ("normalization/plan", "plan and route"),
    ("normalization/headers", "looking at pictures"),
    ("normalization/strip", "looking at pictures"),
    ("normalization", "finish"),
    ("gateway/jobs/making", "finish"),
    ("gateway/jobs/imaging", "finish"),
    ("gateway/jobs/files", "keeping the file"),
    ("gateway/database", "ledger"),
    ("gateway/jobs/ledger", "ledger"),
    ("gateway/jobs/rows", "ledger"),
    ("gateway/access", "keys and limits"),
    ("gateway/api/gate", "keys and limits"),
    ("providers", "upstream HTTP"),
    ("gateway/api/reply", "reply"),
    ("gateway/telemetry", "log and metrics"),
    ("gateway/api/edge", "edge"),
    ("gateway/protocol", "server"),
    ("gateway/jobs", "job"),
    ("gateway", "rest of the gateway"),
)


def measure(folder: Path) -> None:
    """Print what each thread takes for a call, and the shares of the parts, while 16 call at once."""
    found = Path(sys.executable).with_name("py-spy")
    stacks = folder / "stacks"
    with stage(folder, pictures.SIDES, pictures.FACTOR, plain=False) as compared:
        server = compared.servers["darkroom"]
        before = server.threads()
        compared.block("darkroom", _CALLS // 2, 16)
        spent: dict[str, float] = defaultdict(float)
        after = server.threads()
        dumped = subprocess.run(
            [str(found), "dump", "-p", str(server.pid), "--nonblocking", "--json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        names = {thread["os_thread_id"]: thread["thread_name"] for thread in json.loads(dumped.stdout)}
        for task, ms in after.items():
            spent[_thread(names.get(task, ""))] += ms - before.get(task, 0.0)
        per_call = [(kind, ms / (_CALLS // 2)) for kind, ms in sorted(spent.items())]
        profiler = subprocess.Popen(
            [str(found), "record", "-p", str(server.pid), "-d", str(_SECONDS), "-r", "500",
             "--nonblocking", "-t", "-F", "-f", "raw", "-o", str(stacks)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        compared.block("darkroom", _CALLS, 16)
        profiler.wait(60)
    lines = stacks.read_text().splitlines()
    table("Threads", ["", "CPU ms a call"], per_call, "16 at once.")
    parts: Counter[tuple[str, str]] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        parts[_thread(frames[0]), _part(frames)] += int(count)
    whole = parts.total()
    rows = [(*key, f"{count / whole:.1%}") for key, count in parts.most_common() if count > whole / 200]
    table("Parts of the path", ["thread", "part", "of all samples"], rows, "Samples of running threads, 16 at once.")


def _thread(name: str) -> str:
    if "MainThread" in name:
        return "event loop"
    return "ledger" if name.endswith("ledger") else "pools"


def _part(frames: Sequence[str]) -> str:
    for frame in reversed(frames):
        for beginning, name in _PARTS:
            if "site-packages" not in frame and (f"({beginning}" in frame or f"/{beginning}" in frame):
                return name
    return "server"
