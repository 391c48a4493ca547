"""Result files: kept until they expire, under names that cannot be guessed, in a folder or an object store.

A file is flushed to disk together with its folder, so that the ledger's record of it holds after a power failure.
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
# The longest validity of a bucket's presigned URLs.
_PRESIGNED = timedelta(days=7)
# A client waits while a bucket is unavailable: obstore would retry for three minutes by default.
_RETRIES = 3
_RETRIES_S = 10.0
_BUCKETS = (S3Store, GCSStore, AzureStore)
# The amount read at a time while a file is served.
PIECE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A result file that was read. `expires` is when it stops being served."""

    data: bytes = field(repr=False)
    media_type: str
    expires: datetime


class StorageError(Exception):
    """The store failed to write, read or delete a file."""


class FileDamaged(Exception):
    """The stored file was truncated or changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A result file that is served piece by piece. `size` is the whole file's, in bytes."""

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
    """Stores images, reads them until they expire, and deletes expired ones."""

    def __init__(self, store: ObjectStore, *, ttl: timedelta) -> None:
        self._store = store
        self._ttl = ttl

    async def put(self, image: Image) -> str:
        """Store an image; return its file name. Raises StorageError."""
        name = await asyncio.to_thread(new_name, image)
        notes = {"Content-Type": image.media_type, "Cache-Control": "private"}
        try:
            await put(self._store, name, image.data, notes)
        except (BaseError, OSError) as error:
            raise StorageError(type(error).__name__) from error
        return name

    async def keep(self, image: Image) -> str | None:
        """Store an image; return its file name, None if the store failed: the image can still be delivered."""
        try:
            return await self.put(image)
        except StorageError as error:
            event("files.put_failed", logging.ERROR, error=str(error))
            return None

    async def load(self, kept: Json) -> StoredImage | None:
        """Read an image recorded in the ledger; None if its file has expired or was never stored.

        Raises StorageError if the store fails, and FileDamaged.
        """
        found = await self.get(kept["file"]) if kept["file"] else None
        return picture_of(kept, found.data) if found else None

    async def look(self, kept: Json) -> StoredImage | None:
        """The same without the image's bytes, if only its URL is needed. Raises like `load`."""
        found = await self.open(kept["file"]) if kept["file"] else None
        return picture_of(kept, b"") if found else None

    async def delete(self, name: str) -> bool:
        """Delete a file before it expires; false if it does not exist. Raises StorageError."""
        if parsed(name) is None:
            return False
        try:
            return bool(await self._delete(name))
        except (BaseError, OSError) as error:
            raise StorageError(type(error).__name__) from error

    async def open(self, name: str) -> OpenFile | None:
        """Open a file to be served; None if it does not exist or has expired.

        Raises StorageError, and FileDamaged if its length is wrong.
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
        """Read a file; None if it does not exist or has expired. Raises StorageError and FileDamaged."""
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
        """When a file stops being served; None if it does not exist or has expired. Raises StorageError."""
        try:
            found = await obstore.head_async(self._store, name)
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StorageError(type(error).__name__) from error
        expires = found["last_modified"] + self._ttl
        return expires if expires > _now() else None

    async def presigned(self, name: str, until: datetime) -> str:
        """A presigned URL of a file, valid until `until`, at most for seven days. Raises StorageError."""
        assert isinstance(self._store, _BUCKETS)  # ensured by the settings
        left = min(until - datetime.now(UTC), _PRESIGNED)
        try:
            # The format has whole seconds only.
            seconds = timedelta(seconds=max(1, int(left.total_seconds())))
            return await obstore.sign_async(self._store, "GET", name, expires_in=seconds)
        except (BaseError, OSError) as error:
            raise StorageError(type(error).__name__) from error

    async def sweep(self) -> int:
        """Delete expired files; return how many. Files that we did not store are left alone."""
        limit = _now() - self._ttl
        deleted = 0
        async for page in obstore.list(self._store):
            for entry in page:
                if entry["last_modified"] <= limit and parsed(entry["path"]):
                    deleted += await self._delete(entry["path"])
        return deleted

    async def _delete(self, name: str) -> int:
        try:
            await obstore.delete_async(self._store, name)
        except FileNotFoundError:  # another process deleted it first
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
    """The time used for expiry, corrected for a clock that was set forward."""
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
    """Write a file atomically. Raises obstore's BaseError, and OSError.

    `attributes` are the headers with which a bucket serves it at a presigned URL; a folder stores none.
    """
    if isinstance(store, LocalStore):
        await asyncio.to_thread(_put, store, name, data)
    else:
        await obstore.put_async(store, name, data, attributes=dict(attributes or {}))


def _put(store: LocalStore, name: str, data: bytes) -> None:
    """Write a file and flush it and its folder to disk."""
    obstore.put(store, name, data)
    path = Path(store.prefix or "/") / name
    for one in (path, path.parent):
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
