"""One gateway for the whole corpus: what one input leaves behind is there for the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.target import Target, attacked


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The gateway under attack."""
    with attacked(tmp_path_factory.mktemp("hostile")) as there:
        yield there
