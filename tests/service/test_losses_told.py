"""What a picture loses on its way in is told, as what it loses on its way out is; and its density is kept or told."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from normalization.images.icc import D65, PRIMARIES, build
from tests.simulators.common import tiny
from tests.support.pictures import chunk, noise
from tests.support.world import World, world

P3 = 12


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """One provider is enough."""
    with world("fal", "replicate") as one:
        yield one


def encoded(picture: Image.Image, fmt: str, **options: Any) -> bytes:
    """A picture as a file."""
    out = io.BytesIO()
    picture.save(out, fmt, **options)
    return out.getvalue()


def warnings(there: World, image: bytes, **fields: Any) -> list[str]:
    """The warnings of a good answer."""
    answer = there.edit(image, routing='{"only": ["fal"]}', **fields)
    assert answer.status == 200, answer.text
    found: list[str] = answer.body["metadata"].get("warnings", [])
    return found


def deep() -> bytes:
    """A PNG of 16 bits."""
    return encoded(Image.new("I;16", (24, 16), 40_000), "png")


def display_p3() -> bytes:
    """A JPEG in Display P3, as phones write it."""
    return encoded(noise(24, 16), "jpeg", icc_profile=build(PRIMARIES[P3], D65, None), quality=95)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (deep(), "from 16 to 8 bits"),
        (display_p3(), "converted to sRGB"),
        (encoded(Image.new("CMYK", (24, 16), (10, 80, 90, 0)), "jpeg"), "from CMYK to sRGB"),
    ],
)
def test_losses_on_the_way_in(there: World, image: bytes, said: str) -> None:
    """Each is a sentence; a picture that loses nothing has none."""
    assert any(said in warning for warning in warnings(there, image))
    assert not any("sRGB" in warning or "bits" in warning for warning in warnings(there, tiny()))


@pytest.mark.parametrize("fmt", ["png", "jpeg"])
@pytest.mark.parametrize("source", ["png", "jpeg"])
def test_the_density_is_kept(there: World, source: str, fmt: str) -> None:
    """Whoever prints the picture gets as many dots per inch as before."""
    image = encoded(noise(24, 16), source, dpi=(300, 300))
    answer = there.edit(image, routing='{"only": ["replicate"]}', output_format=fmt)
    with Image.open(io.BytesIO(answer.images[0])) as made:
        made.load()
        found = made.info["dpi"]

    assert [round(float(dots)) for dots in found] == [300, 300]


def test_a_density_in_exif(there: World) -> None:
    """Cameras write it there, and EXIF is taken out."""
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 240.0, 240.0, 2
    image = encoded(noise(24, 16), "webp", exif=exif)
    answer = there.edit(image, routing='{"only": ["fal"]}')
    with Image.open(io.BytesIO(answer.images[0])) as made:
        assert round(float(made.info["dpi"][0])) == 240


def test_a_density_that_the_format_does_not_hold(there: World) -> None:
    """It is told, but for the 72 and 96 that programs write where nobody has thought of paper."""
    scan = encoded(noise(24, 16), "png", dpi=(600, 600))
    usual = [encoded(noise(24, 16), "jpeg", dpi=(72, 72)), encoded(noise(24, 16), "png", dpi=(96, 96))]

    assert any("600 dots per inch was lost: webp" in warning for warning in warnings(there, scan, output_format="webp"))
    for picture in usual:
        found = warnings(there, picture, output_format="webp")
        assert not any("dots per inch" in warning for warning in found)


def test_a_result_that_stays_as_it_is(there: World) -> None:
    """Its pixels are not encoded again for a density: but for that chunk it is the provider's file."""
    image = encoded(noise(24, 16), "png", dpi=(300, 300))
    bare = there.edit(encoded(noise(24, 16), "png"), routing='{"only": ["fal"]}').images[0]
    made = there.edit(image, routing='{"only": ["fal"]}').images[0]

    at = made.find(b"pHYs") - 4
    assert made[at : at + 21] == chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1))
    assert made[:at] + made[at + 21 :] == bare


def test_the_density_of_a_picture_that_is_turned(there: World) -> None:
    """Across and down change places with the sides."""
    exif = Image.Exif()
    exif[0x0112] = 6
    source = encoded(noise(24, 16), "jpeg", dpi=(200, 100), exif=exif)
    answer = there.edit(source, routing='{"only": ["fal"]}', output_format="png")

    assert answer.status == 200, answer.text
    with Image.open(io.BytesIO(answer.images[0])) as made:
        assert made.size == (32, 48)
        assert [round(float(dots)) for dots in made.info["dpi"]] == [100, 200]
