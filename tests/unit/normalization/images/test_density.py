"""The density in a file whose pixels stay as they are."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image as Pillow

from normalization.images.density import with_density
from normalization.images.sniff import sniff
from normalization.values import Image
from tests.support.pictures import encoded, noise


def taken(data: bytes) -> Image:
    """A picture with its header."""
    return Image(data=data, header=sniff(data))


@pytest.mark.parametrize("before", [None, (72, 72)])
@pytest.mark.parametrize("fmt", ["png", "jpeg"])
def test_it_is_written_and_read_back(fmt: str, before: tuple[int, int] | None) -> None:
    """Once, whatever was there before; and every reader finds the same pixels."""
    data = encoded(noise(), fmt, **({"dpi": before} if before else {}))
    made = with_density(taken(data), (300.0, 150.0))

    assert replace(made.header, density=None) == replace(sniff(made.data), density=None)
    assert made.header.density == (300.0, 150.0)
    assert [round(dots) for dots in sniff(made.data).density or ()] == [300, 150]
    with Pillow.open(io.BytesIO(made.data)) as new, Pillow.open(io.BytesIO(data)) as old:
        assert new.tobytes() == old.tobytes()
        assert [round(float(dots)) for dots in new.info["dpi"]] == [300, 150]
    assert made.data.count(b"pHYs") + made.data.count(b"JFIF") == 1


@pytest.mark.parametrize("fmt", ["webp", "gif", "avif"])
def test_formats_without_a_place_for_it(fmt: str) -> None:
    """They stay as they are."""
    image = taken(encoded(noise(), fmt))

    assert with_density(image, (300.0, 300.0)) is image


def test_adobes_colours() -> None:
    """A JFIF header would say that these are YCbCr."""
    data = encoded(noise().convert("CMYK"), "jpeg")
    data = data if data[2:4] != b"\xff\xe0" else data[:2] + data[20:]
    image = taken(data)

    assert b"Adobe" in data
    assert with_density(image, (300.0, 300.0)) is image


@pytest.mark.parametrize("adobe", ["behind a profile", "missing"])
def test_colours_that_are_no_ycbcr(adobe: str) -> None:
    """Adobe's header may stand anywhere before the frame, and the components' names alone say it as well."""
    data = encoded(Pillow.new("RGB", (32, 32), (200, 20, 40)), "jpeg", keep_rgb=True)
    at = data.index(b"\xff\xee")
    header, rest = data[at : at + 16], data[:at] + data[at + 16 :]
    profile = b"\xff\xe2\x08\x00ICC_PROFILE\0\1\1" + bytes(0x800 - 16)
    image = taken(rest if adobe == "missing" else rest[:2] + profile + header + rest[2:])

    made = with_density(image, (300.0, 300.0))
    with Pillow.open(io.BytesIO(made.data)) as new, Pillow.open(io.BytesIO(image.data)) as old:
        assert new.convert("RGB").tobytes() == old.convert("RGB").tobytes()


def test_a_header_that_is_not_in_front() -> None:
    """It is written to where it stands, and no second one is added."""
    data = encoded(noise(), "jpeg", icc_profile=b"\0" * 16 + b"RGB " + bytes(400))
    at = data.index(b"\xff\xe2")
    length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    data = data[:2] + data[at : at + length] + data[2:at] + data[at + length :]
    made = with_density(taken(data), (300.0, 150.0))

    assert made.data.count(b"JFIF") == 1
    assert [round(dots) for dots in sniff(made.data).density or ()] == [300, 150]


def test_names_of_chunks_inside_of_others() -> None:
    """What stands in a palette is no chunk."""
    picture = noise().quantize(16)
    colours = bytearray(picture.getpalette() or b"")
    colours[3:15] = b"pHYsIDATpHYs"
    picture.putpalette(bytes(colours))
    data = encoded(picture, "png")
    made = with_density(taken(data), (300.0, 300.0))

    with Pillow.open(io.BytesIO(made.data)) as new, Pillow.open(io.BytesIO(data)) as old:
        assert new.convert("RGB").tobytes() == old.convert("RGB").tobytes()
