"""The lock files of the processes that share an embedded database.

The kernel takes a lock away with its process, however that ends. Making a file and locking it, looking at one and
removing one happen under one lock over the folder: else another process finds a new file before its owner has locked
it, takes it for that of a dead one, and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

# The folder's lock is held for a few system calls at a time.
_WAIT_S = 5.0
_LOOK_S = 0.005


class Locks:
    """The lock of one process, `name`, beside those of the others. It blocks: call it from a thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._path = folder / name
        self._mine: int | None = None

    def hold(self) -> None:
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
