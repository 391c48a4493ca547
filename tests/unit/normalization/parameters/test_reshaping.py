"""Parameters that change the size of a result: what the table says of them, and what a plan makes of that."""

from typing import Any

import pytest

from gateway.routing.pricing import estimate
from gateway.settings.loader import SHIPPED, load
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.plan import Ineligible, check, plan
from normalization.parameters.reshaping import FirstReshaping, Reshaping, problems, shaped
from normalization.parameters.rules import Param
from normalization.parameters.schema import Model
from normalization.values import Announced, Header, Image, ImageRequest, Plan, Resize, Size, Value

CONFIG = load(SHIPPED, {})
CLARITY, TOPAZ = CONFIG.models["clarity-upscaler"], CONFIG.models["topaz-image-upscale"]
NAMES = CLARITY.reshaping
ALWAYS = ("replicate", "segmind", "local")
FIRST = Reshaping(first=FirstReshaping(when="shrink", longer_side="side", default=768, enlarges=True))


def ask(model: Model, width: int = 400, height: int = 300, **given: Any) -> ImageRequest:
    """A request for a picture of this size."""
    picture = Image(data=b"not looked into", header=Header(format="png", width=width, height=height))
    inner: dict[str, Any] = {"images": (picture,), "extra": {}, "provider_options": {}, "seed": 7}
    inner.update({key: given.pop(key) for key in tuple(given) if key in inner})
    return ImageRequest(model=model.id, params=given, **inner)


def planned(route: str, model: Model = CLARITY, announced: Announced | None = None, **given: Any) -> Plan:
    """The plan of a route for a picture of 400 x 300, unless another size is given."""
    return plan(model, model.routes[route], ask(model, **given), announced)


def sizes(made: Plan) -> tuple[str, str]:
    """What the provider gives, and what is delivered."""
    return str(made.output), str(made.delivered)


@pytest.mark.parametrize("route", ALWAYS)
@pytest.mark.parametrize(
    ("given", "output"),
    [
        ({"downscaling_resolution": 128}, "256x192"),
        ({"downscaling_resolution": 128, "scale_factor": 4}, "512x384"),
        ({"downscaling_resolution": 500}, "1000x750"),
        ({}, "1536x1152"),
        ({"width": 100, "height": 333, "downscaling_resolution": 128}, "76x256"),
    ],
)
def test_downscaling(route: str, given: dict[str, Any], output: str) -> None:
    """The result is the picture that was made first, enlarged: also where that one is the larger one."""
    made = planned(route, downscaling=True, **given)

    assert sizes(made) == (output, output)
    assert any(f"so the result is {output}" in note for note in made.notes)
    assert not any(isinstance(step, Resize) for step in made.finish)


def test_downscaling_that_only_makes_smaller() -> None:
    """Our own engine leaves alone what is below the length."""
    assert sizes(planned("tile-diffusion", downscaling=True)) == ("800x600", "800x600")
    assert not any("first" in note for note in planned("tile-diffusion", downscaling=True).notes)
    assert sizes(planned("tile-diffusion", downscaling=True, downscaling_resolution=128)) == ("256x192", "256x192")


def test_downscaling_that_is_off() -> None:
    """A length alone changes nothing."""
    off: list[dict[str, Any]] = [{"downscaling": False, "downscaling_resolution": 128}, {"downscaling_resolution": 128}]
    for given in off:
        assert sizes(planned("replicate", **given)) == ("800x600", "800x600")
        assert planned("replicate", **given).notes == ()


def test_downscaling_where_there_is_none() -> None:
    """A route that is not sent the parameter gives what it always does, and says that it was ignored."""
    assert sizes(planned("fal", downscaling=True, downscaling_resolution=128)) == ("800x600", "800x600")
    worker = Announced(inputs=frozenset({"image", "scale_factor", "creativity"}))
    made = planned("local", announced=worker, downscaling=True, downscaling_resolution=128)
    assert sizes(made) == ("800x600", "800x600")
    assert any(note.startswith("downscaling was ignored") for note in made.notes)


def test_downscaling_with_a_size() -> None:
    """The factor reaches from what is enlarged, and the size is delivered exactly."""
    made = planned("replicate", downscaling=True, downscaling_resolution=128, size="512x384")

    assert made.calls[0]["scale_factor"] == 4
    assert sizes(made) == ("512x384", "512x384")
    assert any("Because of downscaling, the input was first resized to 128x96" in note for note in made.notes)
    both = planned("replicate", downscaling=True, downscaling_resolution=128, size="512x384", scale_factor=2)
    assert sizes(both) == ("256x192", "512x384")


def test_downscaling_with_fit() -> None:
    """What is delivered has the aspect ratio of the picture that was sent, not that of its rounding."""
    given: dict[str, Any] = {"downscaling": True, "downscaling_resolution": 64, "size": "999x999", "size_mode": "fit"}

    assert sizes(planned("replicate", width=1000, height=333, **given))[1] == "999x333"


def test_downscaling_for_one_provider() -> None:
    """Asked of one provider alone, it is that provider's result which has another size."""
    options: dict[str, Any] = {"replicate": {"downscaling": True, "downscaling_resolution": 128}}

    assert sizes(planned("replicate", provider_options=options)) == ("256x192", "256x192")
    assert sizes(planned("segmind", provider_options=options)) == ("800x600", "800x600")


def test_a_size_out_of_reach_of_one_route() -> None:
    """It is out of reach for this route alone, whichever of the two pictures is the smaller one."""
    small: dict[str, Any] = {"downscaling": True, "downscaling_resolution": 64, "size": "2000x1500"}
    with pytest.raises(Ineligible, match=r"does not enlarge 64x48 to the 'size' 2000x1500"):
        planned("replicate", **small)
    assert sizes(planned("fal", **{**small, "size": "1200x900"}))[1] == "1200x900"

    large: dict[str, Any] = {"downscaling": True, "size": "2000x1500", "width": 40, "height": 30}
    assert planned("replicate", **large).calls[0]["scale_factor"] == pytest.approx(2.6042)
    with pytest.raises(Ineligible, match="does not enlarge 40x30"):
        planned("fal", **large)
    with pytest.raises(InvalidValue, match="at most 16 times"):
        planned("fal", size="2000x1500", width=40, height=30)


def test_a_shape_that_nobody_knows() -> None:
    """Without a size it is delivered as it comes, at a price for what is likely; with a size it is refused by name."""
    made = planned("fal", TOPAZ, crop_to_fill=True)
    route = TOPAZ.routes["fal"]

    assert (made.output, made.delivered) == (None, None)
    assert not any(isinstance(step, Resize) for step in made.finish)
    assert any("crop_to_fill may change the size" in note for note in made.notes)
    large: dict[str, Any] = {"width": 4000, "height": 3000}
    costs = [
        estimate(route.price, Size(**large), planned("fal", TOPAZ, **more)).micros
        for more in ({**large, "crop_to_fill": True}, large)
    ]
    assert costs[0] == costs[1]
    assert sizes(planned("fal", TOPAZ, crop_to_fill=False)) == ("800x600", "800x600")
    with pytest.raises(InvalidValue, match="'crop_to_fill' and 'size' cannot be combined") as caught:
        check(TOPAZ, ask(TOPAZ, crop_to_fill=True, size="1024x1024"), frozenset())
    assert caught.value.param == "crop_to_fill"
    check(TOPAZ, ask(TOPAZ, crop_to_fill=True, size="auto"), frozenset())
    with pytest.raises(Ineligible, match="cannot combine 'size' with crop_to_fill"):
        planned("fal", TOPAZ, provider_options={"fal": {"crop_to_fill": True}}, size="1024x1024")


@pytest.mark.parametrize(
    "extra",
    [
        {"target_width": 512},
        {"targetWidth": 512},
        {"image_size": {"width": 512, "height": 512}},
        {"options": [{"crop": True}]},
        {"mask": "https://example.org/mask.png"},
    ],
    ids=str,
)
def test_undeclared_fields(extra: dict[str, Value]) -> None:
    """A field that changes the size at some provider: the size is not known, but what was asked for is delivered."""
    ways: list[dict[str, Any]] = [{"extra": extra}, {"provider_options": {"fal": extra}}]
    for given in ways:
        made = planned("fal", **given)
        assert (made.output, made.delivered) == (None, None)
        sized = planned("fal", **given, size="1200x1200")
        assert (sized.output, str(sized.delivered)) == (None, "1200x1200")
        (step,) = (step for step in sized.finish if isinstance(step, Resize))
        assert step.tell


@pytest.mark.parametrize("extra", [{"targets": 3}, {"crop": False}, {"width": None}], ids=str)
def test_other_undeclared_fields(extra: dict[str, Value]) -> None:
    """Another field, or one that asks for nothing, leaves the size as it is."""
    assert sizes(planned("fal", extra=extra)) == ("800x600", "800x600")


@pytest.mark.parametrize(("side", "source"), [(None, "768x576"), (100, "100x75"), (400, "400x300")])
def test_what_is_enlarged(side: int | None, source: str) -> None:
    """The longer side decides; without a length it is the provider's own."""
    found = shaped(FIRST, Size(width=400, height=300), {"shrink": True, "side": side}, {}, NAMES)

    assert str(found.source) == source
    assert found.first == (None if source == "400x300" else "shrink")


def test_facts_are_checked() -> None:
    """A fact about a parameter that is not sent, or that cannot be what it is said to be, stops the start."""
    text, flag = Param(type="string", doc="x"), Param(type="boolean", doc="x")

    assert list(problems(FIRST, ["shrink", "side"], {"shrink": flag, "side": Param(type="integer", doc="x")})) == []
    assert list(problems(FIRST, ["shrink"], {"shrink": text, "side": text})) == [
        "names side, which is not a parameter sent to this route",
        "names shrink, which is of type string: expected type boolean",
        "names side, which is of type string: expected type integer",
    ]
    with pytest.raises(ValueError, match=r"routes\.fal\.geometry names nonsense, which is not a parameter"):
        Model.model_validate(
            {
                **TOPAZ.model_dump(),
                "routes": {"fal": {**TOPAZ.routes["fal"].model_dump(), "geometry": {"unknown": ["nonsense"]}}},
            }
        )


def test_a_field_that_is_sent_very_often() -> None:
    """It is named once and short, however it is spelt."""
    fields: dict[str, Value] = {"a": [{"mask": 1}] * 1000, "mask" + "_" * 100_000: 1, "M-A-S-K": 1}
    found = shaped(Reshaping(), Size(width=4, height=3), {}, fields, NAMES)

    assert len(found.by) == 1
    assert len(found.by[0]) <= 40
