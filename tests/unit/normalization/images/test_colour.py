"""Colours: every mode, depth and profile brought to 8-bit sRGB, held against numbers from elsewhere."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from normalization.images import icc, transform
from normalization.images.sniff import scan
from normalization.images.transform import prepare
from tests.support import pictures
from tests.support.pictures import chunk, encoded, near, opened, raw_png, taken

# Display P3 to sRGB in linear light, as published in CSS Color 4.
P3_TO_SRGB = ((1.2249401, -0.2249404, 0.0), (-0.0420569, 1.0420571, 0.0), (-0.0196376, -0.0786361, 1.0982735))
SAMPLES = [(128, 128, 128), (200, 150, 100), (90, 160, 120), (100, 100, 180)]


def shown(data: bytes) -> Image.Image:
    """What a provider is given."""
    return opened(prepare(taken(data)).data)


def decoded(data: bytes) -> Image.Image:
    """What all conversions begin with; a picture that is plain already would not be decoded by `prepare`."""
    return transform.decoded(scan(data))


def linear(value: float) -> float:
    """The curve of sRGB."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def coded(value: float) -> int:
    """A linear value as 8-bit sRGB."""
    value = min(max(value, 0.0), 1.0)
    return round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))


def with_curve(curve: bytes) -> bytes:
    """A profile of sRGB's primaries and a curve element."""
    parts = icc._tags(pictures.SRGB)
    points = {kind: parts[kind] for kind in (b"rXYZ", b"gXYZ", b"bXYZ")}
    return icc._assemble(points, curve)


# sRGB's curve as most profiles of cameras have it.
TABLE = struct.pack(">4s4xI256H", b"curv", 256, *(round(65535 * linear(index / 255)) for index in range(256)))


def from_p3(colour: tuple[int, int, int]) -> tuple[int, ...]:
    """A Display P3 colour in sRGB."""
    light = [linear(value / 255) for value in colour]
    return tuple(coded(sum(m * v for m, v in zip(row, light, strict=True))) for row in P3_TO_SRGB)


@pytest.mark.parametrize("colour", SAMPLES)
def test_display_p3(colour: tuple[int, int, int]) -> None:
    """A profile's colours come out as the published matrix says, and not as they are stored."""
    found = shown(encoded(Image.new("RGB", (8, 8), colour), "png", icc_profile=pictures.DISPLAY_P3)).getpixel((4, 4))

    assert near(found, from_p3(colour), 2)


def test_display_p3_without_a_profile() -> None:
    """PNG and AVIF can name the space by numbers, which means the same."""
    colour = (200, 150, 100)
    data = pictures.with_chunk(encoded(Image.new("RGB", (8, 8), colour), "png"), chunk(b"cICP", bytes((12, 13, 0, 1))))
    avif = encoded(Image.new("RGB", (16, 16), colour), "avif", quality=100)
    at = avif.index(b"colrnclx") + 8

    assert near(shown(data).getpixel((4, 4)), from_p3(colour), 2)
    assert near(shown(avif[: at + 1] + b"\x0c" + avif[at + 2 :]).getpixel((4, 4)), from_p3(colour), 5)


def test_gamma() -> None:
    """A PNG that stores linear light is shown as bright as it is."""
    data = pictures.with_chunk(
        encoded(Image.new("RGB", (8, 8), (55, 128, 200)), "png"), chunk(b"gAMA", struct.pack(">I", 100_000))
    )

    assert near(shown(data).getpixel((4, 4)), tuple(coded(value / 255) for value in (55, 128, 200)), 2)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_goes_past_the_profile(mode: str) -> None:
    """Only colours are converted: transparency is no colour."""
    picture = Image.new("RGBA", (8, 8), (128, 128, 128, 77)).convert(mode)

    assert near(shown(encoded(picture, "png", icc_profile=pictures.LINEAR)).getpixel((4, 4)), (188, 188, 188, 77), 2)


def test_grey_with_a_profile_of_colours() -> None:
    """A grey picture with an RGB profile goes through it."""
    assert near(
        shown(encoded(Image.new("L", (8, 8), 128), "png", icc_profile=pictures.LINEAR)).getpixel((4, 4)),
        (188, 188, 188),
        2,
    )


@pytest.mark.parametrize("profile", [b"no profile at all", pictures.DISPLAY_P3[:200], bytes(16) + b"CMYK" + bytes(200)])
def test_a_profile_that_cannot_be_used(profile: bytes) -> None:
    """It is passed over, as viewers do."""
    data = pictures.with_chunk(
        encoded(Image.new("RGB", (8, 8), (9, 99, 199)), "png"), chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))
    )

    assert shown(data).getpixel((4, 4)) == (9, 99, 199)


def test_cmyk() -> None:
    """Four inks become three colours the right way round."""
    found = shown(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg", quality=95))

    assert found.mode == "RGB"
    assert near(found.getpixel((8, 8)), (255, 0, 0), 3)


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "key", "expected"),
    [
        (1, 0, b"\x50", None, [0, 255, 0, 255]),
        (2, 0, b"\x1b", None, [0, 85, 170, 255]),
        (4, 0, b"\x0f\x3f", None, [0, 255, 51, 255]),
        (16, 0, struct.pack(">4H", 0, 255, 256, 65535), None, [0, 0, 1, 255]),
        (1, 0, b"\x50", b"\0\1", [(0, 0, 0, 255), (255, 255, 255, 0), (0, 0, 0, 255), (255, 255, 255, 0)]),
        (2, 0, b"\x1b", b"\0\2", [(0, 0, 0, 255), (85, 85, 85, 255), (170, 170, 170, 0), (255, 255, 255, 255)]),
        (4, 0, b"\x0f\x3f", b"\0\3", [(0, 0, 0, 255), (255, 255, 255, 255), (51, 51, 51, 0), (255, 255, 255, 255)]),
        (8, 0, b"\0\x64\xc8\xff", b"\0\xc8", [(0, 0, 0, 255), (100, 100, 100, 255), (200, 200, 200, 0), (255,) * 4]),
        (
            16, 0, struct.pack(">4H", 0, 51400, 51401, 65535), struct.pack(">H", 51400),
            [(0, 0, 0, 255), (200, 200, 200, 0), (200, 200, 200, 255), (255,) * 4],
        ),
        (16, 2, struct.pack(">6H", 1000, 2000, 3000, 65535, 0, 0), None, [(3, 7, 11), (255, 0, 0)]),
        (
            16, 2, struct.pack(">6H", 1000, 2000, 3000, 65535, 0, 0), struct.pack(">3H", 1000, 2000, 3000),
            [(3, 7, 11, 0), (255, 0, 0, 255)],
        ),
        (16, 4, struct.pack(">4H", 0x1234, 0x8000, 0xFFFF, 0), None, [(18, 18, 18, 128), (255, 255, 255, 0)]),
        (16, 6, struct.pack(">4H", 0x1234, 0x8000, 1, 0xFFFF), None, [(18, 128, 0, 255)]),
    ],
)  # fmt: skip
def test_depths_and_keys_of_png(
    depth: int, colour_type: int, row: bytes, key: bytes | None, expected: list[object]
) -> None:
    """Every depth is brought to 8 bits by its high bits, and one transparent colour becomes a channel."""
    data = raw_png((len(expected), 1), depth, colour_type, row, chunk(b"tRNS", key) if key else b"")
    found = decoded(data)

    assert [found.getpixel((x, 0)) for x in range(len(expected))] == expected


def test_palettes() -> None:
    """Each entry of a palette may have its own transparency."""
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putdata([0, 1])

    assert [decoded(encoded(picture, "png", transparency=b"\x80\xff")).getpixel((x, 0)) for x in range(2)] == [
        (255, 0, 0, 128),
        (0, 255, 0, 255),
    ]


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), True),
        (pictures.SRGB, True),
        (icc.build(icc.SRGB, icc.D65, 2.2), False),
        (pictures.LINEAR, False),
        (pictures.DISPLAY_P3, False),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), False),
        (pictures.SRGB[:150], False),
        (with_curve(TABLE), True),
        (with_curve(struct.pack(">4s4xI", b"curv", 0)), False),
        (with_curve(struct.pack(">4s4xIH", b"curv", 1, round(2.2 * 256))), False),
        (with_curve(struct.pack(">4s4xHxx5i", b"para", 3, 157_286, -(1 << 16), 0, 0, 0)), False),
        (b"", False),
        (pictures.tables("sRGB v4 ICC preference"), True),
        (pictures.tables("eciRGB"), False),
    ],
)
def test_which_profiles_are_srgb(profile: bytes, expected: bool) -> None:
    """By what they do where that can be read, else by their name."""
    assert icc.is_srgb(profile) is expected


@pytest.mark.slow
@given(st.sampled_from([pictures.SRGB, with_curve(TABLE), pictures.tables("sRGB")]), st.data())
@settings(max_examples=300)
def test_any_damage_to_a_profile(profile: bytes, draw: st.DataObject) -> None:
    """Whatever a profile holds, the answer is yes or no, never an exception."""
    data = bytearray(profile)
    at = draw.draw(st.integers(16, len(data) - 1))
    data[at : at + 4] = draw.draw(st.binary(min_size=1, max_size=4))

    assert icc.is_srgb(bytes(data)) in (True, False)


def test_a_built_profile_is_what_a_colour_engine_makes() -> None:
    """Our sRGB from primaries is the engine's own: a conversion between the two changes nothing."""
    picture = Image.frombytes("RGB", (16, 16), bytes(range(256)) * 3)
    engine = ImageCms.createProfile("sRGB")
    built = ImageCms.ImageCmsProfile(BytesIO(pictures.SRGB))
    found = ImageCms.profileToProfile(picture, built, engine)

    assert found is not None
    assert max(abs(a - b) for a, b in zip(found.tobytes(), picture.tobytes(), strict=True)) <= 1


@pytest.mark.parametrize(
    ("primaries", "white", "gamma"),
    [
        (((0.64, 0.0), (0.3, 0.6), (0.15, 0.06)), icc.D65, 2.2),
        (((0.1, 0.1), (0.2, 0.2), (0.3, 0.3)), icc.D65, 2.2),
        (icc.SRGB, (0.3, 0.0), 2.2),
        (icc.SRGB, icc.D65, 100_000),
    ],
)
def test_primaries_without_a_meaning(
    primaries: tuple[tuple[float, float], ...], white: tuple[float, float], gamma: float
) -> None:
    """Numbers from a file that make no colour space make no profile either."""
    assert icc.build(primaries, white, gamma) is None
