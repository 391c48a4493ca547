"""Parameters that change the size of a result, over the whole way: the picture is delivered, and bought once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.simulators.base import Simulated
from tests.simulators.cog import CogWorker
from tests.simulators.common import size, tiny
from tests.support.running import until
from tests.support.world import World, world

PICTURE = tiny(400, 300)


@pytest.fixture(scope="module", params=["replicate", "segmind", "local"])
def clarity(request: pytest.FixtureRequest) -> Iterator[tuple[World, Simulated]]:
    """A gateway before one provider of Clarity, which downscales as Clarity does."""
    with ExitStack() as stack:
        if request.param != "local":
            made = stack.enter_context(world(request.param))
            yield made, made.sims[request.param]
            return
        worker = stack.enter_context(CogWorker().running())
        made = stack.enter_context(world(environ={"DARKROOM_PROVIDERS__LOCAL__WORKERS": worker.addresses["workers"]}))
        until(lambda: httpx.get(f"{made.url}/readyz").status_code == 200, "the worker is seen")
        yield made, worker


@pytest.mark.parametrize(
    ("asked", "delivered"),
    [
        ({"downscaling": True, "downscaling_resolution": 128}, (256, 192)),
        ({"downscaling": True, "downscaling_resolution": 600, "scale_factor": 1}, (600, 450)),
        ({"downscaling": True}, (1536, 1152)),
        ({"downscaling": True, "downscaling_resolution": 128, "size": "512x384"}, (512, 384)),
        ({"downscaling": True, "downscaling_resolution": 128, "size": "300x300", "size_mode": "fit"}, (300, 225)),
    ],
    ids=str,
)
def test_downscaling_is_delivered_and_bought_once(
    clarity: tuple[World, Simulated], asked: dict[str, Any], delivered: tuple[int, int]
) -> None:
    """What the provider answers is what the plan expects: no paid picture is thrown away for its size."""
    there, sim = clarity
    before = len(sim.books.taken)

    answer = there.edit(PICTURE, response_format="b64_json", extra_body=asked)

    assert answer.status == 200, answer.text
    assert size(answer.images[0]) == delivered
    assert answer.body["size"] == f"{delivered[0]}x{delivered[1]}"
    assert len(sim.books.taken) - before == 1
    assert any(
        "Because of downscaling, the input was first resized to" in warning
        for warning in answer.body["metadata"]["warnings"]
    )


def test_a_crop_that_the_provider_makes() -> None:
    """Without a size it is delivered as it is; with one it is refused, by both names, before anything is bought."""
    with world("fal") as made:
        asked: dict[str, Any] = {"model": "topaz-image-upscale", "response_format": "b64_json"}
        answer = made.edit(PICTURE, **asked, extra_body={"crop_to_fill": True})
        refused = made.edit(PICTURE, **asked, size="1024x1024", extra_body={"crop_to_fill": True})

        assert size(answer.images[0]) == (600, 600)
        assert (refused.status, refused.body["error"]["param"]) == (400, "crop_to_fill")
        assert "'size'" in refused.body["error"]["message"]
        assert made.taken("fal") == 1


def test_a_field_that_nobody_declared() -> None:
    """It is passed on; what comes of it is brought to the size that was asked for, and paid once."""
    with world("fal") as made:
        asked: dict[str, Any] = {"model": "topaz-image-upscale", "response_format": "b64_json", "size": "900x900"}
        options = {"provider_options": {"fal": {"output_width": 5}}}

        answer = made.edit(PICTURE, **asked, extra_body=options)

        assert answer.status == 200, answer.text
        assert size(answer.images[0]) == (900, 900)
        assert any("of 1200x900, 150 pixels at the left" in note for note in answer.body["metadata"]["warnings"])
        assert made.taken("fal") == made.billed("fal") == 1


@pytest.mark.parametrize(
    ("mode", "delivered", "said"),
    [
        ("fit", (200, 150), None),
        ("crop", (200, 200), "of 267x200, 33 pixels at the left and 34 at the right were cropped"),
        ("pad", (200, 200), "covers 200x150 of it, and 25 pixels at the top and 25 at the bottom were filled"),
        ("stretch", (200, 200), "the height by 33 % more than the width"),
    ],
)
def test_an_editing_model(mode: str, delivered: tuple[int, int], said: str | None) -> None:
    """What is done to its result's shape is told once that is there, and again in the stored answer."""
    with world("replicate") as made:
        asked: dict[str, Any] = {"model": "flux-kontext-pro", "size": "200x200", "response_format": "b64_json"}
        answer = made.edit(PICTURE, **asked, extra_body={"size_mode": mode})

        assert answer.status == 200, answer.text
        assert size(answer.images[0]) == delivered
        job = httpx.get(f"{made.url}/openai/v1/images/jobs/{answer.body['id']}").json()["result"]
        for body in (answer.body, job):
            notes = [note for note in body["metadata"]["warnings"] if "aspect ratio" in note]
            assert len(notes) == (said is not None)
            assert said is None or said in notes[0]
            assert body["size"] == f"{delivered[0]}x{delivered[1]}"


def test_room_that_is_too_large() -> None:
    """With fit the result may be as wide or as high as the size: it is held to the limits before anything is bought."""
    with world("replicate") as made:
        asked: dict[str, Any] = {"model": "flux-kontext-pro", "size": "3000x3000"}
        refused = made.edit(PICTURE, **asked, extra_body={"size_mode": "fit"})

        assert (refused.status, refused.code) == (400, "output_too_large")
        assert made.taken("replicate") == 0
