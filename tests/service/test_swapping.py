"""Another provider, another route, another price, another model: text in a TOML file, and not a line of code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.settings.loader import SHIPPED
from tests.simulators.common import size
from tests.support.world import World, world


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A copy of the shipped config, to edit."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "config"))


def edited(path: Path, change: Callable[[str], str]) -> None:
    """Rewrite a file; a change that changes nothing is a mistake of the test."""
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def routes(there: World, model: str) -> dict[str, Any]:
    """The routes of a model, as the gateway tells them."""
    found: dict[str, Any] = httpx.get(f"{there.url}/openai/v1/models/{model}").json()["routes"]
    return found


def test_a_provider_is_swapped(config: Path) -> None:
    """With fal's block gone and Segmind's in its place, the same call is served by Segmind."""
    model = config / "models" / "real-esrgan.toml"
    with world("fal", "segmind", config=config) as there:
        assert there.edit(model="real-esrgan").story == ["fal ok"]
    edited(model, lambda text: text[: text.index("[routes.fal]")] + text[text.index("[routes.segmind]") :])
    with world("fal", "segmind", config=config) as there:
        assert set(routes(there, "real-esrgan")) == {"esrgan", "replicate", "segmind"}
        answer = there.edit(model="real-esrgan")
        assert answer.story == ["segmind ok"]
        assert [size(picture) for picture in answer.images] == [(96, 64)]
        assert there.taken("fal") == 0


ROUTE = """
[routes.segmind]
model = "esrgan"
price = { per_image = 0.0001 }
fixed = { output_format = "png" }
source = "a test"

[routes.segmind.rules]
prompt = { rule = "emulated", by = "ignore" }
scale_factor = { rule = "converted", using = "next_larger", to = "scale", choices = [2, 4, 8] }
"""


def test_a_route_is_added(config: Path) -> None:
    """One more block: the model has one more provider, and the cheaper one serves."""
    edited(config / "models" / "aura-sr.toml", lambda text: text + ROUTE)
    with world("fal", "segmind", config=config) as there:
        found = routes(there, "aura-sr")
        assert {name: route["state"] for name, route in found.items()} == {"fal": "ready", "segmind": "ready"}
        assert found["segmind"]["price"] == {"per_image": 0.0001, "currency": "USD"}
        answer = there.edit(model="aura-sr")
        assert answer.story == ["segmind ok"]
        assert [size(picture) for picture in answer.images] == [(96, 64)]


def test_a_price_moves_the_calls(config: Path) -> None:
    """When a provider becomes dearer, the call goes to the other one."""
    with world("fal", "segmind", config=config) as there:
        assert [c["provider"] for c in there.dry_run()["candidates"]] == ["fal", "segmind"]
    edited(
        config / "models" / "clarity-upscaler.toml",
        lambda text: text.replace("per_output_megapixel = 0.03 ", "per_output_megapixel = 30 "),
    )
    with world("fal", "segmind", config=config) as there:
        assert [c["provider"] for c in there.dry_run()["candidates"]] == ["segmind", "fal"]
        assert there.edit().story == ["segmind ok"]


MODEL = """
doc = "A model that nobody has heard of."
owned_by = "tests"
created = 2026-11-21
modes = ["upscale"]
scaled_by = "zoom"

[params]
zoom = { type = "number", default = 3, min = 1, max = 8, doc = "How much larger." }

[routes.fal]
model = "fal-ai/esrgan"
price = { per_image = 0.001 }
fixed = { output_format = "png" }
source = "a test"

[routes.fal.rules]
image = { rule = "converted", to = "image_url", using = "input_url" }
prompt = { rule = "emulated", by = "ignore" }
zoom = { rule = "renamed", to = "scale" }
"""


def test_a_model_is_added(config: Path) -> None:
    """One more file: it stands among the models, takes its own parameter, and is served."""
    (config / "models" / "zoom.toml").write_text(MODEL)
    with world("fal", config=config) as there:
        listed = httpx.get(f"{there.url}/openai/v1/models").json()["data"]
        assert "zoom" in [model["id"] for model in listed if model["available"]]
        answer = there.edit(model="zoom", extra_body={"zoom": 5})
        assert answer.story == ["fal ok"]
        assert [size(picture) for picture in answer.images] == [(120, 80)]
        assert [size(picture) for picture in there.edit(model="zoom").images] == [(72, 48)]
