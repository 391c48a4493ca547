"""The first API key as a file in the data folder, from which this machine's commands take it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gateway.auth.secret import id_of

NAME = "api-key"
_MOST_BYTES = 1024


class NoKey(Exception):
    """The file is there and holds no API key. The message names it."""


def file(data: Path) -> Path:
    """Where a data folder has it."""
    return data / NAME


def read(data: Path) -> str | None:
    """The key; None where there is no file. Raises OSError and NoKey."""
    path = file(data)
    try:
        with path.open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    if id_of(text) is None:
        raise NoKey(f"{path} holds no API key: delete it, and the next start makes one where one is needed")
    return text


def write(data: Path, key: str) -> None:
    """Keep a key in place of the one that was kept: for this account alone, and whole or not at all. Raises OSError."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = file(data)
    beside = path.with_name(f".{NAME}-{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(f"{key}\n".encode())
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def forget(data: Path, number: str) -> bool:
    """Delete the file if it holds the key with this id; whether it did. Raises OSError and NoKey."""
    key = read(data)
    if key is None or id_of(key) != number:
        return False
    file(data).unlink(missing_ok=True)
    return True
