"""What every test may use."""

import os

import pytest
from hypothesis import settings

from gateway.settings.loader import SHIPPED, Config, load
from tests.support.paths import COFFEE, DATA

pytest_plugins = [
    "tests.support.tiers",
    "tests.support.gateways",
    "tests.support.databases",
    "tests.contract.fal_setup",
    "tests.contract.replicate_setup",
]

# The tests run side by side. A library that computes on all processors by itself then spends as much time again on
# waiting for its own threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each of the tests' own clients would read all the world's root certificates, wherever the machine has them: 50 ms a
# time, thousands of times. Nothing that they call is anywhere but here.
os.environ["SSL_CERT_FILE"] = str(DATA / "one-root.pem")
# An example may take as long as a busy machine makes it: how long a test takes in all is pytest-timeout's to say.
# What else hypothesis sets by itself, as it does under CI, stays.
settings.register_profile("darkroom", deadline=None)
settings.load_profile("darkroom")


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
    return COFFEE.read_bytes()
