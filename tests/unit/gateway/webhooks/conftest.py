"""The databases that messages may wait in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.postgres import Postgres, postgres

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A Postgres."""
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The address of an empty database; None for the embedded one."""
    if request.param == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("server")
    return server.fresh(f"webhooks_{next(_NUMBERS)}")
