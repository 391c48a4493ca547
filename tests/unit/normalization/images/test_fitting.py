"""How pictures meet sizes of another aspect ratio, and what is said of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from gateway.settings.loader import SHIPPED, load
from normalization.images import transform
from normalization.images.encode import resize
from normalization.images.fitting import fitted, resize_notes, result_of
from normalization.images.sniff import sniff
from normalization.parameters.plan import plan
from normalization.values import Header, Image, ImageRequest, Plan, Resize, ResizeMode, Size, Transcode, Value
from tests.support.photo import flat

CONFIG = load(SHIPPED, {})
SIDES = st.integers(1, 5000)


def size(text: str) -> Size:
    """A size as it is written."""
    width, height = text.split("x")
    return Size(width=int(width), height=int(height))


def planned(model: str, route: str, **params: Value) -> Plan:
    """The plan for a picture of 1280 x 1024."""
    picture = Image(data=b"not looked into", header=Header(format="png", width=1280, height=1024))
    inner = {"images": (picture,), "extra": {}, "provider_options": {}, "seed": 7}
    found = CONFIG.models[model]
    return plan(found, found.routes[route], ImageRequest(model=model, params=params, **inner))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("picture", "box", "inside"),
    [
        ("1280x1024", "1024x1024", "1024x819"),
        ("1024x1280", "1024x1024", "819x1024"),
        ("600x400", "1536x1024", "1536x1024"),
        ("1000x996", "500x500", "500x498"),
        ("5000x1", "100x100", "100x1"),
        ("1x5000", "10x7", "1x7"),
        ("3x2", "1x1", "1x1"),
    ],
)
def test_fitted(picture: str, box: str, inside: str) -> None:
    """The largest size of the picture's aspect ratio that has room in another one."""
    assert str(fitted(size(picture), size(box))) == inside


@given(SIDES, SIDES, SIDES, SIDES)
def test_fitted_holds_for_every_size(width: int, height: int, across: int, down: int) -> None:
    """It is inside, it touches, and each side is within half a pixel of the exact one, or is the one that there is."""
    inside = fitted(Size(width=width, height=height), Size(width=across, height=down))
    scale = min(across / width, down / height)

    assert 1 <= inside.width <= across
    assert 1 <= inside.height <= down
    assert inside.width == across or inside.height == down
    for got, exact in ((inside.width, width * scale), (inside.height, height * scale)):
        assert abs(got - exact) <= 0.5 + 1e-6 or got == 1


@pytest.mark.parametrize(
    ("picture", "mode", "wanted", "figures"),
    [
        ("1280x1024", "crop", "1024x1024", "of 1280x1024, 128 pixels at the left and 128 at the right were cropped"),
        ("2560x2048", "crop", "1024x1024", "of 1280x1024, 128 pixels at the left and 128 at the right were cropped"),
        ("100x203", "crop", "100x100", "of 100x203, 51 pixels at the top and 52 at the bottom were cropped"),
        ("1280x1024", "pad", "1024x1024", "covers 1024x819 of it, and 102 pixels at the top and 103 at the bottom"),
        ("1280x1024", "stretch", "1024x1024", "the height by 25 % more than the width"),
        ("1024x1280", "stretch", "1024x1024", "the width by 25 % more than the height"),
        ("1000x1000", "stretch", "1030x1000", "the width by 3.0 % more than the height"),
    ],
)
def test_told(picture: str, mode: ResizeMode, wanted: str, figures: str) -> None:
    """What is cut off, filled or distorted is told in pixels of the result, with the mode that would not do it."""
    (note,) = resize_notes(size(picture), Resize(size=size(wanted), mode=mode))

    assert note.startswith(f"The size {wanted} has a different aspect ratio than the image")
    assert figures in note
    assert "size_mode=fit" in note


@pytest.mark.parametrize("mode", ["crop", "pad", "stretch"])
@pytest.mark.parametrize(
    ("picture", "wanted"), [("600x400", "1536x1024"), ("1025x683", "1024x683"), ("90x60", "91x61")]
)
def test_rounding_is_not_told(picture: str, wanted: str, mode: ResizeMode) -> None:
    """A pixel's rounding is no other aspect ratio."""
    assert resize_notes(size(picture), Resize(size=size(wanted), mode=mode)) == ()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_pixels_agree_with_the_figures(width: int, height: int, across: int, down: int) -> None:
    """What is carried out has the size that was told."""
    step = Resize(size=Size(width=across, height=down), mode="fit")
    made = resize(Pillow.new("RGB", (width, height)), step, transparent=False)

    inside = result_of(Size(width=width, height=height), step)
    assert made.size == (inside.width, inside.height)


def test_fit_leaves_what_fits() -> None:
    """A result that is as large as has room already is not encoded again."""
    data = flat(60, 40)
    header = sniff(data)
    steps = (Resize(size=Size(width=60, height=60), mode="fit"), Transcode(format="png"))

    assert transform.is_finished(data, header, steps)
    assert not transform.is_finished(data, header, (Resize(size=Size(width=90, height=90), mode="fit"), steps[1]))


@pytest.mark.parametrize(
    ("route", "params", "factor", "delivered"),
    [
        ("local", {"size": "2048x2048", "size_mode": "fit"}, ("scale", 1.6), "2048x1638"),
        ("local", {"size": "640x640", "size_mode": "fit"}, ("scale", 1), "640x512"),
        ("local", {"size": "2048x2048", "size_mode": "fit", "scale_factor": 4}, ("scale", 4), "2048x1638"),
    ],
)
def test_fit_is_planned(route: str, params: dict[str, Value], factor: tuple[str, float], delivered: str) -> None:
    """The factor is that which the whole picture needs, and the plan knows what is delivered."""
    made = planned("lanczos-bp", route, **params)

    assert made.calls[0][factor[0]] == factor[1]
    assert str(made.delivered) == delivered
    assert not any("aspect ratio" in note for note in made.notes)


def test_a_crop_is_in_the_plan() -> None:
    """Where the result's size is known, the crop is told before anything is bought."""
    notes = planned("lanczos-bp", "local", size="2048x2048").notes

    assert any("of 2560x2048, 256 pixels at the left and 256 at the right were cropped" in note for note in notes)


@pytest.mark.parametrize("route", ["replicate", "fal"])
@pytest.mark.parametrize("mode", ["crop", "pad", "stretch", "fit"])
def test_editing_models(route: str, mode: str) -> None:
    """Nobody knows a size before the result: it is brought to the size once, and what was done is told then."""
    made = planned("flux-kontext-pro", route, prompt="x", size="1024x512", size_mode=mode, background="#102030")

    assert made.calls[0]["aspect_ratio"] in ("2:1", "16:9", "21:9")
    (step,) = (step for step in made.finish if isinstance(step, Resize))
    assert step == Resize(size=size("1024x512"), mode=mode, background="#102030", tell=True)  # type: ignore[arg-type]
    assert (made.output, made.delivered) == (None, None if mode == "fit" else size("1024x512"))
    done, notes = transform.finish(flat(80, 60), sniff(flat(80, 60)), made.finish)
    assert (done.width, done.height) == ((683, 512) if mode == "fit" else (1024, 512))
    assert sum("aspect ratio" in note for note in notes) == (mode != "fit")
