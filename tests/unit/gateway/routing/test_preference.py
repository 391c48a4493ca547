"""What a model's file says of its routing, and what a request says before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.cli.check import page
from gateway.routing.preferences import RoutingPreferences, read_header, read_wish
from gateway.settings.loader import Config, ConfigError, load
from normalization.values import Value
from tests.unit.gateway.settings.test_loader import CLARITY, folder

__all__ = ["folder"]

USUAL = RoutingPreferences(order=("fal",), sort="fastest", max_cost=0.5, allow_fallbacks=False)
KNOWN = {"fal", "replicate"}


@pytest.mark.parametrize(
    ("asked", "preferences"),
    [
        (None, USUAL),
        ({}, USUAL),
        (
            {"order": ["replicate"]},
            RoutingPreferences(order=("replicate",), sort="fastest", max_cost=0.5, allow_fallbacks=False),
        ),
        ({"sort": "cheapest"}, RoutingPreferences(sort="cheapest", max_cost=0.5, allow_fallbacks=False)),
        (
            {"sort": "order", "order": ["fal"]},
            RoutingPreferences(order=("fal",), sort="order", max_cost=0.5, allow_fallbacks=False),
        ),
        ({"max_cost": 2, "allow_fallbacks": True}, RoutingPreferences(order=("fal",), sort="fastest", max_cost=2)),
        ({"only": ["replicate"]}, replace(USUAL, only=("replicate",))),
    ],
)
def test_key_by_key(asked: Value, preferences: RoutingPreferences) -> None:
    """The caller's own word counts, and the file's for every key that he does not say."""
    assert read_wish(asked, KNOWN, USUAL) == preferences


def test_the_header() -> None:
    """Likewise."""
    assert read_header('{"max_cost": 2}', KNOWN, USUAL).max_cost == 2
    assert read_header("", KNOWN, USUAL) == USUAL


def write(folder: Path, text: str) -> Config:
    """The shipped config with this at the end of a model's file."""
    path = folder / CLARITY
    path.write_text(f"{path.read_text()}\n{text}")
    return load(folder, {})


def test_it_is_read(folder: Path) -> None:
    """From the file, and shown in the page of models."""
    config = write(folder, '[routing]\norder = ["segmind", "tile-diffusion"]\nmax_cost = 0.1\n')
    found = RoutingPreferences.of(config.models["clarity-upscaler"].routing)
    assert found == RoutingPreferences(order=("segmind", "tile-diffusion"), max_cost=0.1)
    assert "Unless a request says otherwise: order = segmind, tile-diffusion, max_cost = 0.1." in page(config)
    assert RoutingPreferences.of(config.models["aura-sr"].routing) == RoutingPreferences()


def test_from_the_environment(folder: Path) -> None:
    """As every value."""
    config = load(folder, {"DARKROOM_MODELS__CLARITY_UPSCALER__ROUTING": '{"sort": "order"}'})
    assert config.models["clarity-upscaler"].routing.sort == "order"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('order = ["repliacte"]', ["routing.order", "repliacte", "routes or providers of it", "replicate"]),
        ('order = ["aura"]', ["routing.order", "aura"]),
        ('sort = "cheap"', ["routing.sort", "'cheap'", "'cheapest', 'fastest'"]),
        ("max_cost = -1", ["routing.max_cost", "greater than or equal to 0"]),
        ('only = ["fal"]', ["routing.only", "does not exist", "one of allow_fallbacks, max_cost, order, sort"]),
        ('strategy = "fastest"', ["routing.strategy", "a key that does not exist"]),
    ],
)
def test_mistakes(folder: Path, line: str, parts: list[str]) -> None:
    """Each is told with file, key, what was found and what was expected."""
    with pytest.raises(ConfigError) as caught:
        write(folder, f"[routing]\n{line}\n")
    assert len(caught.value.mistakes) == 1
    for part in ["clarity-upscaler.toml", *parts]:
        assert part in str(caught.value)
