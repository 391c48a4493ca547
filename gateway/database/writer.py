"""The single writer of a process: a thread that commits accumulated writes together.

A commit costs a flush to disk. Writes that arrive during a flush share the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from gateway.database.engine import is_embedded
from gateway.telemetry import metrics
from gateway.telemetry.logs import event


def down_of(engine: Engine) -> Callable[[BaseException], bool]:
    """A predicate for errors that mean the database is down: any error of the database or of the connection.

    Only violations of its constraints (such as a duplicate row) belong to the operation, as do the operation's own
    exceptions. The possible errors cannot be listed: read-only, full, corrupt, missing permissions, disconnected.
    """
    driver = engine.dialect.loaded_dbapi
    violations, database_errors = (IntegrityError, driver.IntegrityError), (SQLAlchemyError, driver.Error, OSError)

    def is_down(error: BaseException) -> bool:
        return isinstance(error, database_errors) and not isinstance(error, violations)

    return is_down


def is_transient(error: BaseException) -> bool:
    """Whether a transaction was rolled back because of another one: Postgres' error class 40."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(state, str) and state.startswith("40")


T = TypeVar("T")
Operation: TypeAlias = Callable[[Connection], T]

_BATCH = 64
# How long a write without a waiter may be delayed to share the commit of one with a waiter.
_LAZY_S = 0.02
# How many times a write is tried after a conflict with another process: a deadlock, a serialization failure.
_TRIES = 3
_RETRY_S = 0.5
# How long shutdown waits for outstanding writes, in seconds.
_FLUSH_S = 5.0
# After this many consecutive failures the remaining outstanding writes are not tried: one bad write does not block the
# others, and a database that is down is not tried once per outstanding write.
_MAX_FAILURES = 3


class LedgerDown(Exception):
    """The database is unavailable at the moment."""


@dataclass(slots=True, eq=False)
class _Write:
    """One write. Without `answer` nobody waits for it, and it is retried until it succeeds."""

    run: Operation[Any]
    answer: asyncio.Future[Any] | None
    loop: asyncio.AbstractEventLoop | None
    began: float
    done: bool = False


class Database:
    """Writes in order through one thread, and reads in several. Both engines are for the same database.

    Closing waits up to `flush_s` seconds for outstanding writes.
    """

    def __init__(self, writer: Engine, reader: Engine, *, flush_s: float = _FLUSH_S) -> None:
        self._writer = writer
        self._reader = reader
        self._flush_s = flush_s
        self._is_down = down_of(writer)
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._owed: deque[_Write] = deque()
        self._closed = False
        self._failing = False
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="ledger-read")
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @property
    def up(self) -> bool:
        """Whether the last write succeeded and none is outstanding."""
        return not (self._failing or self._owed)

    async def write(self, operation: Operation[T]) -> T:
        """Run an operation in a transaction, and return its result once it is committed.

        Raises LedgerDown if that fails, and the operation's own exceptions, after which nothing was changed.
        """
        if self._closed:
            raise LedgerDown("closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Write(operation, answer, loop, time.perf_counter()))
        return await answer

    def write_behind(self, operation: Operation[Any]) -> None:
        """Queue an operation to run in order as soon as possible, without waiting for it."""
        self._queue.put(_Write(operation, None, None, time.perf_counter()))

    async def read(self, operation: Operation[T]) -> T:
        """Run a read-only operation. Raises LedgerDown, and the operation's own exceptions."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, operation)

    async def aclose(self) -> None:
        """Write what is outstanding, for at most a few seconds, and stop."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _FLUSH_S + self._flush_s)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writer.dispose()
        self._reader.dispose()

    def _read(self, operation: Operation[T]) -> T:
        try:
            with self._reader.begin() as connection:
                return operation(connection)
        except Exception as error:
            if not self._is_down(error):
                raise
            raise LedgerDown(type(error).__name__) from error

    def _work(self) -> None:
        ended = False
        while not ended:
            batch: list[_Write | None] = []
            with contextlib.suppress(queue.Empty):
                # With outstanding writes, retry even if no new write arrives.
                batch.append(self._take(_RETRY_S if self._owed else None))
                lazy_until = time.monotonic() + _LAZY_S
                while len(batch) < _BATCH:
                    lazy = all(write is not None and write.answer is None for write in batch)
                    batch.append(self._take(max(0.0, lazy_until - time.monotonic()) if lazy else 0))
            ended = None in batch
            self._commit_safely([write for write in batch if write is not None])
        limit = time.monotonic() + self._flush_s
        while self._owed and time.monotonic() < limit:
            time.sleep(_RETRY_S)
            self._commit_safely([])
        if self._owed:
            event("ledger.lost", logging.ERROR, writes=len(self._owed))

    def _commit_safely(self, batch: Sequence[_Write]) -> None:
        """Commit and survive any error: without this thread no write would ever complete."""
        whole = [*self._owed, *batch]
        try:
            self._commit(whole)
        except Exception as error:  # noqa: BLE001 - a bug; it is raised to those who wait
            event("ledger.crashed", logging.ERROR, exc_info=True)
            self._failing = True
            self._owed = deque(write for write in whole if write.answer is None and not write.done)
            _settle([(write, None, LedgerDown(type(error).__name__)) for write in batch if not write.done])

    def _take(self, timeout: float | None) -> _Write | None:
        return self._queue.get_nowait() if timeout == 0 else self._queue.get(timeout=timeout)

    def _commit(self, whole: Sequence[_Write]) -> None:
        """Commit all writes in one transaction, outstanding ones first; if that fails, each one alone."""
        if not whole:
            return
        if len(whole) == 1 or not self._together(whole):
            owed: list[_Write] = []
            failed = 0
            for write in whole:
                # Nobody waits for it, so it can stay queued after the failed ones.
                skipped = write.answer is None and failed >= _MAX_FAILURES
                if not skipped:
                    failed = 0 if self._alone(write) else failed + 1
                if not write.done:
                    owed.append(write)
            self._owed = deque(owed)
        else:
            self._owed.clear()
        metrics.LEDGER_OWED.set(len(self._owed))

    def _together(self, whole: Sequence[_Write]) -> bool:
        """Commit all; false if nothing was committed. An operation that fails itself is rolled back alone."""
        try:
            # Savepoints cost as much as an operation and are seldom needed: try without, then with them.
            results = self._results(whole, apart=False) or self._results(whole, apart=True)
        except Exception as error:
            if not self._is_of_database(error):
                raise
            return False
        self._done([(write, result, error) for write, (result, error) in zip(whole, results, strict=True)])
        return True

    def _results(self, whole: Sequence[_Write], *, apart: bool) -> list[tuple[object, BaseException | None]]:
        """Run all in one transaction. With `apart`, an operation that fails itself is rolled back alone; otherwise all
        are rolled back and nothing is returned."""
        results: list[tuple[object, BaseException | None]] = []
        with self._writer.connect() as connection, connection.begin() as transaction:
            for write in whole:
                try:
                    with connection.begin_nested() if apart else contextlib.nullcontext():
                        results.append((write.run(connection), None))
                except Exception as refused:
                    if self._is_of_database(refused):
                        raise
                    if not apart:
                        transaction.rollback()
                        return []
                    results.append((None, refused))
        return results

    def _alone(self, write: _Write) -> bool:
        """Commit one write; false if the database failed."""
        for attempt in range(_TRIES):
            try:
                with self._writer.begin() as connection:
                    result = write.run(connection)
            except Exception as error:  # noqa: BLE001 - raised to the one who requested this write
                if not self._is_down(error):
                    self._done([(write, None, error)])
                    return True
                if attempt + 1 < _TRIES and is_transient(error):
                    continue
                self._refused(write, error)
                return False
            self._done([(write, result, None)])
            return True
        return False

    def _refused(self, write: _Write, error: BaseException) -> None:
        if not self._failing:
            event("ledger.down", logging.ERROR, error=type(error).__name__)
        self._failing = True
        if not is_embedded(self._writer):
            # After a failover this connection may lead to a server that is read-only now.
            self._writer.dispose()
        if write.answer is not None:
            write.done = True
            _settle([(write, None, LedgerDown(type(error).__name__))])

    def _is_of_database(self, error: BaseException) -> bool:
        """Whether an error aborts the transaction, so that everything in it has to be repeated."""
        return self._is_down(error) or isinstance(error, IntegrityError)

    def _done(self, done: Sequence[tuple[_Write, object, BaseException | None]]) -> None:
        self._failing = False
        now = time.perf_counter()
        for write, _, error in done:
            write.done = True
            metrics.LEDGER_SECONDS.observe(now - write.began)
            if error is not None and write.answer is None:
                # Nobody waits for it, and a retry would not help.
                event("ledger.refused", logging.ERROR, error=type(error).__name__, message=str(error)[:200])
        _settle(done)


def _settle(done: Sequence[tuple[_Write, object, BaseException | None]]) -> None:
    """Deliver the results to the waiting futures, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], object, BaseException | None]]] = {}
    for write, result, error in done:
        if write.answer is not None and write.loop is not None:
            by_loop.setdefault(write.loop, []).append((write.answer, result, error))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits anymore
            loop.call_soon_threadsafe(_wake, answers)


def _wake(answers: Sequence[tuple[asyncio.Future[Any], object, BaseException | None]]) -> None:
    for answer, result, error in answers:
        if answer.done():
            continue
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)
