"""The worker that a gateway starts for itself."""

from __future__ import annotations

import os
import signal
import site
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# A child that lived this long was well: what ended it is not what ended the one before.
_WELL_S = 10.0
# How long a child has for answering what was cancelled at the end of its grace.
_LAST_S = 1.0
# What a child needs of the environment. It decodes strangers' pictures, so keys are kept from it.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_", "TZ", "TMP", "TEMP", "PYTHON", "VIRTUAL_ENV", "LD_", "DYLD_", "MALLOC_")


class EmbeddedWorker:
    """A worker as a child process, on a loopback address that stays the same however often it is started again.

    The socket is bound and kept here: connections that come while no child is there wait for the next one. A child
    that dies is started again, after 0.1 s at first and up to 5 s when it keeps dying. It does not outlive this
    process, however that ends: it holds the reading end of a pipe, and nobody but this process holds the other.

    `arguments` are those of `python -m providers.worker`. The worker's config file is for workers that the user starts,
    and not read for this one.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self._arguments = tuple(arguments)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self._url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        # Neither end is inherited, but for the one that a child is handed.
        self._read_end, self._write_end = os.pipe()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Base URL, valid from the beginning; nothing answers before `start`."""
        return self._url

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        with self._lock:
            return self._child.pid if self._child and self._child.returncode is None else None

    def start(self) -> None:
        """Start the child and keep it running. Does not wait for it. Raises OSError where it cannot be started."""
        if self._keeper is not None or self._stopping.is_set():
            raise RuntimeError("an embedded worker is started once")
        first = self._spawn()
        self._keeper = threading.Thread(target=self._keep, args=(first,), name="embedded-worker", daemon=True)
        self._keeper.start()

    def stop(self, grace: float) -> None:
        """Let the child finish what it has for `grace` seconds; then have it cancel that, and kill it a second later.

        Returns when it is gone. Does nothing the second time.
        """
        with self._lock:
            if self._stopping.is_set():
                return
            self._stopping.set()
            if self._child:
                self._child.send_signal(signal.SIGTERM)
        if self._keeper:
            self._keeper.join(grace)
            assert self._child
            for last in (signal.SIGTERM, signal.SIGKILL):
                if self._keeper.is_alive():
                    self._child.send_signal(last)
                    self._keeper.join(_LAST_S)
        self._listening.close()
        os.close(self._write_end)
        os.close(self._read_end)

    def _keep(self, child: subprocess.Popen[bytes] | None) -> None:
        """Wait for a child and start the next, until `stop`."""
        pause = _FIRST_PAUSE_S
        while child is not None:
            began = time.monotonic()
            status = child.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began >= _WELL_S:
                pause = _FIRST_PAUSE_S
            _say(f"it ended with status {status}; it is started again in {pause:g} s")
            child = None
            while child is None and not self._stopping.wait(pause):
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                try:
                    child = self._spawn()
                except OSError as error:
                    _say(f"it cannot be started: {error}; the next try is in {pause:g} s")

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """Start a child; None where `stop` was first."""
        handed = (self._listening.fileno(), self._read_end)
        with self._lock:
            if self._stopping.is_set():
                return None
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
                [
                    sys.executable,
                    # Without the working directory, where somebody else's `providers` may lie.
                    "-P",
                    "-m",
                    "providers.worker",
                    f"--fd={handed[0]}",
                    f"--parent-fd={handed[1]}",
                    # The grace is kept by `stop`.
                    "--grace=600",
                    f"--config={os.devnull}",
                    *self._arguments,
                ],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                env=_environment(),
                # Ctrl-C in a terminal reaches all of its group; the child is told by `stop`, after the gateway's jobs.
                process_group=0,
            )
            return self._child


def _environment() -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    root = str(Path(__file__).resolve().parents[2])
    # From a checkout that is not installed, this process found the package by its working directory.
    if root not in site.getsitepackages():
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH", "")]))
    return environ


def _say(text: str) -> None:
    sys.stderr.write(f"embedded worker: {text}\n")
