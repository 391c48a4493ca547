"""A real `darkroom serve` with its processes, its log and its metrics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import free_port
from tests.support.warm import Started, darkroom

START_S = 60.0
STOP_S = 40.0
COMMAND = (sys.executable, "-m", "gateway", "serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A line of the process table. `state` begins with Z when it has ended and nobody has asked for its status."""

    pid: int
    parent: int
    state: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A gateway that serves. `seconds` is from the start of its process to its first answer that it is ready."""

    root: str
    log: Path
    process: Started
    seconds: float

    @property
    def base_url(self) -> str:
        """What an SDK is given."""
        return f"{self.root}/openai/v1"

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        families = text_string_to_metric_families(httpx.get(f"{self.root}/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def descendants(self) -> list[Process]:
        """Its child processes, and theirs."""
        table = processes()
        found = [line for line in table if line.parent == self.process.pid]
        for parent in found:
            found += [line for line in table if line.parent == parent.pid]
        return found

    def workers(self) -> list[Process]:
        """The embedded workers among its processes."""
        return [line for line in self.descendants() if "worker" in line.command and line.state[0] != "Z"]


class Serve(Protocol):
    """Starts a gateway with settings of its own, from the environment and the command line."""

    def __call__(self, *arguments: str, ready: int = 200, **environ: str) -> Served: ...


@contextmanager
def serving(
    folder: Path,
    arguments: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    *,
    command: Sequence[str] | None = None,
    ready: int = 200,
) -> Iterator[Served]:
    """Run `darkroom serve` in an empty folder; at the end stop it as an operator does, and see that it ends well.

    It is forked from a warm process, unless `command` says what is to be executed. `ready` is the status of /readyz
    that is waited for: 503 where nothing is there that could serve.
    """
    root = f"http://127.0.0.1:{(port := free_port())}"
    log = folder / "serve.log"
    log.write_bytes(b"")
    given = clean_environ(DARKROOM_DATA=str(folder / "data"), **(environ or {}))
    process: Started
    began = time.monotonic()
    if command is None:
        process = darkroom(["serve", "--port", str(port), *arguments], folder=folder, environ=given, log=log)
    else:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--port", str(port), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=given,
            )
    try:
        _wait_until_ready(process, root, ready, log)
        served = Served(root=root, log=log, process=process, seconds=time.monotonic() - began)
        yield served
        if process.poll() != -signal.SIGKILL:  # a test may have done that
            _stop(served)
    finally:
        process.kill()
        process.wait()


def clean_environ(**more: str) -> dict[str, str]:
    """This environment without settings of Darkroom's or of an SDK's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "OPENAI_"))}
    return {**kept, **more}


def processes() -> list[Process]:
    """The process table."""
    shown = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    )
    columns = (line.split(None, 3) for line in shown.stdout.splitlines())
    return [
        Process(pid=int(pid), parent=int(parent), state=state, command=" ".join(command))
        for pid, parent, state, *command in columns
    ]


def until(condition: Callable[[], object], what: str, seconds: float = START_S) -> None:
    """Wait until something is true, and fail where it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def _wait_until_ready(process: Started, root: str, status: int, log: Path) -> None:
    def ready() -> bool:
        assert process.poll() is None, f"it ended with {process.returncode}\n{log.read_text()}"
        try:
            return httpx.get(f"{root}/readyz").status_code == status
        except httpx.TransportError:
            return False

    until(ready, f"/readyz answers {status}\n{log.read_text()}")


def _left(below: set[int]) -> list[Process]:
    """Those of some processes that are still there a second later: a helper of the library's ends after its parent."""
    deadline = time.monotonic() + 1
    while left := [line for line in processes() if line.pid in below and line.state[0] != "Z"]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def _stop(served: Served) -> None:
    below = {line.pid for line in served.descendants()}
    served.process.send_signal(signal.SIGTERM)
    try:
        code = served.process.wait(STOP_S)
    finally:
        left = _left(below)
        for line in left:
            os.kill(line.pid, signal.SIGKILL)
    log = served.log.read_text()
    assert code == 0, f"it ended with {code}\n{log}"
    assert not left, left
    assert "Traceback" not in log, log
