"""What the tests of a whole gateway share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lines import Lines, kept


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The log's lines, as they come."""
    with kept() as found:
        yield found
