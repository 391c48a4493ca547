"""Candidates are given the pictures that their routes take, before any job begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image as Pillow

from gateway.imaging.pool import ImagePool
from gateway.jobs.sending import ready
from gateway.routing.selection import Choice, RouteHealth, choose
from gateway.settings.loader import SHIPPED, load
from normalization.images.sniff import sniff
from normalization.parameters.rules import RenamedRule
from normalization.parameters.schema import Input, Model
from normalization.values import Image, ImageRequest, JoinAlpha
from providers.base import Readiness
from tests.support.pictures import encoded, noise

CLARITY = load(SHIPPED, {}).models["clarity-upscaler"]
PHOTO = encoded(noise(50, 40).resize((400, 300), Pillow.Resampling.BICUBIC), "png")


def chosen(data: bytes, model: Model = CLARITY, **params: Any) -> tuple[Choice, ImageRequest]:
    """The candidates among the clouds for a picture."""
    request = ImageRequest(
        model=model.id,
        images=(Image(data=data, header=sniff(data)),),
        params={"prompt": "a cup", **params},
        extra={},
        provider_options={},
        seed=1,
    )
    off = RouteHealth(readiness=Readiness.OFF)
    on = RouteHealth(readiness=Readiness.READY)
    conditions = {name: off if route.provider == "local" else on for name, route in model.routes.items()}
    return choose(model, request, conditions), request


def limited(**limits: Any) -> Model:
    """The model with other limits on Apiframe's route."""
    routes = {**CLARITY.routes}
    routes["apiframe"] = routes["apiframe"].model_copy(update={"input": Input(**limits)})
    return CLARITY.model_copy(update={"routes": routes})


def sent(choice: Choice, route: str) -> Image:
    """The picture in the payload for a route."""
    [one] = [candidate for candidate in choice.candidates if candidate.route.name == route]
    values = [value for value in one.plan.calls[0].values() if isinstance(value, Image)]
    return values[0]


async def test_one_limit_is_no_matter_to_the_others(imaging: ImagePool) -> None:
    """What is too large for one route is encoded smaller for it alone, and told there alone."""
    choice, request = chosen(PHOTO, limited(max_bytes=len(PHOTO) // 2))
    made = await ready(choice, request, imaging, "")

    assert sent(made, "apiframe").format == "jpeg"
    assert len(sent(made, "apiframe").data) <= len(PHOTO) // 2
    assert sent(made, "fal") is request.images[0]
    told = {one.route.name for one in made.candidates if any("sent as JPEG" in note for note in one.plan.notes)}
    assert told == {"apiframe"}


async def test_a_picture_that_fits_in_no_way(imaging: ImagePool) -> None:
    """That route is excluded, with the reason, and nothing is bought of it."""
    choice, request = chosen(PHOTO, limited(max_bytes=1000))
    made = await ready(choice, request, imaging, "")

    assert "apiframe" not in {one.route.name for one in made.candidates}
    [why] = [one for one in made.excluded if one.route.name == "apiframe"]
    assert "limit is 1,000 bytes" in why.reason
    assert why.param == "image"


@pytest.mark.parametrize(
    ("limits", "word"),
    [({"max_side": 399}, "399 pixels a side"), ({"max_pixels": 110_000}, "at most 0.11 megapixels")],
)
def test_pixels_are_part_of_the_choice(limits: dict[str, int], word: str) -> None:
    """A route that takes fewer pixels is none for this picture."""
    choice, _ = chosen(PHOTO, limited(**limits))
    [why] = [one for one in choice.excluded if one.route.name == "apiframe"]

    assert word in why.reason


async def test_the_alpha_channel_goes_with_the_plan(imaging: ImagePool) -> None:
    """What is sent is opaque, for every call alike, and each candidate's results are given the channel back."""
    picture = Pillow.new("RGBA", (24, 16), (200, 30, 40, 0))
    picture.paste((200, 30, 40, 255), (4, 4, 20, 12))
    choice, request = chosen(encoded(picture, "png"), n=3)
    made = await ready(choice, request, imaging, "")

    for one in made.candidates:
        pictures = {id(value) for call in one.plan.calls for value in call.values() if isinstance(value, Image)}
        assert len(pictures) == 1
        assert not sent(made, one.route.name).header.alpha
        [join] = [step for step in one.plan.finish if isinstance(step, JoinAlpha)]
        assert join.alpha is not None
        assert sniff(join.alpha).width == 24


async def test_transparency_of_further_pictures(imaging: ImagePool) -> None:
    """Only that of the first is given back: of the others it is told what became of it."""
    first, second = (encoded(Pillow.new("RGBA", (40, 30), (9, 99, red, 90)), "png") for red in (1, 2))
    fal = CLARITY.routes["fal"]
    fal = fal.model_copy(update={"rules": {**fal.rules, "image": RenamedRule(rule="renamed", to="images")}})
    model = CLARITY.model_copy(update={"max_images": 2, "routes": {"fal": fal}})
    _, request = chosen(first)
    conditions = {name: RouteHealth(readiness=Readiness.READY) for name in model.routes}
    pictures = tuple(Image(data=data, header=sniff(data)) for data in (first, second))

    for images, said in ((pictures, True), (pictures[:1], False)):
        asked = replace(request, images=images)
        [made] = (await ready(choose(model, asked, conditions), asked, imaging, "")).candidates
        assert any("additional images" in note for note in made.plan.notes) is said
