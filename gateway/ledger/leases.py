"""Leases: which of the processes that share a database are alive.

Each process renews its lease in a row of its own. The others watch that row by their own monotonic clocks: a process is
silent once its row has not changed for as long as a lease, whatever the wall clocks say, the database's included.

Beside the embedded database each process also holds a lock on a file, which the kernel releases when the process ends:
a process that is silent and holds its lock is slow or paused, not dead. Creating a lock file and locking it, checking
one and removing one all happen under one lock over the folder. Otherwise another process could find a new file before
its owner has locked it, take it for that of a dead process, and remove it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from gateway.database.engine import database_time
from gateway.database.schema import PROCESSES
from gateway.database.writer import Database
from gateway.process import ticks
from gateway.telemetry.logs import event

# The folder's lock is held for a few system calls at a time.
_WAIT_S = 5.0
_LOOK_S = 0.005


class LockFiles:
    """The lock of one process, `name`, beside those of the others. It blocks: call it from a thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._path = folder / name
        self._mine: int | None = None

    def reservation(self) -> None:
        """Hold this process's lock: a file that is missing, or that was replaced, is made again. Raises OSError."""
        with self._alone():
            if self._mine is not None and _is_at(self._mine, self._path):
                return
            fresh = _locked(self._path, create=True)
            if self._mine is not None:
                os.close(self._mine)
            self._mine = fresh

    def tidy(self) -> None:
        """Remove the files of processes that are no more. Raises OSError."""
        with self._alone():
            for path in self._folder.iterdir():
                if path != self._path and _is_free(path):
                    path.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the lock back, and remove its file. Without the folder's lock the file stays for another to remove."""
        if self._mine is None:
            return
        with contextlib.suppress(OSError), self._alone():
            if _is_at(self._mine, self._path):
                self._path.unlink()
        os.close(self._mine)
        self._mine = None

    def is_free(self, name: str) -> bool:
        """Whether no process holds this lock. Where that cannot be told it is not free."""
        try:
            with self._alone():
                return _is_free(self._folder / name)
        except OSError:
            return False

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock over the folder, which is made where it is missing. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            end = time.monotonic() + _WAIT_S
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(_LOOK_S)
            yield
        finally:
            os.close(folder)


def _is_free(path: Path) -> bool:
    try:
        taken = _locked(path, create=False)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    os.close(taken)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _locked(path: Path, *, create: bool) -> int:
    """Open a file and hold its lock. Raises OSError where another process does, or it is not there."""
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


# Rows of processes that are long gone.
_FORGET_S = 86_400.0


class Leases:
    """This process among the others. `folder` is where the locks are; None where processes may be on other machines.

    `clock` counts seconds, never jumps, and goes on while the machine sleeps.
    """

    def __init__(
        self, database: Database, *, lease_s: float, folder: Path | None, clock: Callable[[], float] = ticks
    ) -> None:
        self.id = f"proc_{secrets.token_hex(8)}"
        self._database = database
        self._lease_s = lease_s
        self._locks = LockFiles(folder, self.id) if folder is not None else None
        self._clock = clock
        self._beaten: float | None = None
        self._heard = False
        # Two threads look: the one that writes and those that read.
        self._looking = threading.Lock()
        self._looked = clock()
        self._seen: dict[str, tuple[float, float]] = {}

    @property
    def heard(self) -> bool:
        """Whether the last try to renew the lease went well, and the lease has not lapsed since."""
        return self._heard and self._beaten is not None and self._clock() - self._beaten < self._lease_s

    @property
    def sure(self) -> bool:
        """Whether no other process can take this one for gone, for a third of a lease from now at least."""
        return self._beaten is not None and self._clock() - self._beaten < self._lease_s * 2 / 3

    def lock(self) -> None:
        """Take this process's own lock, and remove the files of those who are gone. Raises OSError."""
        if self._locks is not None:
            self._locks.reservation()
            self._locks.tidy()

    def unlock(self) -> None:
        """Give the lock back."""
        if self._locks is not None:
            self._locks.release()

    async def heartbeat(self) -> None:
        """Renew the lease, and look at those of the others. Raises LedgerDown."""
        began = self._clock()
        try:
            await self._database.write(self._beat)
        except BaseException:
            self._heard = False
            raise
        self._beaten, self._heard = began, True

    async def leave(self) -> None:
        """Give the lease up. Raises LedgerDown."""
        gone = delete(PROCESSES).where(PROCESSES.c.id == self.id)
        await self._database.write(lambda connection: connection.execute(gone))

    def gone(self, connection: Connection, process: str) -> bool:
        """Whether a process is certain to be at work no more: it is silent, and its lock is free."""
        return self.silent(connection, process) and (self._locks is None or self._locks.is_free(process))

    def silent(self, connection: Connection, process: str) -> bool:
        """Whether a process has left, or has not been heard of for as long as a lease."""
        if process == self.id:
            return False
        heartbeat = connection.execute(select(PROCESSES.c.beat_at).where(PROCESSES.c.id == process)).scalar()
        return heartbeat is None or self._look({process: heartbeat})[process]

    async def beats(self) -> dict[str, float]:
        """When each process was last heard of, by the database's clock. Raises LedgerDown."""
        rows = select(PROCESSES.c.id, PROCESSES.c.beat_at)
        return await self._database.read(lambda connection: {row.id: row.beat_at for row in connection.execute(rows)})

    def _beat(self, connection: Connection) -> None:
        self._keep_lock()
        now = database_time(connection)
        values = {"beat_at": now, "lease_until": now + self._lease_s}
        if not connection.execute(update(PROCESSES).where(PROCESSES.c.id == self.id).values(values)).rowcount:
            connection.execute(insert(PROCESSES).values(id=self.id, **values))
        others = select(PROCESSES.c.id, PROCESSES.c.beat_at).where(PROCESSES.c.id != self.id)
        beats = {row.id: row.beat_at for row in connection.execute(others)}
        silent = self._look(beats)
        for name in self._seen.keys() - beats.keys():
            self._seen.pop(name, None)
        # By the database's clock alone a step of it would remove those who are alive.
        old = [name for name, heartbeat in beats.items() if silent[name] and heartbeat < now - _FORGET_S]
        if old:
            connection.execute(delete(PROCESSES).where(PROCESSES.c.id.in_(old)))

    def _keep_lock(self) -> None:
        if self._locks is None:
            return
        try:
            self._locks.reservation()
        except OSError as error:
            # The lease alone keeps the others away then.
            event("process.lock_not_held", logging.ERROR, error=type(error).__name__)

    def _look(self, beats: dict[str, float]) -> dict[str, bool]:
        """Take in the rows of others, and say who of them has been silent for as long as a lease."""
        with self._looking:
            now = self._clock()
            if now - self._looked >= self._lease_s:
                # It is this process that was paused, or the database that was away: the others could not be heard.
                self._seen.clear()
            self._looked = now
            for name, heartbeat in beats.items():
                if name not in self._seen or self._seen[name][0] != heartbeat:
                    self._seen[name] = (heartbeat, now)
            return {name: now - self._seen[name][1] >= self._lease_s for name in beats}
