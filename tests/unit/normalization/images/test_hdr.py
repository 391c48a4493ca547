"""HDR: PQ and HLG come out as bright as they are beside ordinary pictures, by the formulas of the standards."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence

import pytest
from PIL import Image

from normalization.images.transform import prepare
from tests.support.pictures import chunk, encoded, near, opened, raw_png, taken, with_chunk

CODE_POINTS = {"pq": 16, "hlg": 18}
# BT.2020 to sRGB in linear light, as published in ITU-R BT.2087.
BT2020_TO_SRGB = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
# PQ codes of a luminance in cd/m²; those of 26 (grey card) and 203 (the white of graphics) stand in ITU-R BT.2408.
PQ_CODES = {0: 0.0, 0.1: 0.062, 1: 0.15, 10: 0.302, 26: 0.38, 100: 0.508, 203: 0.581, 1000: 0.752, 10_000: 1.0}


def pq_nits(signal: float) -> float:
    """The EOTF of SMPTE ST 2084, in cd/m²."""
    power = signal ** (32 / 2523)
    return float(10_000 * (max(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (16384 / 2610))


def hlg_scene(signal: float) -> float:
    """The inverse OETF of BT.2100."""
    return signal**2 / 3 if signal <= 0.5 else (math.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12


def nits(samples: Sequence[float], curve: str) -> list[float]:
    """What a display gives for three samples of 0 to 1."""
    if curve == "pq":
        return [pq_nits(value) for value in samples]
    scene = [hlg_scene(value) for value in samples]
    luma = 0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2]
    return [1000 * luma**0.2 * value for value in scene]


def expected(samples: Sequence[float], curve: str) -> tuple[int, ...]:
    """The colour in sRGB: white at 203 cd/m², a shoulder above nine tenths of it."""
    light = [value / 203 for value in nits(samples, curve)]
    light = [max(0.0, sum(m * v for m, v in zip(row, light, strict=True))) for row in BT2020_TO_SRGB]
    most = max(light)
    if most > 0.9:
        light = [value * (1 - 0.1 * math.exp((0.9 - most) / 0.1)) / most for value in light]
    return tuple(round(255 * srgb(min(1.0, value))) for value in light)


def srgb(light: float) -> float:
    """sRGB's curve."""
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def png8(colours: list[tuple[int, int, int]], curve: str, primaries: int = 9) -> bytes:
    """A PNG of 8 bits whose chunk cICP names the curve."""
    rows = b"".join(bytes(colour) for colour in colours)
    return raw_png((len(colours), 1), 8, 2, rows, chunk(b"cICP", bytes((primaries, CODE_POINTS[curve], 0, 1))))


def png16(colours: list[tuple[int, int, int]], curve: str) -> bytes:
    """The same of 16 bits."""
    rows = b"".join(struct.pack(">3H", *colour) for colour in colours)
    return raw_png((len(colours), 1), 16, 2, rows, chunk(b"cICP", bytes((9, CODE_POINTS[curve], 0, 1))))


def shown(data: bytes) -> list[tuple[int, ...]]:
    """The colours of a picture's first row as a provider is given them."""
    picture = opened(prepare(taken(data)).data).convert("RGB")
    return [tuple(picture.getpixel((x, 0))) for x in range(picture.width)]  # type: ignore[arg-type]


def colours(levels: int, count: int = 400) -> list[tuple[int, int, int]]:
    """Greys from black to white, and colours at random."""
    chance = random.Random(5)
    greys = [(level, level, level) for level in range(0, levels, max(1, levels // 256))]
    return greys + [
        (chance.randrange(levels), chance.randrange(levels), chance.randrange(levels)) for _ in range(count)
    ]


@pytest.mark.parametrize("curve", CODE_POINTS)
@pytest.mark.parametrize(("make", "levels"), [(png8, 256), (png16, 65536)], ids=["8 bits", "16 bits"])
def test_by_the_formulas(make: Callable[[list[tuple[int, int, int]], str], bytes], levels: int, curve: str) -> None:
    """Every colour is within one level of what the standards and the shoulder say."""
    samples = colours(levels)

    for sample, found in zip(samples, shown(make(samples, curve)), strict=True):
        assert near(found, expected([value / (levels - 1) for value in sample], curve), 1), sample


@pytest.mark.parametrize(("light", "code"), PQ_CODES.items())
def test_published_codes(light: float, code: float) -> None:
    """The codes that everybody knows; below the shoulder a luminance is what it would be in sRGB."""
    level = round(code * 65535)
    found = shown(png16([(level, level, level)], "pq"))[0]

    assert len(set(found)) == 1
    if light <= 180:
        assert abs(found[0] - 255 * srgb(light / 203)) <= 2
    else:
        assert found[0] >= 250


def test_white_of_hlg() -> None:
    """75 % of HLG is the white of graphics, as 58 % of PQ is."""
    assert shown(png16([(49151, 49151, 49151)], "hlg")) == [(251, 251, 251)]
    assert shown(png16([(38055, 38055, 38055)], "pq")) == [(251, 251, 251)]


@pytest.mark.parametrize("curve", CODE_POINTS)
def test_more_light_is_never_darker(curve: str) -> None:
    """From black to the brightest the greys rise, through the shoulder too, to full white."""
    greys = [found[0] for found in shown(png16([(level, level, level) for level in range(0, 65536, 85)], curve))]

    assert greys == sorted(greys)
    assert (greys[0], greys[-1]) == (0, 255)


def test_a_highlight_keeps_its_hue() -> None:
    """What is brighter than white is scaled, not cut off channel by channel."""
    red, green, blue = shown(png16([(52000, 48000, 44000)], "pq"))[0]

    assert red == 255
    assert red > green > blue
    assert blue < 240


def test_primaries_by_number() -> None:
    """sRGB's own and those of Display P3 are not taken for BT.2020's."""
    colour = [(120, 60, 60)]
    found = [shown(png8(colour, "pq", primaries))[0] for primaries in (1, 12, 9)]

    assert found[0][0] < found[1][0] < found[2][0]
    assert near(found[0], tuple(round(255 * srgb(pq_nits(value / 255) / 203)) for value in colour[0]), 1)


@pytest.mark.parametrize("curve", CODE_POINTS)
def test_alpha_and_grey(curve: str) -> None:
    """Transparency is no light, and a grey picture is one colour three times."""
    cicp = chunk(b"cICP", bytes((9, CODE_POINTS[curve], 0, 1)))
    rgba = opened(prepare(taken(raw_png((1, 1), 16, 6, struct.pack(">4H", 30000, 30000, 30000, 0x8000), cicp))).data)
    grey = shown(raw_png((1, 1), 16, 0, struct.pack(">H", 30000), cicp))[0]
    rgb = shown(png16([(30000, 30000, 30000)], curve))[0]

    assert rgba.getpixel((0, 0)) == (*rgb, 128)
    assert near(grey, rgb, 0)


@pytest.mark.parametrize("curve", CODE_POINTS)
def test_an_avif(curve: str) -> None:
    """Its nclx names the curve; phones write ten bits, of which the decoder gives eight."""
    level = 140
    data = encoded(Image.new("RGB", (16, 16), (level, level, level)), "avif", quality=100)
    at = data.index(b"nclx") + 4
    found = shown(data[:at] + struct.pack(">HH", 9, CODE_POINTS[curve]) + data[at + 4 :])[0]

    assert near(found, expected([level / 255] * 3, curve), 3)


def test_a_picture_of_many_strips() -> None:
    """Long pictures are converted piece by piece, without a seam."""
    picture = Image.linear_gradient("L").resize((700, 900)).convert("RGB")
    data = with_chunk(encoded(picture, "png"), chunk(b"cICP", bytes((9, 16, 0, 1))))
    found = opened(prepare(taken(data)).data)

    for y in range(0, 900, 37):
        assert near(found.getpixel((350, y)), expected([picture.getpixel((350, y))[0] / 255] * 3, "pq"), 1)  # type: ignore[index]
