"""One reading of a picture: what the worker decodes is what the gateway decodes, sample by sample."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from normalization.images.pixels import pixels_of
from normalization.images.sniff import scan, sniff
from normalization.images.transform import prepare
from providers.worker.engines.images import decode, open_picture
from tests.support.pictures import FEATURES, chunk, encoded, exif, feature, noise, opened, plain, raw_png, taken

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def worker(data: bytes) -> tuple[Image.Image, list[str]]:
    """A file as the worker's engines decode it, and what they say of it."""
    said: list[str] = []
    return decode(open_picture(data, lambda: False), said.append), said


def gateway(data: bytes) -> Image.Image:
    """A file as the gateway decodes it."""
    return pixels_of(scan(data))


def same(first: Image.Image, second: Image.Image) -> bool:
    """Whether every pixel is the same, transparency included."""
    return first.convert("RGBA").tobytes() == second.convert("RGBA").tobytes()


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    """PNGs of every type and depth, with and without a transparent colour."""
    colour_type = draw(st.sampled_from(sorted(DEPTHS)))
    depth = draw(st.sampled_from(DEPTHS[colour_type]))
    width, height = 8, draw(st.integers(1, 3))
    step = width * depth * CHANNELS[colour_type] // 8
    # Few values, so that the transparent colour is met.
    rows = draw(st.lists(st.sampled_from([0x00, 0x1B, 0x55, 0xFF]), min_size=step * height, max_size=step * height))
    extra = b""
    if colour_type == 3:
        extra += chunk(b"PLTE", draw(st.binary(min_size=3 << depth, max_size=3 << depth)))
        if draw(st.booleans()):
            extra += chunk(b"tRNS", draw(st.binary(min_size=1, max_size=1 << depth)))
    elif colour_type in (0, 2) and draw(st.booleans()):
        most = (1 << depth) - 1
        values = (0x00, 0x1B, 0x55, 0xFF) if depth <= 8 else (0x0000, 0x001B, 0x5555, 0xFFFF, 0x1B1B)
        key = [draw(st.sampled_from(values)) & most for _ in range(CHANNELS[colour_type])]
        extra += chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    return raw_png((width, height), depth, colour_type, bytes(rows), extra)


@given(pngs())
@settings(max_examples=300, deadline=None)
def test_any_png(data: bytes) -> None:
    """Depth, type and transparent colour are read alike; and what is passed on as it is every decoder reads so."""
    found, said = worker(data)
    expected = gateway(data)
    header = sniff(data)

    assert same(found, expected)
    assert any("8 bits" in word for word in said) == (header.bits > 8)
    if header.plain:
        assert same(opened(data), expected)
    if header.alpha:
        assert expected.mode == "RGBA"


@given(pngs(), st.sampled_from(["png", "webp"]))
@settings(max_examples=150, deadline=None)
def test_the_encoder_and_the_decoder(data: bytes, fmt: Any) -> None:
    """What was decoded and written without loss is read again as it was."""
    expected = gateway(data)
    made = prepare(taken(data)).data
    options = {"lossless": True, "exact": True} if fmt == "webp" else {}

    assert same(gateway(made), expected)
    assert same(gateway(encoded(expected, fmt, **options)), expected)


@pytest.mark.parametrize(
    ("depth", "row", "key"),
    [(2, b"\x55\x55\xff\xff", 1), (4, b"\x33\x33\x33\x33\xff\xff\xff\xff", 3), (1, b"\x00\xff", 0)],
)
def test_the_transparent_colour_of_a_shallow_grey(depth: int, row: bytes, key: int) -> None:
    """The left half stays transparent in the worker too, and no provider's decoder is left to decide."""
    width = len(row) * 8 // depth
    data = raw_png((width, 1), depth, 0, row, chunk(b"tRNS", struct.pack(">H", key)))
    alpha = [0] * (width // 2) + [255] * (width // 2)

    assert list(worker(data)[0].getchannel("A").tobytes()) == alpha
    assert list(worker(prepare(taken(data)).data)[0].getchannel("A").tobytes()) == alpha
    assert not sniff(data).plain


@pytest.mark.parametrize("turned", [1, 6])
def test_the_transparent_colour_of_a_deep_picture(turned: int) -> None:
    """It is that colour to the last bit: what differs in the low bytes alone is no hole, in neither of the two."""
    samples = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x1234, 0x5679, 0x9ABC)
    extra = chunk(b"tRNS", samples[:6]) + chunk(b"eXIf", exif(turned).tobytes().removeprefix(b"Exif\0\0"))
    data = raw_png((2, 1), 16, 2, samples, extra)

    for found in (worker(data)[0], opened(prepare(taken(data)).data)):
        assert found.size == ((2, 1) if turned == 1 else (1, 2))
        assert found.tobytes() == bytes((0x12, 0x56, 0x9A, 0, 0x12, 0x56, 0x9A, 255))


@pytest.mark.parametrize("name", [name for name in FEATURES if not name.endswith(("cmyk", "p3", "turned"))])
def test_every_feature(name: str) -> None:
    """The other formats are read alike too; but for profiles, which the worker hands on."""
    assert same(worker(feature(name))[0], gateway(feature(name)))


@pytest.mark.parametrize("fmt", ["png8", "png16", "avif"])
def test_hdr(fmt: str) -> None:
    """It is tone-mapped, and said, and no profile claims what the samples were."""
    if fmt.startswith("png"):
        depth = int(fmt[3:])
        data = raw_png((8, 4), depth, 2, bytes(range(12 * depth)), chunk(b"cICP", bytes((9, 16, 0, 1))))
    else:
        at = plain("avif").index(b"nclx") + 4
        data = plain("avif")[:at] + struct.pack(">HH", 9, 18) + plain("avif")[at + 4 :]
    found, said = worker(data)

    assert same(found, gateway(data))
    assert any("HDR" in word for word in said)


def test_a_grey_profile_with_a_transparent_colour() -> None:
    """Grey stays grey, so that its profile still fits."""
    picture = noise().convert("L")
    data = encoded(picture, "png", transparency=7)

    assert worker(data)[0].mode == "LA"
