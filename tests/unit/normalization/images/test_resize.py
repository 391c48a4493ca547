"""Sizes and backgrounds: every mode exact, and transparency that is kept or flattened as it was asked."""

from __future__ import annotations

import pytest
from PIL import Image

from normalization.images.sniff import sniff
from normalization.values import Format, Resize, Size, Transcode
from tests.support.pictures import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    corners,
    done,
    encoded,
    feature,
    near,
    opened,
    quarters,
    transparent,
)


@pytest.mark.parametrize("mode", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(48, 32), (33, 77), (200, 1), (1, 1), (96, 64), (7, 5)])
@pytest.mark.parametrize("source", ["RGB", "RGBA", "L"])
def test_exact_sizes(mode: str, size: tuple[int, int], source: str) -> None:
    """Every mode gives exactly the size that was asked for."""
    step = Resize(size=Size(width=size[0], height=size[1]), mode=mode)  # type: ignore[arg-type]
    data, notes = done(encoded(corners(mode=source), "png"), step)

    assert opened(data).size == size
    assert notes == ()


def test_crop() -> None:
    """The overhang is cut off evenly on both sides and the aspect ratio stays."""
    picture = Image.new("RGB", (60, 20), RED)
    picture.paste(GREEN, (20, 0, 40, 20))
    data, _ = done(encoded(picture, "png"), Resize(size=Size(width=40, height=40)))
    cut = opened(data)

    assert all(near(cut.getpixel((x, 20)), GREEN, 40) for x in (1, 20, 38))


def test_stretch() -> None:
    """The whole picture fills the size."""
    data, _ = done(encoded(corners(), "png"), Resize(size=Size(width=32, height=96), mode="stretch"))

    assert quarters(opened(data)) == (RED, GREEN, BLUE, WHITE)


@pytest.mark.parametrize(
    ("background", "fmt", "opaque", "expected"),
    [
        (None, "png", False, (0, 0, 0, 0)),
        (None, "png", True, (255, 255, 255)),
        (None, "jpeg", False, (255, 255, 255)),
        ("#102030", "png", False, (16, 32, 48)),
        ("#102030", "jpeg", False, (16, 32, 48)),
    ],
)
def test_pad(background: str | None, fmt: Format, opaque: bool, expected: tuple[int, ...]) -> None:
    """What is left is transparent where it can be and nothing else was asked for, else the colour, else white."""
    steps = (
        Resize(size=Size(width=48, height=96), mode="pad", background=background),
        Transcode(format=fmt, opaque=opaque, background=background),
    )
    data, notes = done(encoded(corners(), "webp", lossless=True), *steps)
    padded = opened(data)

    assert near(padded.getpixel((24, 5)), expected)
    assert near(padded.getpixel((24, 90)), expected)
    assert near(padded.convert("RGB").getpixel((12, 40)), RED, 30)
    assert notes == ()


def test_padded_evenly() -> None:
    """As much is left free on one side as on the other, and the picture is as large as fits."""
    step = Resize(size=Size(width=100, height=32), mode="pad", background="#000000")
    padded = opened(done(encoded(Image.new("RGB", (48, 32), WHITE), "png"), step)[0])

    assert padded.convert("L").getbbox() == (26, 0, 74, 32)


def test_invisible_colours_do_not_bleed() -> None:
    """What has no alpha has no colour either: no dark or bright fringe appears beside it when it is resized."""
    picture = Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 20, 40))
    data, _ = done(encoded(picture, "png"), Resize(size=Size(width=100, height=100), mode="stretch"))
    row = [opened(data).getpixel((x, 50)) for x in range(100)]

    assert row[0] == (255, 0, 0, 255)
    assert row[99] == (0, 0, 0, 0)
    assert all(pixel[1] == 0 for pixel in row if isinstance(pixel, tuple) and pixel[3])


@pytest.mark.parametrize("name", ["png-alpha", "webp-alpha", "webp-lossless", "avif-alpha", "gif-alpha"])
def test_flattened_for_a_format_without_alpha(name: str) -> None:
    """Transparent areas turn white in a JPEG, and the caller is told."""
    data, notes = done(feature(name), Transcode(format="jpeg"))

    assert near(opened(data).getpixel((5, 16)), WHITE)
    assert notes == ("Transparent areas were flattened onto #ffffff: jpeg has no transparency.",)


def test_flattened_onto_a_colour() -> None:
    """A colour replaces white; half-transparent areas are mixed with it."""
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    data, _ = done(encoded(picture, "png"), Transcode(format="png", opaque=True, background="#0000ff"))

    assert near(opened(data).getpixel((4, 4)), (128, 0, 127), 1)


def test_flattened_where_it_was_asked_for() -> None:
    """An opaque picture in a format with alpha is no loss to speak of: it is what was asked for."""
    data, notes = done(feature("png-alpha"), Transcode(format="png", opaque=True))

    assert not sniff(data).alpha
    assert notes == ()


def test_alpha_that_hides_nothing() -> None:
    """A picture that could be transparent and is not becomes a JPEG without a word."""
    assert done(encoded(corners(mode="RGBA"), "png"), Transcode(format="jpeg"))[1] == ()


@pytest.mark.parametrize("fmt", ["png", "webp", "avif", "gif"])
def test_alpha_is_kept(fmt: Format) -> None:
    """Where the target has transparency it stays."""
    source = encoded(transparent(), "webp" if fmt == "png" else "png", lossless=True)
    kept = opened(done(source, Transcode(format=fmt))[0]).convert("RGBA")

    assert kept.getchannel("A").getpixel((5, 16)) == 0
    assert near(kept.getpixel((40, 5)), (*GREEN, 255), 40)
