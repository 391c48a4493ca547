"""Real picture work, for every test of the jobs."""

from collections.abc import AsyncIterator

import pytest

from gateway.imaging.pool import ImagePool, InputLimits


@pytest.fixture
async def imaging() -> AsyncIterator[ImagePool]:
    """Real picture work."""
    made = ImagePool(max_pixels=10**7, limits=InputLimits(max_pixels=10**7, max_side=10**4))
    yield made
    made.close()
