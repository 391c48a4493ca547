"""Opens the ledger: the database, its schema, and this process's lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.database.engine import is_embedded, open_engine
from gateway.database.migrate import NewerSchema, migrate
from gateway.database.writer import Database, LedgerDown
from gateway.ledger.leases import Leases
from gateway.ledger.store import Ledger
from gateway.settings import GatewaySettings
from gateway.settings.errors import ConfigError, ConfigProblem
from gateway.settings.types import secret_text


def prepare_ledger(settings: GatewaySettings, data: Path) -> Engine:
    """Return the writing engine, migrated to this version's schema. Raises ConfigError if that fails."""
    try:
        writer = open_engine(secret_text(settings.ledger_url), data, writes=True)
        migrate(writer)
    except ModuleNotFoundError as error:
        expected = "the extra `postgres`: pip install '.[postgres]' in the checkout"
        raise ConfigError(
            [ConfigProblem("the ledger", "gateway.ledger_url", "the Postgres driver is not installed", expected)]
        ) from error
    except (SQLAlchemyError, NewerSchema, OSError) as error:
        # Only the error's type: its message may contain the URL with the password.
        found = (
            str(error) if isinstance(error, NewerSchema) else f"the database cannot be opened ({type(error).__name__})"
        )
        where = "gateway.ledger_url" if settings.ledger_url else "DARKROOM_DATA"
        expected = "a Postgres database or a writable folder" if settings.ledger_url is None else "a Postgres database"
        raise ConfigError([ConfigProblem("the ledger", where, found, expected)]) from error
    return writer


@asynccontextmanager
async def open_ledger(settings: GatewaySettings, data: Path) -> AsyncIterator[Ledger]:
    """Open the ledger with this version's schema. Raises ConfigError if that fails."""
    writer = await asyncio.to_thread(prepare_ledger, settings, data)
    reader = open_engine(secret_text(settings.ledger_url), data, writes=False)
    database = Database(writer, reader)
    locks = data / "processes" if is_embedded(writer) else None
    processes = Leases(database, lease_s=settings.lease_s, folder=locks)
    try:
        await asyncio.to_thread(processes.lock)
        await processes.heartbeat()
        yield Ledger(database, processes, key_ttl_s=settings.idempotency_ttl_s, join_window_s=settings.join_window_s)
        with contextlib.suppress(LedgerDown):
            await processes.leave()
    finally:
        await database.aclose()
        await asyncio.to_thread(processes.unlock)
