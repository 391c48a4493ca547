"""Which of the processes that share a database are alive.

Each has a lease that it renews. Beside the embedded database each holds a lock on a file of its own, which the kernel
takes away with the process: so that the next start need not wait for a lease to lapse.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from gateway.database.engine import database_time
from gateway.database.schema import PROCESSES
from gateway.database.writer import Database

# Rows of processes that are long gone.
_FORGET_S = 86_400.0


class Processes:
    """This process among the others. `folder` is where the locks are; None where processes may be on other machines."""

    def __init__(
        self, database: Database, *, lease_s: float, folder: Path | None, clock: Callable[[], float] = time.time
    ) -> None:
        self.id = f"proc_{secrets.token_hex(8)}"
        self._database = database
        self._lease_s = lease_s
        self._folder = folder
        self._clock = clock
        self._lock: int | None = None

    def lock(self) -> None:
        """Take this process's own lock, and remove the files of those who are gone."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(self._folder / self.id)
        for path in self._folder.iterdir():
            if path.name != self.id and self._is_free(path):
                path.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Give the lock back: for all others this process is gone."""
        if self._lock is not None and self._folder is not None:
            (self._folder / self.id).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def beat(self) -> None:
        """Renew the lease. Raises LedgerDown."""
        await self._database.write(self._beat)

    async def leave(self) -> None:
        """Give the lease up. Raises LedgerDown."""
        gone = delete(PROCESSES).where(PROCESSES.c.id == self.id)
        await self._database.write(lambda connection: connection.execute(gone))

    def gone(self, connection: Connection, process: str) -> bool:
        """Whether a process is certain to be at work no more."""
        if process == self.id:
            return False
        if self._folder is not None:
            path = self._folder / process
            if not path.exists() or self._is_free(path):
                return True
        lease = connection.execute(select(PROCESSES.c.lease_until).where(PROCESSES.c.id == process)).scalar()
        return lease is None or lease < self._now(connection)

    async def beats(self) -> dict[str, float]:
        """When each process was last heard of, by the database's clock. Raises LedgerDown."""
        rows = select(PROCESSES.c.id, PROCESSES.c.beat_at)
        return await self._database.read(lambda connection: {row.id: row.beat_at for row in connection.execute(rows)})

    def _beat(self, connection: Connection) -> None:
        now = self._now(connection)
        values = {"beat_at": now, "lease_until": now + self._lease_s}
        if not connection.execute(update(PROCESSES).where(PROCESSES.c.id == self.id).values(values)).rowcount:
            connection.execute(insert(PROCESSES).values(id=self.id, **values))
        connection.execute(delete(PROCESSES).where(PROCESSES.c.lease_until < now - _FORGET_S))

    def _now(self, connection: Connection) -> float:
        """The time by which leases are held against each other: replicas' own clocks may differ."""
        return database_time(connection, self._clock)

    def _is_free(self, path: Path) -> bool:
        try:
            taken = _locked(path, create=False)
        except OSError:
            return False
        os.close(taken)
        return True


def _locked(path: Path, *, create: bool = True) -> int:
    """Open a file and hold its lock. Raises OSError where another process does, or it is not there."""
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
