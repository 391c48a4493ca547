"""What an error of a database means: that it does not take or give anything, or that one operation is refused."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError


def down_of(engine: Engine) -> Callable[[BaseException], bool]:
    """Whether an error says that the database is down: everything that is of it or of the way to it.

    Only what breaks the database's rules (a row that is there already) is the operation's own, as is whatever the
    operation raises by itself. There is no list of what a sick database may say: read-only, full, spoilt, without a
    right that it had, cut off.
    """
    driver = engine.dialect.loaded_dbapi
    refused, of_it = (IntegrityError, driver.IntegrityError), (SQLAlchemyError, driver.Error, OSError)

    def is_down(error: BaseException) -> bool:
        return isinstance(error, of_it) and not isinstance(error, refused)

    return is_down


def is_transient(error: BaseException) -> bool:
    """Whether another process stood in the way: Postgres' class 40, rolled back for the sake of another transaction."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(state, str) and state.startswith("40")
