"""Damage: outside of the pixels it is passed over, within them refused; a paid picture needs its pixels only."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from normalization.images.pixels import pixels_of
from normalization.images.sniff import BadImage, scan, sniff
from normalization.images.transform import prepare, strip
from normalization.values import Header
from tests.support import pictures
from tests.support.pictures import chunk, corners, encoded, feature, noise, opened, plain, raw_png, refusal, taken

ANCILLARY = {
    b"tEXt": b"Comment\0hi",
    b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
    b"iCCP": b"x\0\0" + zlib.compress(pictures.DISPLAY_P3),
    b"gAMA": struct.pack(">I", 100_000),
    b"cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
    b"cICP": bytes((9, 16, 0, 1)),
    b"eXIf": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\x06\0\0\0\0\0\0",
    b"acTL": struct.pack(">II", 2, 0),
    b"prVt": b"private",
}


def broken(kind: bytes, body: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    good = chunk(kind, body)
    return good[:-1] + bytes((good[-1] ^ 1,))


def pixels(data: bytes, *, lenient: bool = False) -> bytes:
    """A file's pixels as the gateway reads them."""
    return pixels_of(scan(data, lenient=lenient)).tobytes()


def behind(data: bytes, kind: bytes) -> tuple[int, int]:
    """Where the first chunk of a kind of a PNG begins and ends."""
    at = data.index(kind) - 4
    return at, at + 12 + int.from_bytes(data[at : at + 4], "big")


@pytest.mark.parametrize("kind", ANCILLARY)
def test_an_ancillary_chunk_with_a_wrong_checksum(kind: bytes) -> None:
    """It counts as none, as it does to libpng: the picture is plain, and is passed on without it."""
    found = taken(pictures.with_chunk(plain("png"), broken(kind, ANCILLARY[kind])))

    assert found.header == taken(pictures.with_chunk(plain("png"), chunk(b"tEXt", b"x\0y"))).header
    assert prepare(found).data == plain("png")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"pHYs", b"\0\0"),
        (b"gAMA", b"\0"),
        (b"cHRM", bytes(10)),
        (b"sRGB", b""),
        (b"cICP", b"\x09"),
        (b"bKGD", bytes(5)),
    ],
)
def test_an_ancillary_chunk_of_the_wrong_length(kind: bytes, body: bytes) -> None:
    """It says nothing that can be read, and not every decoder survives it."""
    found = taken(pictures.with_chunk(plain("png"), chunk(kind, body)))

    assert found.header.plain
    assert prepare(found).data == plain("png")


def test_the_first_of_two_counts() -> None:
    """Readers differ in which of two chunks they believe: the second goes."""
    first, second = (chunk(b"gAMA", struct.pack(">I", value)) for value in (45_455, 100_000))
    found = taken(pictures.with_chunk(plain("png"), first + second))

    assert found.header.plain
    assert prepare(found).data == pictures.with_chunk(plain("png"), first)


KEYED = raw_png((4, 1), 8, 0, b"\0\x64\xc8\xff", chunk(b"tRNS", b"\0\xc8"))


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND", b"tRNS"])
def test_what_the_pixels_need_stays_strict(kind: bytes) -> None:
    """A caller's picture may not be damaged there."""
    _, end = behind(KEYED, kind)
    damaged = KEYED[: end - 1] + bytes((KEYED[end - 1] ^ 1,)) + KEYED[end:]
    error = refusal(lambda: sniff(damaged))

    assert error.code == "corrupt_image"
    assert kind.decode() in error.message
    assert "editor" not in error.message
    assert error.told == f"{error.message} Save it again in an image editor."


@pytest.mark.parametrize("kind", [b"IDAT", b"IEND", b"tRNS"])
def test_a_paid_picture_is_judged_by_its_pixels(kind: bytes) -> None:
    """Its wrong checksums are passed over; it is decoded, so that nobody is given the damaged file."""
    _, end = behind(KEYED, kind)
    damaged = KEYED[: end - 1] + bytes((KEYED[end - 1] ^ 1,)) + KEYED[end:]
    header = sniff(damaged, lenient=True)
    expected = pixels(raw_png((4, 1), 8, 0, b"\0\x64\xc8\xff")) if kind == b"tRNS" else pixels(KEYED)

    assert not header.plain
    assert header.metadata
    assert pixels(damaged, lenient=True) == expected


@pytest.mark.parametrize("lost", [12, 14, 16])
def test_a_paid_png_without_its_end(lost: int) -> None:
    """IEND and even the checksums in front of it are not needed."""
    assert pixels(plain("png")[:-lost], lenient=True) == pixels(plain("png"))
    assert refusal(lambda: sniff(plain("png")[:-lost])).code == "truncated_image"


def test_a_paid_png_with_rubbish_for_its_end() -> None:
    """What is no chunk ends the picture."""
    assert pixels(plain("png")[:-12] + b"<html>an error</html>", lenient=True) == pixels(plain("png"))


@pytest.mark.parametrize(
    "data",
    [
        plain("png")[:-300],
        plain("png")[:40],
        pictures.with_chunk(plain("png"), chunk(b"IHDR", struct.pack(">IIBBBBB", 9999, 9999, 8, 2, 0, 0, 0))),
        pictures.with_chunk(plain("png"), chunk(b"ABCD", b"what")),
        plain("png")[:20] + b"\xff" + plain("png")[21:],
        plain("jpeg")[:-300],
        plain("gif")[:-300],
        plain("webp")[:-300],
        plain("avif")[:-300],
        b"<html>an error</html>",
    ],
)
def test_what_even_a_paid_picture_must_have(data: bytes) -> None:
    """Whole pixels, one size, and nothing that is unknown and needed."""
    assert isinstance(refusal(lambda: pixels(data, lenient=True)), BadImage)


SUBJECTS = {"noise": noise(61, 47), "flat": corners(), "grey": Image.new("L", (64, 64), 128)}
JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
    "full colour": {"quality": 100, "subsampling": 0},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("picture", SUBJECTS.values(), ids=SUBJECTS)
def test_a_jpeg_without_its_end_marker(picture: Image.Image, options: dict[str, Any]) -> None:
    """It is a whole picture, whatever follows; cut anywhere in its data it is none."""
    data = encoded(picture, "jpeg", **options)
    whole = pixels(data)
    for end in (data[:-2], data[:-1], data[:-2] + plain("jpeg")):
        found = taken(end)
        assert not found.header.plain
        assert pixels(end) == whole
        assert opened(prepare(found).data).tobytes() == whole
    assert sniff(data[:-2] + plain("jpeg")).extra_pictures
    scans = data.rindex(b"\xff\xda") + 10
    # Of the last byte some bits may be mere padding.
    for length in range(scans, len(data) - 3, 1 if len(data) < 4000 else 97):
        assert _is_refused(data[:length]), len(data) - length


def _is_refused(data: bytes) -> bool:
    try:
        pixels(data)
    except BadImage as error:
        return error.code == "truncated_image"
    return False


def test_a_jpeg_without_its_end_marker_and_with_many_scans() -> None:
    """To find out whether it is whole it would be decoded several times, for each of its scans."""
    data = encoded(noise(), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    often = data[:last] + data[last:-2] * 30

    assert sniff(often + b"\xff\xd9").plain
    assert refusal(lambda: sniff(often)).code == "truncated_image"


def test_a_progressive_jpeg_that_lost_a_scan() -> None:
    """All that is there decodes, and half of the detail is missing: that is cut off."""
    data = encoded(noise(), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xc4")

    assert refusal(lambda: sniff(data[:last])).code == "truncated_image"
    assert refusal(lambda: sniff(data[:last] + plain("jpeg"))).code == "corrupt_image"


@pytest.mark.parametrize(
    "segment", [(0xE0, b"JFIF\0\1"), (0xEE, b"Adobe\0"), (0xE1, b"Exif\0\0MM"), (0xE2, b"ICC_PROFILE\0")]
)
def test_a_jpeg_segment_that_is_too_short(segment: tuple[int, bytes]) -> None:
    """It says nothing, and is no reason to refuse."""
    data = pictures.with_segment(plain("jpeg"), *segment)

    assert pixels(data) == pixels(plain("jpeg"))
    assert sniff(data).plain


@pytest.mark.parametrize("claimed", [0, 4, 100, 1_000_000, 2**32 - 2])
@pytest.mark.parametrize("name", ["webp", "webp-lossless", "webp-metadata"])
def test_a_webp_whose_length_is_wrong(name: str, claimed: int) -> None:
    """The chunks are believed, and the length is written anew."""
    data = feature(name)
    found = taken(data[:4] + struct.pack("<I", claimed) + data[8:])

    assert found.header.metadata
    assert prepare(found).data == strip(taken(data)).data


def test_a_webp_cut_in_its_metadata() -> None:
    """The picture in front of it is whole."""
    data = feature("webp-metadata")

    assert prepare(taken(data[: data.index(b"EXIF") + 20])).data == strip(taken(data)).data


def test_a_gif_without_its_trailer() -> None:
    """It ends behind its picture."""
    assert strip(taken(plain("gif")[:-1])).data == plain("gif")


@pytest.mark.parametrize("lost", [b"\x99 rubbish", b"\x21\xfe\x40 a comment", b""])
def test_a_paid_gif_with_rubbish_for_its_end(lost: bytes) -> None:
    """What follows the picture is not needed, nor its last terminator."""
    assert pixels(plain("gif")[:-1] + lost, lenient=True) == pixels(plain("gif"))
    assert pixels(plain("gif")[:-2], lenient=True) == pixels(plain("gif"))


def test_avif_metadata_outside_of_the_file() -> None:
    """An EXIF item that points nowhere is as good as none."""
    data = feature("avif-metadata")
    header = sniff(data)
    at = data.index(b"iloc")
    exif = data.rindex(b"Exif\0\0")
    offset = data.index(struct.pack(">I", exif - 4), at)
    moved = data[:offset] + struct.pack(">I", len(data) + 100) + data[offset + 4 :]

    assert sniff(moved).width == header.width
    assert pixels(moved) == pixels(data)


@pytest.mark.slow
@given(st.sampled_from(pictures.FEATURES), st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_any_damage_leniently(name: str, seed: int) -> None:
    """Whatever is damaged, the answer is a header or a refusal, and what is no picture for a caller is not plain."""
    chance = random.Random(seed)
    data = bytearray(feature(name))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        data[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    found = _header(bytes(data), lenient=True)
    strict = _header(bytes(data), lenient=False)

    assert strict is None or found == strict
    assert strict is not None or found is None or not found.plain


def _header(data: bytes, *, lenient: bool) -> Header | None:
    try:
        return sniff(data, lenient=lenient)
    except BadImage:
        return None
