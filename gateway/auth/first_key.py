"""The keys at start: those of the environment, and the first key, made when calls cost money and none exists.

Exactly one key is made however many processes start together: they lock the table of keys meanwhile. It is kept in a
file of the data folder, where the `darkroom` commands of this machine find it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.auth import store as key_store
from gateway.auth.keys import ApiKey, AuthPolicy, StaticKeys, UnusableKey, digest, draw, id_of, policy
from gateway.database.engine import is_embedded
from gateway.settings.errors import ConfigError, ConfigProblem
from gateway.settings.loader import Config
from gateway.settings.provider_keys import configured

NAME = "api-key"
_MOST_BYTES = 1024


class FirstKeyUnreadable(Exception):
    """The file is there and holds no API key. The message names it."""


def file(data: Path) -> Path:
    """Where a data folder has it."""
    return data / NAME


def read(data: Path) -> str | None:
    """The key; None where there is no file. Raises OSError and FirstKeyUnreadable."""
    path = file(data)
    try:
        with path.open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    if id_of(text) is None:
        raise FirstKeyUnreadable(
            f"{path} holds no API key: delete it, and the next start makes one where one is needed"
        )
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
    """Delete the file if it holds the key with this id; whether it did. Raises OSError and FirstKeyUnreadable."""
    key = read(data)
    if key is None or id_of(key) != number:
        return False
    file(data).unlink(missing_ok=True)
    return True


_NAME = "first key"
# Any number, the same for all: who looks whether a first key is needed holds a Postgres' advisory lock of it.
_LOCK = 7_209_118_452


@dataclass(frozen=True, slots=True)
class FirstKey:
    """The key in the data folder. `key` is set where it was made just now: it is shown this once."""

    path: Path
    key: str | None = field(default=None, repr=False)


def keys_of(environ: Mapping[str, str]) -> StaticKeys:
    """The API keys of the environment. Raises ConfigError."""
    try:
        return StaticKeys.of(environ)
    except UnusableKey as error:
        raise ConfigError([ConfigProblem("environment", "", str(error), "")]) from None


def policy_of(config: Config, environ: Mapping[str, str], keys: StaticKeys) -> AuthPolicy:
    """What is asked of calls. Raises ConfigError where that is said in two ways."""
    auth = config.gateway.auth
    if auth == "none" and keys:
        found = "none (or --no-auth), and DARKROOM_API_KEYS or DARKROOM_ADMIN_KEY is set as well"
        raise ConfigError([ConfigProblem("gateway.toml", "gateway.auth", found, "one of the two")])
    return policy(auth, has_keys=bool(keys), buys=bool(configured(config.providers, environ)))


def ensure(engine: Engine, data: Path, *, make: bool) -> FirstKey | None:
    """The key in the data folder, if it is good; with `make` one is made where the register has no good key.

    None where there is none, or only keys that were made otherwise. Raises ConfigError where one cannot be made.
    """
    try:
        with engine.begin() as connection:
            if make and not is_embedded(engine):
                # SQLite's own lock is held already, for the transaction began as a writing one.
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            return _ensure(connection, data, time.time(), make=make)
    except FirstKeyUnreadable as error:
        raise ConfigError([ConfigProblem("DARKROOM_DATA", "", str(error), "")]) from None
    except OSError as error:
        found = f"no API key, and no first one can be kept in {file(data)} ({error.strerror})"
        raise ConfigError([ConfigProblem("DARKROOM_DATA", "", found, _EXPECTED)]) from None
    except SQLAlchemyError as error:
        # Only the kind: the message may have the address with its password.
        found = f"no API key, and none can be made ({type(error).__name__})"
        raise ConfigError([ConfigProblem("the ledger", "", found, _EXPECTED)]) from error


_EXPECTED = (
    "a folder and a ledger that can be written to, keys in DARKROOM_API_KEYS, or one made with `darkroom keys create`: "
    "calls cost money, so they need a key"
)


def _ensure(connection: Connection, data: Path, now: float, *, make: bool) -> FirstKey | None:
    good = {api_key.id for api_key in key_store.every(connection) if api_key.good(now)}
    path = file(data)
    if not make or good:
        key = _readable(data)
        return FirstKey(path) if key is not None and id_of(key) in good else None
    key = read(data)
    if key is not None and key_store.find(connection, id_of(key) or "") is None:
        # A start that ended between the file and the ledger left it, or another ledger has the key.
        _register(connection, key, now)
        return FirstKey(path)
    _, key = draw()
    # First the file: a key that only the ledger has is nobody's.
    write(data, key)
    _register(connection, key, now)
    return FirstKey(path, key)


def _register(connection: Connection, key: str, now: float) -> None:
    api_key = ApiKey(id=id_of(key) or "", name=_NAME, admin=True, created_at=now, digest=digest(key))
    key_store.add(connection, api_key)


def _readable(data: Path) -> str | None:
    """The key in the data folder, where it is of no weight whether there is one."""
    try:
        return read(data)
    except (OSError, FirstKeyUnreadable):
        return None
