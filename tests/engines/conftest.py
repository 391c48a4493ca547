"""Tests of the engines that stand on torch: not collected where it is not installed, which the summary says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from providers.worker.engines.base import EngineLimits, Output

collect_ignore_glob = (
    []
    if importlib.util.find_spec("torch")
    else [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_torch.py"]
)

Run = Callable[..., Output]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny networks of diffusers' own classes, saved as a user would have them."""
    from tests.engines import networks

    folder = tmp_path_factory.mktemp("tiny")
    networks.save(folder)
    return folder


@pytest.fixture(scope="session")
def settings(tiny: Path) -> Mapping[str, object]:
    """The settings of tile-diffusion with them."""
    return {
        "base": str(tiny / "base"),
        "controlnet": str(tiny / "controlnet"),
        "weights": tiny,
        "devices": ["cpu"],
        "overlap": 4,
    }


@pytest.fixture(scope="session")
def engine(settings: Mapping[str, object]) -> Any:
    """The engine tile-diffusion, loaded."""
    from providers.worker.engines.tile_diffusion import TileDiffusion

    made = TileDiffusion(settings)
    made.load(EngineLimits())
    return made


@pytest.fixture
def run(engine: Any) -> Run:
    """Run it with small tiles and few steps, unless other inputs are given."""
    from tests.engines.calls import perform

    def call(**inputs: Any) -> Output:
        return perform(engine, **inputs)

    return call
