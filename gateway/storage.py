"""Result files: kept until they expire, under names that cannot be guessed, in a folder or an object store.

A file is flushed to disk together with its folder: what the ledger says of it must hold after a power failure.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from gateway.file_names import FileDigest, FileName, new_name, parsed
from gateway.ledger.records import Json, StoredImage, picture_of
from gateway.process import ahead
from gateway.telemetry.logs import event
from normalization.values import Image

_SWEEP_S = 30.0
# The longest that a bucket's own addresses can be good for.
_PRESIGNED = timedelta(days=7)
# While a bucket is away somebody waits for his answer: its client would try for three minutes by itself.
_RETRIES = 3
_RETRIES_S = 10.0
_BUCKETS = (S3Store, GCSStore, AzureStore)
# A file is read so much at a time while it is handed out.
PIECE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A result file as it is read back. `expires` is when it stops being served."""

    data: bytes = field(repr=False)
    media_type: str
    expires: datetime


class StorageError(Exception):
    """The store did not take, give or delete a file."""


class FileDamaged(Exception):
    """The store has a file that is not what was stored: it was cut, or changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A result file that is handed out piece by piece. `size` is that of the whole."""

    name: str
    what: FileName
    size: int
    expires: datetime
    store: ObjectStore = field(repr=False)

    async def pieces(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` to `end`. Raises StorageError; FileDamaged before the last piece of a file."""
        check = FileDigest(self.what) if (start, end) == (0, self.size) else None
        last: bytes | None = None
        came = start
        try:
            found = await obstore.get_async(self.store, self.name, options={"range": (start, end)})
            async for piece in found.stream(min_chunk_size=PIECE_BYTES):
                if last is not None:
                    yield last
                last = bytes(piece)
                came += len(last)
                if check is not None:
                    check.update(last)
        except (BaseError, OSError) as error:
            event("files.get_failed", logging.ERROR, error=type(error).__name__)
            raise StorageError(type(error).__name__) from error
        if came != end or not (check is None or check.fits):
            event("files.damaged", logging.ERROR, size=self.size, came=came - start)
            raise FileDamaged(self.name)
        if last is not None:
            yield last


class FileStorage:
    """Stores pictures, reads them back until they expire, and deletes what has expired."""

    def __init__(self, store: ObjectStore, *, ttl: timedelta) -> None:
        self._store = store
        self._ttl = ttl

    async def put(self, image: Image) -> str:
        """Keep a picture; return its name. Raises StorageError."""
        name = await asyncio.to_thread(new_name, image)
        notes = {"Content-Type": image.media_type, "Cache-Control": "private"}
        try:
            await put(self._store, name, image.data, notes)
        except (BaseError, OSError) as error:
            raise StorageError(type(error).__name__) from error
        return name

    async def keep(self, image: Image) -> str | None:
        """Keep a picture; its name, None where the store failed: the picture is not lost for that."""
        try:
            return await self.put(image)
        except StorageError as error:
            event("files.put_failed", logging.ERROR, error=str(error))
            return None

    async def load(self, kept: Json) -> StoredImage | None:
        """Read back a picture that the ledger has a note of; None where it is gone, or was never kept.

        Raises StorageError while nobody can say which, and FileDamaged.
        """
        found = await self.get(kept["file"]) if kept["file"] else None
        return picture_of(kept, found.data) if found else None

    async def look(self, kept: Json) -> StoredImage | None:
        """The same without the picture's bytes: for whoever is given its address. Raises as `load` does."""
        found = await self.open(kept["file"]) if kept["file"] else None
        return picture_of(kept, b"") if found else None

    async def delete(self, name: str) -> bool:
        """Delete a file before its time; false where there is none. Raises StorageError."""
        if parsed(name) is None:
            return False
        try:
            return bool(await self._delete(name))
        except (BaseError, OSError) as error:
            raise StorageError(type(error).__name__) from error

    async def open(self, name: str) -> OpenFile | None:
        """Look at a file that is to be handed out; None where there is none, or none any more.

        Raises StorageError, and FileDamaged where it is not as long as it was.
        """
        what = parsed(name)
        if what is None:
            return None
        try:
            found = await obstore.head_async(self._store, name)
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            event("files.get_failed", logging.ERROR, error=type(error).__name__)
            raise StorageError(type(error).__name__) from error
        expires = found["last_modified"] + self._ttl
        if expires <= datetime.now(UTC):
            return None
        if what.size not in (None, found["size"]):
            event("files.damaged", logging.ERROR, size=what.size, there=found["size"])
            raise FileDamaged(name)
        return OpenFile(name=name, what=what, size=found["size"], expires=expires, store=self._store)

    async def get(self, name: str) -> StoredFile | None:
        """Read a file by its name; None where there is none, or none any more. Raises StorageError, and FileDamaged."""
        what = parsed(name)
        if what is None:
            return None
        try:
            found = await obstore.get_async(self._store, name)
            expires = found.meta["last_modified"] + self._ttl
            if expires <= _now():
                return None
            data = bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            event("files.get_failed", logging.ERROR, error=type(error).__name__)
            raise StorageError(type(error).__name__) from error
        if not await asyncio.to_thread(what.fits, data):
            event("files.damaged", logging.ERROR, size=what.size, there=len(data))
            raise FileDamaged(name)
        return StoredFile(data=data, media_type=what.media_type, expires=expires)

    async def expires(self, name: str) -> datetime | None:
        """When a file stops being served; None where there is none any more. Raises StorageError."""
        try:
            found = await obstore.head_async(self._store, name)
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StorageError(type(error).__name__) from error
        expires = found["last_modified"] + self._ttl
        return expires if expires > _now() else None

    async def presigned(self, name: str, until: datetime) -> str:
        """The bucket's own address of a file, good until then, at most for seven days. Raises StorageError."""
        assert isinstance(self._store, _BUCKETS)  # the settings see to it
        left = min(until - datetime.now(UTC), _PRESIGNED)
        try:
            # Whole seconds: the format has no others.
            seconds = timedelta(seconds=max(1, int(left.total_seconds())))
            return await obstore.sign_async(self._store, "GET", name, expires_in=seconds)
        except (BaseError, OSError) as error:
            raise StorageError(type(error).__name__) from error

    async def sweep(self) -> int:
        """Delete what has expired; return how many files that were. What we did not put there is left alone."""
        limit = _now() - self._ttl
        gone = 0
        async for page in obstore.list(self._store):
            for entry in page:
                if entry["last_modified"] <= limit and parsed(entry["path"]):
                    gone += await self._delete(entry["path"])
        return gone

    async def _delete(self, name: str) -> int:
        try:
            await obstore.delete_async(self._store, name)
        except FileNotFoundError:  # another process of ours was first
            return 0
        return 1

    async def sweep_for_ever(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except (BaseError, OSError) as error:  # the store may be back next time
                event("files.sweep_failed", logging.WARNING, error=type(error).__name__)
            await asyncio.sleep(min(_SWEEP_S, self._ttl.total_seconds()))


def _now() -> datetime:
    """The time by which files expire: not earlier for a clock that was set forward."""
    return datetime.now(UTC) - timedelta(seconds=ahead())


def open_store(url: str | None, data: Path) -> ObjectStore:
    """The store at `url`, or the folder `files/` in the data folder. A bucket's keys come from the environment."""
    if url is None:
        folder = data / "files"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return LocalStore(folder)
    if url.startswith("file:"):
        return from_url(url, mkdir=True)
    return from_url(url, retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRIES_S)})


async def put(store: ObjectStore, name: str, data: bytes, attributes: Mapping[str, str] | None = None) -> None:
    """Write a file whole, or not at all. Raises obstore's BaseError, and OSError.

    `attributes` are what a bucket says of it to whoever comes with an address of its own; a folder keeps no such notes.
    """
    if isinstance(store, LocalStore):
        await asyncio.to_thread(_put, store, name, data)
    else:
        await obstore.put_async(store, name, data, attributes=dict(attributes or {}))


def _put(store: LocalStore, name: str, data: bytes) -> None:
    """Write a file and bring it, with its name, to the disk."""
    obstore.put(store, name, data)
    path = Path(store.prefix or "/") / name
    for one in (path, path.parent):
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
