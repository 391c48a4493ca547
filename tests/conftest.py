"""What every test may use."""

from pathlib import Path

import pytest

from gateway.config import SHIPPED, Config, load

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The server runs on asyncio, and so do the tests."""
    return "asyncio"


@pytest.fixture(scope="session")
def shipped() -> Config:
    """The config as it ships, without any environment."""
    return load(SHIPPED, {})


@pytest.fixture(scope="session")
def photo() -> bytes:
    """The photograph that ships with the tests: 600 x 400, png."""
    return (ROOT / "tests" / "data" / "coffee.png").read_bytes()
