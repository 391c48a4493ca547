"""What a header says of that which 8-bit sRGB cannot hold, and how the caller is told."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from PIL import ExifTags, Image

from normalization.images.encode import losses
from normalization.images.sniff import sniff
from normalization.images.transform import strip
from normalization.values import Header
from tests.support.pictures import (
    ALL,
    encoded,
    feature,
    noise,
    plain,
    raw_png,
    taken,
    with_chunk,
    with_metadata,
    with_segment,
)
from tests.support.pictures import chunk as png_chunk

PICTURES = [plain(fmt) for fmt in ALL]
HDR_XMP = b'http://ns.adobe.com/xap/1.0/\0<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'


def header(**facts: Any) -> Header:
    """A header that says this."""
    return Header(format="png", width=8, height=8, **facts)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, []),
        ({"animated": True, "alpha": True, "metadata": True, "density": (300.0, 300.0)}, []),
        ({"bits": 2}, []),
        ({"bits": 16}, ["16 to 8 bits"]),
        ({"cmyk": True}, ["CMYK"]),
        ({"cmyk": True, "profile": True}, ["CMYK"]),
        ({"profile": True}, ["another colour space"]),
        ({"profile": True, "hdr": "pq", "bits": 10}, ["HDR (PQ)", "10 to 8 bits"]),
        ({"profile": True, "hdr": "hlg"}, ["HDR (HLG)"]),
        ({"extra_pictures": True}, ["gain map"]),
    ],
)
def test_each_loss_is_told_once(facts: dict[str, Any], words: list[str]) -> None:
    """A sentence for each thing that is lost, and none where nothing is."""
    found = losses(header(**facts))

    assert len(found) == len(words)
    assert all(word in sentence and sentence.endswith(".") for word, sentence in zip(words, found, strict=True))


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "gif", "avif", "png-palette", "jpeg-grey", "jpeg-turned"])
def test_nothing_is_lost_of_usual_pictures(name: str) -> None:
    """Turned, indexed, grey: nobody is told of a loss that is none."""
    assert losses(sniff(feature(name))) == ()


def deep_png(depth: int, colour_type: int, extra: bytes = b"") -> bytes:
    """A PNG of 8x4 samples of that depth."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    return raw_png((8, 4), depth, colour_type, bytes(8 * channels * depth // 8 * 4), extra)


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (deep_png(16, 2), {"bits": 16, "profile": False, "hdr": None}),
        (deep_png(2, 0), {"bits": 2}),
        (feature("png-palette"), {"bits": 8}),
        (deep_png(16, 2, png_chunk(b"cICP", bytes((9, 16, 0, 1)))), {"bits": 16, "profile": True, "hdr": "pq"}),
        (deep_png(8, 2, png_chunk(b"cICP", bytes((9, 18, 0, 1)))), {"bits": 8, "profile": True, "hdr": "hlg"}),
        (deep_png(8, 2, png_chunk(b"gAMA", struct.pack(">I", 100_000))), {"profile": True, "hdr": None}),
        (deep_png(8, 2, png_chunk(b"iCCP", b"x\0\0not deflated")), {"plain": False, "profile": False}),
        (deep_png(8, 2, png_chunk(b"cICP", bytes((1, 17, 0, 1)))), {"plain": False, "profile": False, "hdr": None}),
        (feature("webp-p3"), {"profile": True}),
        (feature("jpeg-cmyk"), {"cmyk": True, "profile": False}),
        (feature("jpeg"), {"cmyk": False, "profile": False, "extra_pictures": False}),
    ],
)
def test_what_the_samples_are(data: bytes, facts: dict[str, Any]) -> None:
    """Depth, inks, colour space and brightness are read without decoding."""
    found = sniff(data)

    assert {name: getattr(found, name) for name in facts} == facts


@pytest.mark.parametrize("curve", [("pq", 16), ("hlg", 18)])
def test_an_avif_above_the_range_of_a_screen(curve: tuple[str, int]) -> None:
    """Its nclx names the curve by number."""
    data = plain("avif")
    at = data.index(b"nclx") + 4

    assert sniff(data[:at] + struct.pack(">HH", 9, curve[1]) + data[at + 4 :]).hdr == curve[0]


@pytest.mark.parametrize("fmt", ALL)
@pytest.mark.parametrize("second", range(len(PICTURES)))
@pytest.mark.parametrize("padding", [0, 40])
def test_a_picture_behind_the_picture(fmt: str, second: int, padding: int) -> None:
    """It is seen, told, and gone with the metadata."""
    found = taken(plain(fmt) + bytes(padding) + PICTURES[second])

    assert found.header.extra_pictures
    assert strip(found).data == plain(fmt)
    assert not strip(found).header.extra_pictures


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(), "mpo", save_all=True, append_images=[noise(16, 16)]),
        with_segment(plain("jpeg"), 0xE1, HDR_XMP),
        with_segment(plain("jpeg"), 0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"),
    ],
    ids=["mpo", "ultra hdr", "iso 21496-1"],
)
def test_a_gain_map_or_second_view(data: bytes) -> None:
    """What phones add to a JPEG is seen by what announces it."""
    assert sniff(data).extra_pictures


@pytest.mark.parametrize("fmt", ALL)
def test_no_second_picture(fmt: str) -> None:
    """Other bytes behind the end are none, nor is the thumbnail in EXIF; nor alpha or EXIF items in an AVIF."""
    assert not sniff(plain(fmt) + b"PK\3\4 other bytes").extra_pictures
    assert not sniff(with_metadata(fmt)).extra_pictures
    if fmt != "jpeg":
        assert not sniff(feature(f"{fmt}-alpha")).extra_pictures


def dense_exif(x: float, unit: int | None) -> Image.Exif:
    """EXIF with a resolution."""
    found = Image.Exif()
    found[ExifTags.Base.XResolution], found[ExifTags.Base.YResolution] = x, 2 * x
    if unit is not None:
        found[ExifTags.Base.ResolutionUnit] = unit
    return found


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp", "avif"])
@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (dense_exif(300, 2), (300, 600)),
        (dense_exif(100, 3), (254, 508)),
        (dense_exif(72, None), (72, 144)),
        (dense_exif(72, 1), None),
        (dense_exif(0, 2), None),
    ],
)
def test_the_density_in_exif(fmt: str, exif: Image.Exif, expected: tuple[float, float] | None) -> None:
    """Every format with EXIF has it; what has no unit that measures is none."""
    found = taken(encoded(noise(), fmt, exif=exif))

    assert found.header.density == (expected and pytest.approx(expected))
    assert strip(found).header == sniff(strip(found).data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (with_chunk(plain("png"), png_chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1))), (300, 150)),
        (with_chunk(plain("png"), png_chunk(b"pHYs", struct.pack(">IIB", 1, 2, 0))), None),
        (with_chunk(plain("png"), png_chunk(b"pHYs", struct.pack(">IIB", 0, 0, 1))), None),
        (encoded(noise(), "jpeg", dpi=(300, 150)), (300, 150)),
        (encoded(noise(), "jpeg", dpi=(300, 150)).replace(b"JFIF\0\1\1\1", b"JFIF\0\1\1\2"), (762, 381)),
        (plain("jpeg"), None),
        (plain("gif"), None),
        (encoded(noise(), "jpeg", dpi=(300, 300), exif=dense_exif(72, 2)), (300, 300)),
    ],
)
def test_the_density_of_a_format(data: bytes, expected: tuple[float, float] | None) -> None:
    """Where the format has a place of its own for it, that counts, and stripping leaves it."""
    found = taken(data)

    assert found.header.density == (expected and pytest.approx(expected, abs=0.02))
    assert strip(found).header.density == found.header.density
