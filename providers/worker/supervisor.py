"""The embedded worker, started and supervised by the gateway."""

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
# After running this long a child counts as healthy, and the next restart pause is the shortest again.
_WELL_S = 10.0
# How long a child may take to respond to predictions cancelled at the end of the grace period.
_LAST_S = 1.0
# The environment variables that a child needs. It decodes untrusted images, so it gets no keys.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_", "TZ", "TMP", "TEMP", "PYTHON", "VIRTUAL_ENV", "LD_", "DYLD_", "MALLOC_")


class EmbeddedWorker:
    """A worker as a child process, on a loopback address that stays the same across restarts.

    The socket is bound and kept here, so that connections wait while the child restarts. A child that dies is restarted
    after 0.1 s, and after up to 5 s if it keeps dying. It never outlives this process: it holds the read end of a pipe,
    and only this process holds the write end.

    `arguments` are those of `python -m providers.worker`. The worker's config file is only for workers started by the
    user; it is not read for this one.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self._arguments = tuple(arguments)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self._url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        # Neither end is inherited, except for the read end that is passed to the child.
        self._read_end, self._write_end = os.pipe()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Base URL, fixed from the beginning; nothing responds before `start`."""
        return self._url

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while none is running."""
        with self._lock:
            return self._child.pid if self._child and self._child.returncode is None else None

    def start(self) -> None:
        """Start the child and keep it running. Returns at once. Raises OSError if it cannot be started."""
        if self._keeper is not None or self._stopping.is_set():
            raise RuntimeError("an embedded worker can only be started once")
        first = self._spawn()
        self._keeper = threading.Thread(target=self._keep, args=(first,), name="embedded-worker", daemon=True)
        self._keeper.start()

    def stop(self, grace: float) -> None:
        """Let the child finish its work for `grace` seconds; then cancel it, and kill the child a second later.

        Returns when the child has ended. Idempotent.
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
        """Restart the child whenever it ends, until `stop`."""
        pause = _FIRST_PAUSE_S
        while child is not None:
            began = time.monotonic()
            status = child.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began >= _WELL_S:
                pause = _FIRST_PAUSE_S
            _print(f"ended with status {status}; restarting in {pause:g} s")
            child = None
            while child is None and not self._stopping.wait(pause):
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                try:
                    child = self._spawn()
                except OSError as error:
                    _print(f"cannot be started: {error}; retrying in {pause:g} s")

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """Start a child; None if `stop` was called."""
        handed = (self._listening.fileno(), self._read_end)
        with self._lock:
            if self._stopping.is_set():
                return None
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
                [
                    sys.executable,
                    # Without the working directory in the path, which may contain another `providers`.
                    "-P",
                    "-m",
                    "providers.worker",
                    f"--fd={handed[0]}",
                    f"--parent-fd={handed[1]}",
                    # `stop` enforces the grace period.
                    "--grace=600",
                    f"--config={os.devnull}",
                    *self._arguments,
                ],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                env=_environment(),
                # Ctrl-C reaches the whole process group; `stop` signals the child, after the gateway's jobs.
                process_group=0,
            )
            return self._child


def _environment() -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    root = str(Path(__file__).resolve().parents[2])
    # In a checkout that is not installed, this process imports the package from its working directory.
    if root not in site.getsitepackages():
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH", "")]))
    return environ


def _print(text: str) -> None:
    sys.stderr.write(f"embedded worker: {text}\n")
