"""Stores providers' unprocessed results on disk before they are processed, until the end of their job is written.

If a process dies in between, the process that resumes the job does not need to ask the provider again: some providers
return an image only once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from gateway import storage
from gateway.storage import FileDamaged, StorageError
from gateway.telemetry.logs import event
from providers.base import Outcome
from providers.clock import Clock

# Not a name that `/files/` serves.
_FOLDER = "received"
_NAME = re.compile(rf"{_FOLDER}/[A-Za-z0-9_-]{{1,64}}")
# The minimum time for which an unused result is kept: its job is resumed by another process, which may start much
# later.
_KEPT = timedelta(days=1)
# The length of the header, and the SHA-256 of the header and everything after it.
_FRONT = struct.Struct(">I32s")


# The interval between sweeps, and the delay between attempts to read from a store that is unavailable.
_SWEEP_S, _AGAIN_S = 3600.0, 2.0


class Received:
    """Stores results by the ids of their attempts, in the first store that accepts them."""

    def __init__(self, stores: Sequence[ObjectStore]) -> None:
        self._stores = tuple(stores)

    async def put(self, attempt: str, outcome: Outcome, *, away: bool = False) -> bool:
        """Store a result; false if no store accepts it: then it exists only in memory.

        `away` says that the first store has just failed: it is tried last.
        """
        data = await asyncio.to_thread(pack, outcome)
        for store in reversed(self._stores) if away else self._stores:
            try:
                await storage.put(store, f"{_FOLDER}/{attempt}", data)
            except (BaseError, OSError) as error:
                event("received.put_failed", logging.ERROR, attempt=attempt, error=type(error).__name__)
            else:
                return True
        return False

    async def get(self, attempt: str) -> Outcome | None:
        """The stored result; None if there is no result or only a damaged one.

        Raises StorageError while a store is unavailable.
        """
        failed: Exception | None = None
        for store in self._stores:
            try:
                found = await obstore.get_async(store, f"{_FOLDER}/{attempt}")
                return await asyncio.to_thread(unpack, bytes(await found.bytes_async()))
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                failed = error
            except FileDamaged:
                event("received.damaged", logging.ERROR, attempt=attempt)
        if failed is not None:
            raise StorageError(type(failed).__name__) from failed
        return None

    async def found(self, attempt: str, clock: Clock) -> Outcome | None:
        """The stored result, as `get` returns it. Waits while a store is unavailable: the provider may no longer have
        the result."""
        while True:
            try:
                return await self.get(attempt)
            except StorageError:
                await clock.sleep(_AGAIN_S)

    async def forget(self, attempts: Iterable[str]) -> None:
        """Delete results from all stores. What cannot be deleted now is swept later."""
        for attempt in attempts:
            for store in self._stores:
                try:
                    await obstore.delete_async(store, f"{_FOLDER}/{attempt}")
                except FileNotFoundError:
                    continue
                except (BaseError, OSError) as error:
                    event("received.delete_failed", logging.WARNING, attempt=attempt, error=type(error).__name__)

    async def sweep(self, ttl: timedelta) -> None:
        """Delete results that are older than a day and than `ttl`. Raises BaseError, and OSError."""
        limit = datetime.now(UTC) - max(ttl, _KEPT)
        for store in self._stores:
            async for page in obstore.list(store, _FOLDER):
                for entry in page:
                    if entry["last_modified"] <= limit and _NAME.fullmatch(entry["path"]):
                        await self.forget([entry["path"].rpartition("/")[2]])

    async def sweep_for_ever(self, ttl: timedelta) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep(ttl)
            except (BaseError, OSError) as error:  # the store may be available next time
                event("received.sweep_failed", logging.WARNING, error=type(error).__name__)
            await asyncio.sleep(_SWEEP_S)


def pack(outcome: Outcome) -> bytes:
    """Serialize a result to one file with a checksum."""
    head = json.dumps(
        {
            "sizes": [len(image) for image in outcome.images],
            "seconds": outcome.seconds,
            "cost": outcome.cost,
            "executed": outcome.executed,
            "notes": list(outcome.notes),
        }
    ).encode()
    digest = hashlib.sha256(head)
    for image in outcome.images:
        digest.update(image)
    return b"".join((_FRONT.pack(len(head), digest.digest()), head, *outcome.images))


def unpack(data: bytes) -> Outcome:
    """Deserialize a packed result. Raises FileDamaged."""
    if len(data) < _FRONT.size:
        raise FileDamaged("truncated")
    length, digest = _FRONT.unpack_from(data)
    if hashlib.sha256(memoryview(data)[_FRONT.size :]).digest() != digest:
        raise FileDamaged("checksum mismatch")
    at = _FRONT.size + length
    head = json.loads(data[_FRONT.size : at])
    images = []
    for size in head["sizes"]:
        images.append(data[at : at + size])
        at += size
    return Outcome(
        images=tuple(images),
        seconds=head["seconds"],
        cost=head["cost"],
        executed=head["executed"],
        notes=tuple(head["notes"]),
    )


def spools(store: ObjectStore | None, data: Path) -> list[ObjectStore]:
    """The stores for results: the shared store if there is one, then the data folder.

    The data folder is also the fallback while a bucket is unavailable.
    """
    folder = data / _FOLDER
    found = [] if store is None else [store]
    try:
        # Created now, so that later only files have to be flushed to disk.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        event("received.no_folder", logging.WARNING, error=type(error).__name__)
        return found
    return [*found, LocalStore(data)]
