"""Files that outlast a power failure: what the ledger says of them has to be true afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import obstore
from obstore.store import LocalStore, ObjectStore


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
