"""`darkroom serve` with a probe on its event loop. As a program: the same arguments, and the file to write to first.

A task wakes up every few milliseconds and writes down what kept it, in seconds: `late`, how much later than due it woke
up; `worked`, the processor time that the loop's thread used since the last time; `queued`, how long that thread stood
ready and other programs had the processors. `at` is the system's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from starlette.types import ASGIApp, Receive, Scope, Send

EVERY_S = 0.002
WORTH_TELLING_S = 0.003
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One wakening that something kept back."""

    at: float
    late: float
    worked: float
    queued: float


def read(file: Path) -> list[Beat]:
    """What a probe has written so far."""
    return [Beat(**json.loads(line)) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def probed(app: ASGIApp, file: Path) -> ASGIApp:
    """The application, with the probe beside it for as long as it runs."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        with file.open("w", buffering=1) as output:
            probe = asyncio.create_task(_beat(output))
            try:
                await app(scope, receive, send)
            finally:
                probe.cancel()

    return wrapped


async def _beat(output: TextIO) -> None:
    loop = asyncio.get_running_loop()
    worked, queued = time.thread_time(), _queued()
    while True:
        due = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        late = loop.time() - due
        now_worked, now_queued = time.thread_time(), _queued()
        heartbeat = Beat(at=time.monotonic(), late=late, worked=now_worked - worked, queued=now_queued - queued)
        if max(heartbeat.late, heartbeat.worked) > WORTH_TELLING_S:
            output.write(json.dumps(asdict(heartbeat)) + "\n")
        worked, queued = now_worked, now_queued


def _queued() -> float:
    """Seconds that this thread was ready to run and did not, since it began; 0 where the system does not tell."""
    try:
        return int(_SCHEDSTAT.read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0


def main() -> int:
    """Serve."""
    import gateway.app
    from gateway.__main__ import main as darkroom

    file, create = Path(sys.argv[1]), gateway.app.create
    gateway.app.create = lambda: probed(create(), file)
    return darkroom(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
