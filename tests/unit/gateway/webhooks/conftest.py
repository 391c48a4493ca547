"""The databases that messages may wait in."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.system)])
def url(request: pytest.FixtureRequest) -> str | None:
    """The address of an empty ledger; None for the embedded one."""
    if request.param == "sqlite":
        return None
    found: str = request.getfixturevalue("postgres_ledger")
    return found
