"""Results that are small on the wire and huge once they are inflated, many at once: memory stays bounded."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.chaos.gateway import PATIENCE, Gateway, gateway
from tests.chaos.providers import Clouds, clouds
from tests.simulators.common import Fault
from tests.support.hooked import ask, caller

BOMBS = 6
INFLATED = 256 << 20
# All results together may take half a gibibyte in memory; beside it a process has its own, and one result is there
# twice while its pieces are joined. Without a bound the six are a gibibyte and a half.
MOST_MB = 900


@contextmanager
def served(folder: Path) -> Iterator[tuple[Gateway, Clouds]]:
    """A gateway in a process of its own, that takes results of any size in bytes."""
    seconds = {"DEADLINE_S": "60", "ATTEMPT_TIMEOUT_S": "50", "DOWNLOAD_TIMEOUT_S": "40", "LATE_RESULT_S": "1"}
    settings = {"MAX_RESULT_BYTES": str(400 << 20), **seconds}
    environ = {**PATIENCE, **{f"DARKROOM_GATEWAY__{name}": value for name, value in settings.items()}}
    with clouds("fal", "replicate") as there, gateway(folder, {**environ, **there.environ}) as process:
        yield process, there


def peak_mb(pid: int) -> float:
    """The most memory that a process has had, in megabytes."""
    [found] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found) / 1e3


PLAIN = b"\x89PNG\r\n\x1a\n".ljust(INFLATED, b"\0")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("provider", "encoding"), [("fal", "gzip"), ("replicate", "gzip"), ("replicate", "identity")])
def test_six_bombs_at_once(tmp_path: Path, provider: str, encoding: str) -> None:
    """Each is refused or given up, and together they take no more than the bound on results."""
    bomb = gzip.compress(PLAIN, 6) if encoding == "gzip" else PLAIN
    headers = {"content-encoding": encoding, "content-type": "image/png"}
    with served(tmp_path) as (process, there), ThreadPoolExecutor(BOMBS) as pool:
        fault = Fault(kind="answer", status=200, body=bomb, headers=headers)
        there.sims[provider].faults.script("download", *[fault] * 60)
        before = peak_mb(process.pid)

        def one(number: int) -> httpx.Response:
            with caller(process.url) as client:
                client.timeout = httpx.Timeout(120)
                return ask(client, prompt=f"bomb {number}", routing=json.dumps({"only": [provider]}))

        answers = list(pool.map(one, range(BOMBS)))
        peak = peak_mb(process.pid)

    print(f"{before:.0f} MB before, {peak:.0f} MB at the most")
    assert {answer.status_code for answer in answers} <= {502, 504}, [answer.text[:300] for answer in answers]
    assert peak < MOST_MB
