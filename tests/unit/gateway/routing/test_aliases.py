"""Other names of models: exact ones before patterns, and the most specific pattern before the others."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import ImageModel

from gateway.api.parameters import unknown_model
from gateway.cli.check import page
from gateway.routing.aliases import by_pattern, exact_names, matches, own_names
from gateway.settings.loader import Config, load
from tests.unit.gateway.settings.test_loader import edit, folder

__all__ = ["folder"]

ROWS = {"a-*": 1, "a-b*": 2, "a-b": 3, "*": 4, "x/*": 5, "*-*-z": 6}


@pytest.mark.parametrize(
    ("name", "row"),
    [("a-", 1), ("a-c", 1), ("a-bc", 2), ("q", 4), ("x/y", 5), ("x/y/z", None), ("y/x", None), ("m-n-z", 6), ("", 4)],
)
def test_the_most_specific_pattern(name: str, row: int | None) -> None:
    """It is the one with the most characters of its own; a slash is no character of a star."""
    assert by_pattern(name, ROWS) == row


def test_what_is_listed_and_what_is_suggested() -> None:
    """A pattern is no name, and a name that a pattern covers is somebody else's."""
    rows = {"gpt-*": 1, "gpt-1": 2, "fast": 3}
    assert exact_names(rows) == ["gpt-1", "fast"]
    assert own_names(rows) == ["fast"]


@given(st.text("ab-", max_size=12), st.text("ab-*", min_size=1, max_size=8))
def test_as_the_shell_does(name: str, pattern: str) -> None:
    """Without slashes a pattern is the shell's."""
    assert matches(name, pattern) == bool(re.fullmatch(fnmatch.translate(pattern), name))


@pytest.mark.parametrize("name", ["a" * 201, "a" * 10_000_000, "a-*", "*"])
def test_what_is_no_name(name: str) -> None:
    """A name beyond all bounds, and a pattern that is sent as one, stand for no model."""
    assert by_pattern(name, {"a*": 1, "*": 2}) is None


@pytest.mark.parametrize("name", get_args(ImageModel))
def test_the_sdks_names(shipped: Config, name: str) -> None:
    """Every model that the installed SDK types is one here, as base64 where OpenAI's is."""
    model, alias = shipped.resolve(name)
    assert model is not None
    assert alias is not None
    assert alias.default_response_format == (None if name.startswith("dall-e") else "b64_json")


@pytest.mark.parametrize("name", ["gpt-imag-1", "gpt-image", "dalle-2", "dall-e", "gpt_image_1", "chatgpt-image"])
def test_nothing_that_was_shut_down_is_suggested(shipped: Config, name: str) -> None:
    """Neither a pattern nor a name of OpenAI's: who slips is told of models that there are."""
    message = unknown_model(name, shipped).message
    assert "*" not in message
    assert not re.search(r"'(gpt|dall|chatgpt)[^']*'\?", message)
    assert "clarity-upscaler" in message


def test_a_model_of_its_own_counts_before_a_pattern(folder: Path) -> None:
    """A model's file decides what its name means, whatever pattern covers it; its row in the page is the pattern's."""
    lanczos = folder / "models/lanczos-bp.toml"
    lanczos.rename(folder / "models/gpt-image-home.toml")
    config = load(folder, {})
    model, alias = config.resolve("gpt-image-home")
    assert model is not None
    assert (model.id, alias) == ("gpt-image-home", None)
    assert "| `gpt-image-*` | `clarity-upscaler` | b64_json |" in page(config)


def test_an_exact_row_counts_before_a_pattern(folder: Path) -> None:
    """The operator's own row for one of the names wins."""
    edit(folder, "gateway.toml", '"dall-e-2" =', '"gpt-image-2" = { model = "lanczos-bp" }\n"dall-e-2" =')
    model, _ = load(folder, {}).resolve("gpt-image-2")
    assert model is not None
    assert model.id == "lanczos-bp"
