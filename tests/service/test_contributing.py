"""The example of CONTRIBUTING.md for a new model: one TOML file, as it stands there, serves requests."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.settings.loader import SHIPPED, load
from normalization.parameters.table import cells
from tests.simulators import fal_models, segmind
from tests.simulators.common import size, tiny
from tests.simulators.fal import FalAi
from tests.simulators.segmind import Segmind
from tests.support.paths import ROOT
from tests.support.world import World, world

NAME = "pixel-lift"
MOST_LINES = 25


def example() -> str:
    """The model's file in the section on adding a model: the only TOML there."""
    section = re.search(
        r"^## Adding a model$(.*?)^## ", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert section is not None
    blocks = re.findall(r"```toml\n(.*?)```", section[1], re.DOTALL)
    assert len(blocks) == 1
    assert f"`{NAME}.toml`" in section[1]
    return str(blocks[0])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped config with one more model."""
    folder = tmp_path_factory.mktemp("config") / "config"
    shutil.copytree(SHIPPED, folder)
    (folder / "models" / f"{NAME}.toml").write_text(example())
    return folder


@pytest.fixture(scope="module")
def there(config: Path) -> Iterator[World]:
    """A gateway with that config, before a Segmind and a fal that have the model."""
    at_segmind = segmind.Model(
        scale="scale",
        default_scale=2,
        formats=("png",),
        enums={"scale": (2, 4)},
        ranges={"detail": (0, 1)},
        price=0.004,
    )
    at_fal = fal_models.Model(
        price=0.02, scale="upscale_factor", default_scale=2, per_megapixel=True, ranges={"upscale_factor": (1, 4)}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.simulators.segmind.MODELS", {NAME: at_segmind})
        patch.setattr("tests.simulators.fal.MODELS", {f"fal-ai/{NAME}": at_fal})
        with world("segmind", "fal", config=config) as made:
            yield made


def test_length() -> None:
    """A model takes one file, which can be read at a glance."""
    assert len(example().splitlines()) <= MOST_LINES


def test_table(config: Path) -> None:
    """The file is valid, and its rules say what the page says of them; the other models stay as they are."""
    loaded = load(config, {})
    table = {(cell.route.name, cell.name): cell.describe() for cell in cells(loaded.models[NAME])}

    assert {**loaded.models, NAME: None} == {**load(SHIPPED, {}).models, NAME: None}
    assert table["segmind", "image"] == "converted by input_url"
    assert table["segmind", "prompt"] == "emulated by ignore"
    assert table["segmind", "scale_factor"] == "converted by next_larger to scale, 2, 4"
    assert table["segmind", "detail"] == "passthrough"
    assert table["fal", "image"] == "converted by input_url to image_url"
    assert table["fal", "prompt"] == "passthrough"
    assert table["fal", "scale_factor"] == "renamed to upscale_factor"
    assert table["fal", "detail"] == "renamed to creativity"
    assert table["fal", "n"] == "emulated by fan_out"


def test_the_four_kinds() -> None:
    """The example shows each kind of rule."""
    assert set(re.findall(r'rule = "([a-z]+)"', example())) == {"passthrough", "renamed", "converted", "emulated"}


def test_the_price_chooses(there: World) -> None:
    """For a small image fal's price a megapixel is the lower one, for a large one Segmind's price an image."""
    small, large = (
        there.dry_run(model=NAME, scale_factor="3", width=str(width), height=str(height))["candidates"]
        for width, height in ((48, 32), (600, 400))
    )

    assert [one["provider"] for one in small] == ["fal", "segmind"]
    assert [one["provider"] for one in large] == ["segmind", "fal"]


def test_through_segmind(there: World) -> None:
    """The next larger of Segmind's steps runs, the image has the exact size all the same, and the answer says both."""
    answer = there.edit(
        tiny(48, 32), model=f"segmind/{NAME}", prompt="a cup", extra_body={"scale_factor": 3, "detail": 0.9}
    )
    assert answer.status == 200, answer.text
    assert answer.story == ["segmind ok"]
    assert [size(image) for image in answer.images] == [(144, 96)]
    warnings = answer.body["metadata"]["warnings"]
    assert len(warnings) == 2
    assert {name for name in ("prompt", "scale_factor") for text in warnings if name in text} == {
        "prompt",
        "scale_factor",
    }
    sim = there.sims["segmind"]
    assert isinstance(sim, Segmind)
    given = sim.given(sim.books.taken[-1])
    assert {name: given[name] for name in given if name != "image"} == {"scale": 4, "detail": 0.9}


def test_through_fal(there: World) -> None:
    """Through fal the same parameters arrive under fal's names, and the factor is exact."""
    answer = there.edit(
        tiny(48, 32), model=f"fal/{NAME}", prompt="a cup", extra_body={"scale_factor": 3, "detail": 0.9}
    )
    assert answer.status == 200, answer.text
    assert answer.story == ["fal ok"]
    assert [size(image) for image in answer.images] == [(144, 96)]
    assert answer.body["metadata"]["warnings"] == []
    sim = there.sims["fal"]
    assert isinstance(sim, FalAi)
    given = sim.given(sim.books.taken[-1])
    expected = {"prompt": "a cup", "upscale_factor": 3, "creativity": 0.9}
    assert {name: given[name] for name in given if name != "image_url"} == expected


def test_a_parameter_out_of_reach(there: World) -> None:
    """What no route takes is a 400 that names the parameter, and nothing is bought."""
    before = [there.taken(name) for name in there.sims]
    answer = there.edit(model=NAME, extra_body={"scale_factor": 5})

    assert (answer.status, answer.body["error"]["param"]) == (400, "scale_factor")
    assert [there.taken(name) for name in there.sims] == before
