"""Transparent pictures through routes that drop transparency, over real HTTP: they come back as their senders meant."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.support.world import World, world

CLOUDS = ("fal", "replicate", "segmind", "apiframe")
# A corner, the middle of a disc, and a place beside it.
CORNER, INSIDE = (2, 2), (64, 48)


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """All clouds, whose simulators know three channels, as the real ones do."""
    with world(*CLOUDS) as one:
        yield one


def logo(ink: tuple[int, int, int] = (200, 20, 40)) -> bytes:
    """A disc on nothing; below the invisible pixels is another colour."""
    picture = Image.new("RGBA", (64, 48), (0, 255, 0, 0))
    ImageDraw.Draw(picture).ellipse([10, 4, 54, 44], fill=(*ink, 255))
    return _png(picture)


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "png")
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    """A decoded picture."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return picture


@pytest.mark.parametrize("provider", CLOUDS)
@pytest.mark.parametrize("asked", ["auto", "transparent"])
def test_transparency_is_kept(there: World, provider: str, asked: str) -> None:
    """The alpha channel is enlarged here and joined to the result, and nothing green shows at its edge."""
    answer = there.edit(logo(), routing=f'{{"only": ["{provider}"]}}', background=asked, output_format="png")

    assert answer.status == 200, answer.text
    assert answer.body["background"] == "transparent"
    made = opened(answer.images[0])
    assert (made.size, made.mode) == ((128, 96), "RGBA")
    alpha = made.getchannel("A")
    assert alpha.getpixel(CORNER) == 0
    assert alpha.getpixel(INSIDE) == 255
    visible = [colour for _, colour in made.getcolors(10**6) or () if isinstance(colour, tuple) and colour[3] > 8]
    greenest = max(colour[1] for colour in visible)
    assert greenest < 60
    assert any("alpha channel was enlarged" in note for note in answer.body["metadata"]["warnings"])


@pytest.mark.parametrize("provider", CLOUDS)
@pytest.mark.parametrize(
    ("fields", "colour"),
    [
        ({"background": "opaque"}, (255, 255, 255)),
        ({"background": "#3366cc"}, (0x33, 0x66, 0xCC)),
        ({"output_format": "jpeg"}, (255, 255, 255)),
    ],
)
def test_flattened_before_it_is_sent(
    there: World, provider: str, fields: dict[str, Any], colour: tuple[int, int, int]
) -> None:
    """What is to be opaque is sent so: no black corners, and no border of another colour."""
    answer = there.edit(logo(), routing=f'{{"only": ["{provider}"]}}', **fields)

    assert answer.status == 200, answer.text
    assert answer.body["background"] == "opaque"
    made = opened(answer.images[0])
    assert made.mode == "RGB"
    found = made.getpixel(CORNER)
    assert isinstance(found, tuple)
    assert all(abs(a - b) <= 4 for a, b in zip(found, colour, strict=True))


def test_a_black_drawing_is_not_a_filter(there: World) -> None:
    """Its colours are black all over, as they were sent."""
    answer = there.edit(logo((0, 0, 0)), routing='{"only": ["fal"]}')

    assert answer.body["background"] == "transparent"
    assert not any("filter" in note for note in answer.body["metadata"].get("warnings", []))


def test_an_alpha_channel_that_says_nothing(there: World) -> None:
    """It is opaque all over: the picture is sent as it is, and the answer says so."""
    answer = there.edit(_png(Image.new("RGBA", (64, 48), (9, 99, 199, 255))), routing='{"only": ["fal"]}')

    assert answer.body["background"] == "opaque"
    assert not any("alpha" in note for note in answer.body["metadata"].get("warnings", []))


def test_half_transparent_areas(there: World) -> None:
    """A shadow stays a shadow."""
    picture = Image.new("RGBA", (64, 48), (10, 20, 30, 128))
    made = opened(there.edit(_png(picture), routing='{"only": ["replicate"]}').images[0])

    assert made.getpixel(INSIDE) == (10, 20, 30, 128)
