"""A real `darkroom serve` that is killed and started again, over and over, on one port and one data folder."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.running import START_S, clean_environ
from tests.support.warm import Forked, darkroom

# Short, so that what hangs is soon over; long deadlines, so that no job is given up that would have been done; breakers
# that never open, for it is not the choice of routes that is tested.
PATIENCE: Mapping[str, str] = {
    "DARKROOM_GATEWAY__DEADLINE_S": "60",
    "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "60",
    "DARKROOM_GATEWAY__SUBMIT_TIMEOUT_S": "2",
    "DARKROOM_GATEWAY__POLL_TIMEOUT_S": "0.5",
    "DARKROOM_GATEWAY__DOWNLOAD_TIMEOUT_S": "2",
    "DARKROOM_GATEWAY__GRACE_S": "2",
    "DARKROOM_GATEWAY__LEASE_S": "1",
    "DARKROOM_GATEWAY__LATE_RESULT_S": "60",
    "DARKROOM_GATEWAY__THROTTLE_DEFAULT_S": "0.5",
    "DARKROOM_GATEWAY__BREAKER_UNREACHED": "1000",
    "DARKROOM_GATEWAY__BREAKER_FAILURES": "1000",
    "DARKROOM_PROVIDERS__LOCAL__WORKERS": "[]",
}


@dataclass(slots=True)
class Gateway:
    """One process at a time, at `url`. Its log is written on by each of them."""

    folder: Path
    environ: Mapping[str, str]
    port: int = field(default_factory=free_port)
    starts: int = 0
    _process: Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an SDK is given."""
        return f"{self.url}/openai/v1"

    @property
    def log(self) -> Path:
        return self.folder / f"serve-{self.port}.log"

    @property
    def alive(self) -> bool:
        """Whether a process of it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start a process, and wait until it is ready."""
        self.starts += 1
        environ = {**PATIENCE, "DARKROOM_DATA": str(self.folder / "data"), **self.environ}
        arguments = ["serve", "--port", str(self.port)]
        self._process = darkroom(arguments, folder=self.folder, environ=clean_environ(**environ), log=self.log)
        deadline = time.monotonic() + START_S
        while not self._ready():
            assert self.alive, f"it ended with {self._process.returncode}\n{self.tail()}"
            assert time.monotonic() < deadline, f"not ready in time\n{self.tail()}"
            time.sleep(0.02)

    def send(self, sig: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(sig)

    def kill(self) -> None:
        """End the process at once, wherever it is: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Ask the process to end: SIGTERM."""
        assert self._process is not None
        self._process.terminate()

    def ended(self, seconds: float) -> int:
        """Wait for the process to end by itself; its exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_text()[-4000:]

    def crashes(self) -> list[str]:
        """What the log has of faults of our own."""
        lines = self.log.read_text().splitlines()
        return [line[:1000] for line in lines if "Traceback" in line or ".crashed" in line]

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def gateway(folder: Path, environ: Mapping[str, str]) -> Iterator[Gateway]:
    """A gateway that has been started once; whatever runs of it at the end of the block is killed."""
    made = Gateway(folder, environ)
    try:
        made.start()
        yield made
    finally:
        made.kill()
