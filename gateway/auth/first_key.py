"""API keys at a start: those of the environment, and the first one, which is made where none is and calls cost money.

However many processes start at once, one key is made: the register of keys is locked meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.auth import kept
from gateway.auth import store as key_store
from gateway.auth.grant import Grant
from gateway.auth.keys import Keys, UnusableKey
from gateway.auth.policy import Policy, policy
from gateway.auth.secret import digest, draw, id_of
from gateway.database.engine import is_embedded
from gateway.provider_keys import configured
from gateway.settings.errors import ConfigError, Mistake
from gateway.settings.loader import Config

_NAME = "first key"
# Any number, the same for all: who looks whether a first key is needed holds a Postgres' advisory lock of it.
_LOCK = 7_209_118_452


@dataclass(frozen=True, slots=True)
class FirstKey:
    """The key in the data folder. `key` is set where it was made just now: it is shown this once."""

    path: Path
    key: str | None = field(default=None, repr=False)


def keys_of(environ: Mapping[str, str]) -> Keys:
    """The API keys of the environment. Raises ConfigError."""
    try:
        return Keys.of(environ)
    except UnusableKey as error:
        raise ConfigError([Mistake("environment", "", str(error), "")]) from None


def policy_of(config: Config, environ: Mapping[str, str], keys: Keys) -> Policy:
    """What is asked of calls. Raises ConfigError where that is said in two ways."""
    auth = config.gateway.auth
    if auth == "none" and keys:
        found = "none (or --no-auth), and DARKROOM_API_KEYS or DARKROOM_ADMIN_KEY is set as well"
        raise ConfigError([Mistake("gateway.toml", "gateway.auth", found, "one of the two")])
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
    except kept.NoKey as error:
        raise ConfigError([Mistake("DARKROOM_DATA", "", str(error), "")]) from None
    except OSError as error:
        found = f"no API key, and no first one can be kept in {kept.file(data)} ({error.strerror})"
        raise ConfigError([Mistake("DARKROOM_DATA", "", found, _EXPECTED)]) from None
    except SQLAlchemyError as error:
        # Only the kind: the message may have the address with its password.
        found = f"no API key, and none can be made ({type(error).__name__})"
        raise ConfigError([Mistake("the ledger", "", found, _EXPECTED)]) from error


_EXPECTED = (
    "a folder and a ledger that can be written to, keys in DARKROOM_API_KEYS, or one made with `darkroom keys create`: "
    "calls cost money, so they need a key"
)


def _ensure(connection: Connection, data: Path, now: float, *, make: bool) -> FirstKey | None:
    good = {grant.id for grant in key_store.every(connection) if grant.good(now)}
    path = kept.file(data)
    if not make or good:
        key = _readable(data)
        return FirstKey(path) if key is not None and id_of(key) in good else None
    key = kept.read(data)
    if key is not None and key_store.find(connection, id_of(key) or "") is None:
        # A start that ended between the file and the ledger left it, or another ledger has the key.
        _register(connection, key, now)
        return FirstKey(path)
    _, key = draw()
    # First the file: a key that only the ledger has is nobody's.
    kept.write(data, key)
    _register(connection, key, now)
    return FirstKey(path, key)


def _register(connection: Connection, key: str, now: float) -> None:
    grant = Grant(id=id_of(key) or "", name=_NAME, admin=True, created_at=now, digest=digest(key))
    key_store.add(connection, grant)


def _readable(data: Path) -> str | None:
    """The key in the data folder, where it is of no weight whether there is one."""
    try:
        return kept.read(data)
    except (OSError, kept.NoKey):
        return None
