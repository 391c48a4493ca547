"""Result files: kept for their time to live under names that cannot be guessed, in a folder or an object store."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from gateway.jobs.records import Json, Picture, header_of
from gateway.telemetry.logs import event
from gateway.ticks import ahead
from normalization.values import FORMATS, MEDIA_TYPES, Format, Image

_NAME = re.compile(rf"[A-Za-z0-9_-]{{32}}\.({'|'.join(FORMATS)})")
_SWEEP_S = 30.0
# The longest that a bucket's own addresses can be good for.
_PRESIGNED = timedelta(days=7)
# While a bucket is away somebody waits for his answer: its client would try for three minutes by itself.
_RETRIES = 3
_RETRIES_S = 10.0
_BUCKETS = (S3Store, GCSStore, AzureStore)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A result file as it is read back. `expires` is when it stops being served."""

    data: bytes = field(repr=False)
    media_type: str
    expires: datetime


class StoreFailed(Exception):
    """The store did not take, give or delete a file."""


class Files:
    """Stores pictures, reads them back until they expire, and deletes what has expired."""

    def __init__(self, store: ObjectStore, *, ttl: timedelta) -> None:
        self._store = store
        self._ttl = ttl

    async def put(self, image: Image) -> str:
        """Keep a picture; return its name. Raises StoreFailed."""
        name = f"{secrets.token_urlsafe(24)}.{image.format}"
        # What a bucket says of it to whoever comes with an address of the bucket's own; a folder keeps no such notes.
        notes = {"Content-Type": image.media_type, "Cache-Control": "private"}
        try:
            if isinstance(self._store, LocalStore):
                await asyncio.to_thread(_put, self._store, name, image.data)
            else:
                await obstore.put_async(self._store, name, image.data, attributes=notes)
        except (BaseError, OSError) as error:
            raise StoreFailed(type(error).__name__) from error
        return name

    async def keep(self, image: Image) -> str | None:
        """Keep a picture; its name, None where the store failed: the picture is not lost for that."""
        try:
            return await self.put(image)
        except StoreFailed as error:
            event("files.put_failed", logging.ERROR, error=str(error))
            return None

    async def load(self, kept: Json) -> Picture | None:
        """Read back a picture that the ledger has a note of; None where it is gone, or was never kept.

        Raises StoreFailed while nobody can say which.
        """
        found = await self.get(kept["file"]) if kept["file"] else None
        return Picture(image=Image(data=found.data, header=header_of(kept)), file=kept["file"]) if found else None

    async def delete(self, name: str) -> bool:
        """Delete a file before its time; false where there is none. Raises StoreFailed."""
        if _NAME.fullmatch(name) is None:
            return False
        try:
            return bool(await self._delete(name))
        except (BaseError, OSError) as error:
            raise StoreFailed(type(error).__name__) from error

    async def get(self, name: str) -> StoredFile | None:
        """Read a file by its name; None where there is none, or none any more. Raises StoreFailed."""
        match = _NAME.fullmatch(name)
        if match is None:
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
            raise StoreFailed(type(error).__name__) from error
        form: Format = match[1]  # type: ignore[assignment]  # the pattern admits nothing else
        return StoredFile(data=data, media_type=MEDIA_TYPES[form], expires=expires)

    async def expires(self, name: str) -> datetime | None:
        """When a file stops being served; None where there is none any more. Raises StoreFailed."""
        try:
            found = await obstore.head_async(self._store, name)
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StoreFailed(type(error).__name__) from error
        expires = found["last_modified"] + self._ttl
        return expires if expires > _now() else None

    async def presigned(self, name: str, until: datetime) -> str:
        """The bucket's own address of a file, good until then, at most for seven days. Raises StoreFailed."""
        assert isinstance(self._store, _BUCKETS)  # the settings see to it
        left = min(until - datetime.now(UTC), _PRESIGNED)
        try:
            # Whole seconds: the format has no others.
            seconds = timedelta(seconds=max(1, int(left.total_seconds())))
            return await obstore.sign_async(self._store, "GET", name, expires_in=seconds)
        except (BaseError, OSError) as error:
            raise StoreFailed(type(error).__name__) from error

    async def sweep(self) -> int:
        """Delete what has expired; return how many files that were. What we did not put there is left alone."""
        limit = _now() - self._ttl
        gone = 0
        async for page in obstore.list(self._store):
            for entry in page:
                if entry["last_modified"] <= limit and _NAME.fullmatch(entry["path"]):
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


def _put(store: LocalStore, name: str, data: bytes) -> None:
    """Write a file and bring it, with its name, to the disk: what the ledger says has to outlast a power failure."""
    obstore.put(store, name, data)
    folder = Path(store.prefix or "/")
    for path in (folder / name, folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
