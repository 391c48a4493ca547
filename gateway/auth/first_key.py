"""API keys at startup: the static keys from the environment, and the first key, created if requests cost money.

Exactly one key is created even if several processes start together, because they take a lock. It is stored in a file in
the data folder, where the `darkroom` commands on this machine find it.
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
    """The file exists but holds no API key. The message names it."""


def file(data: Path) -> Path:
    """The path of the key file in a data folder."""
    return data / NAME


def read(data: Path) -> str | None:
    """The stored key; None if the file does not exist. Raises OSError and FirstKeyUnreadable."""
    path = file(data)
    try:
        with path.open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    if id_of(text) is None:
        raise FirstKeyUnreadable(
            f"{path} holds no API key: delete it, and the next start creates a key if one is needed"
        )
    return text


def write(data: Path, key: str) -> None:
    """Replace the stored key atomically, readable only by this user. Raises OSError."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = file(data)
    temporary = path.with_name(f".{NAME}-{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(f"{key}\n".encode())
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def forget(data: Path, number: str) -> bool:
    """Delete the file if it holds the key with this id; return whether it did. Raises OSError, FirstKeyUnreadable."""
    key = read(data)
    if key is None or id_of(key) != number:
        return False
    file(data).unlink(missing_ok=True)
    return True


_NAME = "first key"
# An arbitrary number shared by all processes: the Postgres advisory lock held while checking for a first key.
_LOCK = 7_209_118_452


@dataclass(frozen=True, slots=True)
class FirstKey:
    """The key in the data folder. `key` is set only if it was just created, to be shown once."""

    path: Path
    key: str | None = field(default=None, repr=False)


def keys_of(environ: Mapping[str, str]) -> StaticKeys:
    """The API keys of the environment. Raises ConfigError."""
    try:
        return StaticKeys.of(environ)
    except UnusableKey as error:
        raise ConfigError([ConfigProblem("environment", "", str(error), "")]) from None


def policy_of(config: Config, environ: Mapping[str, str], keys: StaticKeys) -> AuthPolicy:
    """The auth policy. Raises ConfigError if the settings contradict the environment."""
    auth = config.gateway.auth
    if auth == "none" and keys:
        found = "none (or --no-auth), and DARKROOM_API_KEYS or DARKROOM_ADMIN_KEY is set as well"
        raise ConfigError([ConfigProblem("gateway.toml", "gateway.auth", found, "one of the two")])
    return policy(auth, has_keys=bool(keys), buys=bool(configured(config.providers, environ)))


def ensure(engine: Engine, data: Path, *, make: bool) -> FirstKey | None:
    """The key in the data folder, if valid; with `make`, one is created if no valid key is stored in the database.

    None if only keys created in other ways exist, or none. Raises ConfigError if one cannot be created.
    """
    try:
        with engine.begin() as connection:
            if make and not is_embedded(engine):
                # With SQLite the transaction already holds the write lock.
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            return _ensure(connection, data, time.time(), make=make)
    except FirstKeyUnreadable as error:
        raise ConfigError([ConfigProblem("DARKROOM_DATA", "", str(error), "")]) from None
    except OSError as error:
        found = f"no API key, and the first one cannot be saved in {file(data)} ({error.strerror})"
        raise ConfigError([ConfigProblem("DARKROOM_DATA", "", found, _EXPECTED)]) from None
    except SQLAlchemyError as error:
        # Only the error's class: the message may contain the address with its password.
        found = f"no API key, and none can be created ({type(error).__name__})"
        raise ConfigError([ConfigProblem("the ledger", "", found, _EXPECTED)]) from error


_EXPECTED = (
    "a writable data folder and ledger, keys in DARKROOM_API_KEYS, or one created with `darkroom keys create`: "
    "requests cost money, so they need a key"
)


def _ensure(connection: Connection, data: Path, now: float, *, make: bool) -> FirstKey | None:
    valid = {api_key.id for api_key in key_store.every(connection) if api_key.good(now)}
    path = file(data)
    if not make or valid:
        key = _readable(data)
        return FirstKey(path) if key is not None and id_of(key) in valid else None
    key = read(data)
    if key is not None and key_store.find(connection, id_of(key) or "") is None:
        # Left by a start that ended between writing the file and the ledger, or the key is in another ledger.
        _register(connection, key, now)
        return FirstKey(path)
    _, key = draw()
    # The file first: nobody could use a key that only the ledger knows.
    write(data, key)
    _register(connection, key, now)
    return FirstKey(path, key)


def _register(connection: Connection, key: str, now: float) -> None:
    api_key = ApiKey(id=id_of(key) or "", name=_NAME, admin=True, created_at=now, digest=digest(key))
    key_store.add(connection, api_key)


def _readable(data: Path) -> str | None:
    """The key in the data folder; None also if it cannot be read, for cases where it is optional."""
    try:
        return read(data)
    except (OSError, FirstKeyUnreadable):
        return None
