"""Leases: which of the processes that share a database are alive.

Each process renews its lease in a row of its own. The others watch that row by their own monotonic clocks: a process is
silent once its row has not changed for the duration of a lease, whatever the wall clocks and the database's clock say.

With the embedded database each process also holds a lock on a file, which the kernel releases when the process ends:
a process that is silent and holds its lock is slow or paused, not dead. Lock files are created, locked, checked and
removed only under a lock on the folder. Otherwise another process could find a new file before its owner has locked
it, mistake it for that of a dead process, and remove it.
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
    """The lock file `name` of one process, among those of the others. It blocks: call it from a thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._path = folder / name
        self._mine: int | None = None

    def reservation(self) -> None:
        """Hold this process's lock; a missing or replaced file is created again. Raises OSError."""
        with self._alone():
            if self._mine is not None and _is_at(self._mine, self._path):
                return
            fresh = _locked(self._path, create=True)
            if self._mine is not None:
                os.close(self._mine)
            self._mine = fresh

    def tidy(self) -> None:
        """Remove the lock files of dead processes. Raises OSError."""
        with self._alone():
            for path in self._folder.iterdir():
                if path != self._path and _is_free(path):
                    path.unlink(missing_ok=True)

    def release(self) -> None:
        """Release the lock and remove its file. If the folder cannot be locked, another process removes the file."""
        if self._mine is None:
            return
        with contextlib.suppress(OSError), self._alone():
            if _is_at(self._mine, self._path):
                self._path.unlink()
        os.close(self._mine)
        self._mine = None

    def is_free(self, name: str) -> bool:
        """Whether no process holds this lock; false if that cannot be determined."""
        try:
            with self._alone():
                return _is_free(self._folder / name)
        except OSError:
            return False

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock on the folder, which is created if missing. Raises OSError."""
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
    """Open a file and lock it. Raises OSError if another process holds the lock or the file does not exist."""
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


# The age at which rows of dead processes are deleted, in seconds.
_FORGET_S = 86_400.0


class Leases:
    """The lease of this process, and its view of the others'. `folder` has the lock files; None if processes may run on
    other machines.

    `clock` counts seconds, never jumps, and includes the time while the machine sleeps.
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
        self._renewed = False
        # The writer thread and the reader threads both call `_look`.
        self._looking = threading.Lock()
        self._looked = clock()
        self._seen: dict[str, tuple[float, float]] = {}

    @property
    def renewed(self) -> bool:
        """Whether the last renewal of the lease succeeded, and the lease has not lapsed since."""
        return self._renewed and self._beaten is not None and self._clock() - self._beaten < self._lease_s

    @property
    def sure(self) -> bool:
        """Whether no other process can consider this one dead for at least a third of a lease from now."""
        return self._beaten is not None and self._clock() - self._beaten < self._lease_s * 2 / 3

    def lock(self) -> None:
        """Acquire this process's lock, and remove the lock files of dead processes. Raises OSError."""
        if self._locks is not None:
            self._locks.reservation()
            self._locks.tidy()

    def unlock(self) -> None:
        """Release the lock."""
        if self._locks is not None:
            self._locks.release()

    async def heartbeat(self) -> None:
        """Renew the lease, and check those of the others. Raises LedgerDown."""
        began = self._clock()
        try:
            await self._database.write(self._beat)
        except BaseException:
            self._renewed = False
            raise
        self._beaten, self._renewed = began, True

    async def leave(self) -> None:
        """Delete the lease. Raises LedgerDown."""
        gone = delete(PROCESSES).where(PROCESSES.c.id == self.id)
        await self._database.write(lambda connection: connection.execute(gone))

    def is_dead(self, connection: Connection, process: str) -> bool:
        """Whether a process is certainly dead: it is silent, and its lock is free."""
        return self.is_silent(connection, process) and (self._locks is None or self._locks.is_free(process))

    def is_silent(self, connection: Connection, process: str) -> bool:
        """Whether a process has left, or has not renewed its lease for the duration of a lease."""
        if process == self.id:
            return False
        heartbeat = connection.execute(select(PROCESSES.c.beat_at).where(PROCESSES.c.id == process)).scalar()
        return heartbeat is None or self._look({process: heartbeat})[process]

    async def beats(self) -> dict[str, float]:
        """The time of each process's last renewal, by the database's clock. Raises LedgerDown."""
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
        # A step of the database's clock alone must not remove live processes.
        old = [name for name, heartbeat in beats.items() if silent[name] and heartbeat < now - _FORGET_S]
        if old:
            connection.execute(delete(PROCESSES).where(PROCESSES.c.id.in_(old)))

    def _keep_lock(self) -> None:
        if self._locks is None:
            return
        try:
            self._locks.reservation()
        except OSError as error:
            # Then only the lease protects this process's jobs.
            event("process.lock_not_held", logging.ERROR, error=type(error).__name__)

    def _look(self, beats: dict[str, float]) -> dict[str, bool]:
        """Record the rows of other processes; return which of them have been silent for the duration of a lease."""
        with self._looking:
            now = self._clock()
            if now - self._looked >= self._lease_s:
                # This process was paused or the database was unavailable: renewals may have been missed.
                self._seen.clear()
            self._looked = now
            for name, heartbeat in beats.items():
                if name not in self._seen or self._seen[name][0] != heartbeat:
                    self._seen[name] = (heartbeat, now)
            return {name: now - self._seen[name][1] >= self._lease_s for name in beats}
