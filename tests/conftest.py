"""What every test may use, and what the summary says of tests that were not run."""

import importlib.util

import pytest

from gateway.config import SHIPPED, Config, load
from tests.support.paths import COFFEE

pytest_plugins = ["tests.support.gateways", "tests.support.databases"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out for want of a library."""
    if not importlib.util.find_spec("torch"):
        terminalreporter.section("NOT TESTED", red=True, bold=True)
        terminalreporter.line("the engines esrgan and tile-diffusion, as torch is not installed: make torch", red=True)


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
