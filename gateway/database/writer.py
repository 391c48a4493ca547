"""The one writer of a process: a thread that commits together what has accumulated.

A write costs a flush to disk. Whatever arrives during one flush shares the next.
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
    """Whether an error says that the database is down: everything that is of it or of the way to it.

    Only what breaks the database's rules (a row that is there already) is the operation's own, as is whatever the
    operation raises by itself. There is no list of what a sick database may say: read-only, full, spoilt, without a
    right that it had, cut off.
    """
    driver = engine.dialect.loaded_dbapi
    refused, of_it = (IntegrityError, driver.IntegrityError), (SQLAlchemyError, driver.Error, OSError)

    def is_down(error: BaseException) -> bool:
        return isinstance(error, of_it) and not isinstance(error, refused)

    return is_down


def is_transient(error: BaseException) -> bool:
    """Whether another process stood in the way: Postgres' class 40, rolled back for the sake of another transaction."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(state, str) and state.startswith("40")


T = TypeVar("T")
Operation: TypeAlias = Callable[[Connection], T]

_BATCH = 64
# How long what nobody waits for may wait for something that somebody does, to share its commit.
_LAZY_S = 0.02
# How often one write is tried that lost against another process: a deadlock, a serialization failure.
_TRIES = 3
_RETRY_S = 0.5
# What the end of a process waits for writes that could not be made so far.
_FLUSH_S = 5.0
# After so many that fail in a row the rest of what is owed is not tried: one that the database will never take does not
# hold up the others, and a database that takes nothing is not asked for each of thousands.
_ENOUGH = 3


class LedgerDown(Exception):
    """The database does not take, or give, anything at the moment."""


@dataclass(slots=True, eq=False)
class _Write:
    """One write. Without `answer` nobody waits for it, and it is tried until it is done."""

    run: Operation[Any]
    answer: asyncio.Future[Any] | None
    loop: asyncio.AbstractEventLoop | None
    began: float
    done: bool = False


class Database:
    """Writes through one thread, in their order, and reads in a few. Both engines are of the same database.

    The end waits `flush_s` seconds for what could not be written so far.
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
        """Whether the last write went well, and nothing is owed."""
        return not (self._failing or self._owed)

    async def write(self, operation: Operation[T]) -> T:
        """Run an operation in a transaction; when this returns it is committed.

        Raises LedgerDown where it cannot be, and whatever the operation itself raises, which then changed nothing.
        """
        if self._closed:
            raise LedgerDown("closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Write(operation, answer, loop, time.perf_counter()))
        return await answer

    def write_behind(self, operation: Operation[Any]) -> None:
        """Have an operation run as soon as it can be, and after what was asked for before it; nobody waits for that."""
        self._queue.put(_Write(operation, None, None, time.perf_counter()))

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation that changes nothing. Raises LedgerDown, and what the operation raises."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, operation)

    async def aclose(self) -> None:
        """Write what is left, for a few seconds at most, and end."""
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
                # While something is owed nobody may come, and it is tried again all the same.
                batch.append(self._take(_RETRY_S if self._owed else None))
                lazy_until = time.monotonic() + _LAZY_S
                while len(batch) < _BATCH:
                    lazy = all(write is not None and write.answer is None for write in batch)
                    batch.append(self._take(max(0.0, lazy_until - time.monotonic()) if lazy else 0))
            ended = None in batch
            self._safely([write for write in batch if write is not None])
        limit = time.monotonic() + self._flush_s
        while self._owed and time.monotonic() < limit:
            time.sleep(_RETRY_S)
            self._safely([])
        if self._owed:
            event("ledger.lost", logging.ERROR, writes=len(self._owed))

    def _safely(self, batch: Sequence[_Write]) -> None:
        """Commit, whatever happens: without this thread nobody would ever be answered again."""
        whole = [*self._owed, *batch]
        try:
            self._commit(whole)
        except Exception as error:  # noqa: BLE001 - a fault of ours; whoever waits hears of it
            event("ledger.crashed", logging.ERROR, exc_info=True)
            self._failing = True
            self._owed = deque(write for write in whole if write.answer is None and not write.done)
            _settle([(write, None, LedgerDown(type(error).__name__)) for write in batch if not write.done])

    def _take(self, timeout: float | None) -> _Write | None:
        return self._queue.get_nowait() if timeout == 0 else self._queue.get(timeout=timeout)

    def _commit(self, whole: Sequence[_Write]) -> None:
        """Everything in one transaction, what is owed before what is new; each alone where that fails."""
        if not whole:
            return
        if len(whole) == 1 or not self._together(whole):
            owed: list[_Write] = []
            failed = 0
            for write in whole:
                # Nobody waits for it, so it may as well wait behind what could not be written.
                left = write.answer is None and failed >= _ENOUGH
                if not left:
                    failed = 0 if self._alone(write) else failed + 1
                if not write.done:
                    owed.append(write)
            self._owed = deque(owed)
        else:
            self._owed.clear()
        metrics.LEDGER_OWED.set(len(self._owed))

    def _together(self, whole: Sequence[_Write]) -> bool:
        """Commit all; false where nothing was. An operation that fails by itself is taken back by itself."""
        try:
            # Savepoints cost as much as many an operation, and are seldom needed: without them, and if need be again.
            results = self._results(whole, apart=False) or self._results(whole, apart=True)
        except Exception as error:
            if not self._is_of_database(error):
                raise
            return False
        self._done([(write, result, error) for write, (result, error) in zip(whole, results, strict=True)])
        return True

    def _results(self, whole: Sequence[_Write], *, apart: bool) -> list[tuple[object, BaseException | None]]:
        """Run all in one transaction. One that fails by itself is taken back where they are `apart`; else all are, and
        nothing is returned."""
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
        """Commit one; false where the database did not take it."""
        for attempt in range(_TRIES):
            try:
                with self._writer.begin() as connection:
                    result = write.run(connection)
            except Exception as error:  # noqa: BLE001 - it is told to whoever asked for this write
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
            # After a failover this connection may be to a server that will never be written to again.
            self._writer.dispose()
        if write.answer is not None:
            write.done = True
            _settle([(write, None, LedgerDown(type(error).__name__))])

    def _is_of_database(self, error: BaseException) -> bool:
        """Whether a transaction is spoilt by an error, so that everything in it has to be done again."""
        return self._is_down(error) or isinstance(error, IntegrityError)

    def _done(self, done: Sequence[tuple[_Write, object, BaseException | None]]) -> None:
        self._failing = False
        now = time.perf_counter()
        for write, _, error in done:
            write.done = True
            metrics.LEDGER_SECONDS.observe(now - write.began)
            if error is not None and write.answer is None:
                # Nobody hears of it, and trying it again would change nothing.
                event("ledger.refused", logging.ERROR, error=type(error).__name__, message=str(error)[:200])
        _settle(done)


def _settle(done: Sequence[tuple[_Write, object, BaseException | None]]) -> None:
    """Wake whoever waits, on their own loops, each of which is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], object, BaseException | None]]] = {}
    for write, result, error in done:
        if write.answer is not None and write.loop is not None:
            by_loop.setdefault(write.loop, []).append((write.answer, result, error))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
            loop.call_soon_threadsafe(_wake, answers)


def _wake(answers: Sequence[tuple[asyncio.Future[Any], object, BaseException | None]]) -> None:
    for answer, result, error in answers:
        if answer.done():
            continue
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)
