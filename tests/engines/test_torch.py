"""Whether the engines can be tested at all: without torch none of the other files here is collected."""

import importlib.util

import pytest


def test_torch_is_installed() -> None:
    """Skipped, and so named in the summary, where the engines were not tested."""
    if not importlib.util.find_spec("torch"):
        pytest.skip("the engines esrgan and tile-diffusion: torch is not installed (make torch)")
