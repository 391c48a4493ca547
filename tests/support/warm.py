"""`darkroom` commands that start at once, as they are forked from a process that has imported everything already.

Imports are most of what a start takes, and the tests start hundreds. Each is a process of its own all the same, with
its own environment, folder, output and signals. What a start from nothing is like has tests of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from tests.support.paths import ROOT

_IMPORTED = ["gateway.app", "gateway.cli.serve", "gateway.__main__"]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(_IMPORTED)


class Started(Protocol):
    """What the tests use of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Forked:
    """A forked process, used as one of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process

    @property
    def returncode(self) -> int | None:
        """The exit status as it was last asked for; None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit status, None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status at the end. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("darkroom", timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def darkroom(
    arguments: Sequence[str], *, folder: Path, environ: Mapping[str, str], log: Path, errors: Path | None = None
) -> Forked:
    """Start a `darkroom` command in a folder; it prints to the end of `log`, and its errors to that of `errors`."""
    given = list(arguments), dict(environ), str(folder), str(log), str(errors or log)
    # It may start processes of its own, so that it cannot be a daemon of multiprocessing: who starts it ends it.
    process = _FORKS.Process(target=_run, args=given, daemon=False)
    process.start()
    return Forked(process)


def command(
    arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path = ROOT, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a `darkroom` command to its end. Raises subprocess.TimeoutExpired."""
    with TemporaryDirectory() as scratch:
        output, errors = Path(scratch, "output"), Path(scratch, "errors")
        process = darkroom(arguments, folder=folder, environ=environ, log=output, errors=errors)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(list(arguments), code, output.read_text(), errors.read_text())


def _run(arguments: list[str], environ: dict[str, str], folder: str, log: str, errors: str) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    for number, path in ((1, log), (2, errors)):
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, number)
        os.close(output)
    sys.argv = ["darkroom", *arguments]

    from gateway.__main__ import main

    sys.exit(main(arguments))
