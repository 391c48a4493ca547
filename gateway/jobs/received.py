"""What providers gave, as it came: on a disk before anything of ours touches it, until the end of its job is written.

A process that dies in between leaves it to the one that takes the job up, which has no need to ask the provider again:
some of them hand out a picture once only.
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
# A result that nobody has come for is kept for so long: its job is taken up by another process, and no sooner than one
# is started.
_KEPT = timedelta(days=1)
# The length of the head, and the SHA-256 of the head and of all that follows.
_FRONT = struct.Struct(">I32s")


# Between two looks for what was left behind, and two tries to read from a store that is away.
_SWEEP_S, _AGAIN_S = 3600.0, 2.0


class Received:
    """Keeps results by the ids of their attempts, in the first store that takes them."""

    def __init__(self, stores: Sequence[ObjectStore]) -> None:
        self._stores = tuple(stores)

    async def put(self, attempt: str, outcome: Outcome, *, away: bool = False) -> bool:
        """Keep a result; false where no store takes it: then it is in memory alone.

        `away` says that the first store has just failed: it is asked last.
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
        """The result that was kept; None where there is none, or not the whole of it.

        Raises StorageError while that cannot be told.
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
        """The result that was kept. While that cannot be told it is waited for: the provider may not have it any
        more."""
        while True:
            try:
                return await self.get(attempt)
            except StorageError:
                await clock.sleep(_AGAIN_S)

    async def forget(self, attempts: Iterable[str]) -> None:
        """Delete results, wherever they are. What cannot be deleted now is swept one day."""
        for attempt in attempts:
            for store in self._stores:
                try:
                    await obstore.delete_async(store, f"{_FOLDER}/{attempt}")
                except FileNotFoundError:
                    continue
                except (BaseError, OSError) as error:
                    event("received.delete_failed", logging.WARNING, attempt=attempt, error=type(error).__name__)

    async def sweep(self, ttl: timedelta) -> None:
        """Delete what was left behind, once it is older than a day and than `ttl`. Raises BaseError, and OSError."""
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
            except (BaseError, OSError) as error:  # the store may be back next time
                event("received.sweep_failed", logging.WARNING, error=type(error).__name__)
            await asyncio.sleep(_SWEEP_S)


def pack(outcome: Outcome) -> bytes:
    """A result as one file, with a checksum."""
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
    """The result that was packed. Raises FileDamaged."""
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
    """Where results are kept: in a store that other machines see as well, where there is one, else in the data folder.

    A bucket may be away: then it is the data folder as well.
    """
    folder = data / _FOLDER
    found = [] if store is None else [store]
    try:
        # Made now, so that a file is all that has to be brought to the disk later.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        event("received.no_folder", logging.WARNING, error=type(error).__name__)
        return found
    return [*found, LocalStore(data)]
