"""Real picture work, for every test of the jobs."""

from collections.abc import AsyncIterator

import pytest

from gateway.imaging.pool import Imaging, Limits


@pytest.fixture
async def imaging() -> AsyncIterator[Imaging]:
    """Real picture work."""
    made = Imaging(max_pixels=10**7, limits=Limits(max_pixels=10**7, max_side=10**4))
    yield made
    made.close()
