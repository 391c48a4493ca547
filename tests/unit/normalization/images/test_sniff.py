"""Sniffing: what is read from every format, and that no bytes at all can do more than be refused."""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normalization.images.formats import base
from normalization.images.formats.exif import orientation
from normalization.images.pixels import pixels_of
from normalization.images.sniff import BadImage, InputLimits, check, is_quick, scan, sniff
from normalization.values import Header
from tests.support import pictures
from tests.support.pictures import ALL, FEATURES, chunk, encoded, feature, noise, plain, raw_png, refusal

CUT = ("truncated_image", "corrupt_image")
PLAIN = {fmt: Header(format=fmt, width=64, height=48) for fmt in ALL}  # type: ignore[arg-type]
LIMITS = InputLimits(max_pixels=50_000_000, max_side=16_384)


@pytest.mark.parametrize("fmt", ALL)
def test_a_plain_picture(fmt: str) -> None:
    """Format and size are read, and nothing is seen that is not there."""
    assert sniff(plain(fmt)) == PLAIN[fmt]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((f"{fmt}-metadata", {"metadata": True}) for fmt in ALL),
        *((f"{fmt}-p3", {"plain": False, "profile": True}) for fmt in ALL if fmt != "gif"),
        *((f"{fmt}-alpha", {"alpha": True, "width": 48, "height": 32}) for fmt in ALL if fmt != "jpeg"),
        ("png-animated", {"animated": True, "width": 48, "height": 32}),
        ("webp-animated", {"animated": True, "plain": False, "width": 48, "height": 32}),
        ("gif-animated", {"animated": True, "width": 48, "height": 32}),
        ("jpeg-cmyk", {"plain": False, "cmyk": True}),
        ("jpeg-progressive", {}),
        ("jpeg-grey", {}),
        ("jpeg-turned", {"orientation": 6, "metadata": True}),
        ("png-palette", {"alpha": True}),
        ("png-16", {"plain": False, "bits": 16, "width": 8, "height": 4}),
        ("webp-lossless", {"alpha": True, "width": 48, "height": 32}),
    ],
)
def test_a_feature_is_seen(name: str, change: dict[str, object]) -> None:
    """Each property shows in the header, alone."""
    expected = replace(PLAIN[name.partition("-")[0]], **change)  # type: ignore[arg-type]

    assert sniff(feature(name)) == expected


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp", "avif"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation(fmt: str, value: int) -> None:
    """EXIF orientation is read from every format that has it; in AVIF it becomes a property of the picture."""
    found = sniff(encoded(noise(), fmt, exif=pictures.exif(value)))

    assert (found.width, found.height, found.orientation) == (64, 48, value)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"", 1),
        (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\x06\0\0", 6),
        (b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\4\0\1\0\0\0\x08\0\0\0", 8),
        (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\x09\0\0", 1),
        (b"MM\0*\xff\xff\xff\xff", 1),
        (b"MM\0*\0\0\0\x08\xff\xff\x01\x10\0\3\0\0\0\1\0\x06\0\0", 1),
        (b"XX\0*\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\x06\0\0", 1),
        (b"MM\0+\0\0\0\x08\0\x01\x01\x12\0\3\0\0\0\1\0\x06\0\0", 1),
    ],
)
def test_exif_of_any_kind(block: bytes, expected: int) -> None:
    """Both byte orders and both kinds of number are read; damaged EXIF means upright."""
    assert orientation(block) == expected


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?>\n<svg/>", "an SVG"),
        (b"<?xml version='1.0'?><Error/>", "an XML"),
        (b"<!DOCTYPE html><html></html>", "an HTML"),
        (b'{"error": "not found"}', "JSON"),
        (b"data:image/png;base64,iVBORw0KGgo=", "a data URL"),
        (b"iVBORw0KGgoAAAANSUhEUg==", "base64"),
        (b"https://example.org/cat.png", "a URL as text"),
        (b"%PDF-1.7\n", "a PDF"),
        (encoded(noise(), "bmp"), "a BMP"),
        (encoded(noise(), "tiff"), "a TIFF"),
        (encoded(noise(), "ico"), "an icon"),
        (encoded(noise(), "jpeg2000"), "a JPEG 2000"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "a HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(50), "a video"),
        (b"\xff\x0a" + bytes(50), "a JPEG XL"),
        (b"PK\3\4" + bytes(50), "a ZIP"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(50), "not an image"),
        (bytes(50), "not an image"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, what: str) -> None:
    """The sentence says what came and what to send instead."""
    error = refusal(lambda: sniff(data))

    assert error.code == "not_an_image"
    assert what in error.message
    assert "PNG, JPEG, WebP, GIF or AVIF" in error.advice
    assert error.told == f"{error.message} {error.advice}"


def test_nothing_at_all() -> None:
    """An empty file has a code of its own."""
    assert refusal(lambda: sniff(b"")).code == "empty_image"


def _pixels_or_refusal(data: bytes) -> bytes | BadImage:
    try:
        return pixels_of(scan(data)).tobytes()
    except BadImage as error:
        return error


@pytest.mark.parametrize("name", FEATURES)
def test_a_file_cut_anywhere_is_refused(name: str) -> None:
    """No file that lost some of its pixels passes, wherever it was cut."""
    data = feature(name)
    whole = pixels_of(scan(data)).tobytes()
    for length in {*range(4, min(len(data), 600)), *range(4, len(data), 61), *range(len(data) - 40, len(data))}:
        found = _pixels_or_refusal(data[:length])
        assert found == whole if isinstance(found, bytes) else found.code in CUT, length


@pytest.mark.parametrize("fmt", ALL)
def test_a_file_cut_within_its_pixels(fmt: str) -> None:
    """A picture that stops in the middle is told from a damaged one."""
    assert refusal(lambda: pixels_of(scan(plain(fmt)[:-200]))).code == "truncated_image"


@pytest.mark.parametrize("fmt", ALL)
def test_bytes_behind_the_end(fmt: str) -> None:
    """They are tolerated, and to be removed."""
    assert sniff(plain(fmt) + b"PK\3\4 a second file") == replace(PLAIN[fmt], metadata=True)


def test_a_changed_byte_in_a_png() -> None:
    """Every chunk's checksum is held against its bytes."""
    data = plain("png")
    for at in (20, 60, len(data) // 2, len(data) - 14):
        changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        assert refusal(functools.partial(sniff, changed)).code == "corrupt_image"


@pytest.mark.parametrize(
    "data",
    [
        pictures.raw_png((0, 4), 8, 0, b""),
        pictures.raw_png((4, 4), 3, 0, bytes(16)),
        pictures.raw_png((4, 4), 8, 5, bytes(16)),
        pictures.raw_png((4, 4), 8, 3, bytes(16)),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"") + chunk(b"IEND"),
        pictures.raw_png((4, 4), 8, 0, bytes(16), chunk(b"ABCD", b"what")),
        plain("png")[:33] + plain("png")[8:],
        pictures.raw_png((4, 4), 8, 0, bytes(16), chunk(b"iCCP", b"bomb\0\0" + zlib.compress(bytes(5_000_000)))),
        b"\x89PNG\r\n\x1a\n" + plain("png")[8:33] + chunk(b"IEND"),
        b"\xff\xd8\xff\xd9",
        plain("jpeg")[:20] + b"\xff\xfe\0\0" + plain("jpeg")[20:],
        pictures.with_segment(plain("jpeg"), 0xC0, b"\x08"),
        b"RIFF\x0c\0\0\0WEBPVP8 \0\0\0\0",
        feature("webp-alpha").replace(b"\x2f\0\0\x1f\0\0", b"\x2f\0\0\x0f\0\0"),
        b"\xff\xd8\xff\xda\0\x02\xff\xd9",
        pictures.with_segment(plain("jpeg"), 0xC0, bytes.fromhex("08003000400101110000")),
        b"GIF89a\x04\0\x04\0\0\0\0\x3b",
        b"GIF89a\x04\0\x04\0\0\0\0\x99\x3b",
    ],
)
def test_a_structure_that_contradicts_itself(data: bytes) -> None:
    """What no decoder can read is refused before one tries."""
    assert refusal(lambda: sniff(data)).code == "corrupt_image"


def test_twelve_bit_jpeg() -> None:
    """A JPEG that most programs cannot read is named as such."""
    data = plain("jpeg").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")

    assert "12 bits" in refusal(lambda: sniff(data)).message


def test_a_thumbnail_does_not_count() -> None:
    """The size of a JPEG is that of the picture, not of the small one inside its EXIF."""
    data = pictures.with_segment(plain("jpeg"), 0xE1, b"Exif\0\0" + encoded(noise(16, 16), "jpeg"))

    assert sniff(data) == replace(PLAIN["jpeg"], metadata=True)


def test_fill_before_a_marker() -> None:
    """Any number of bytes 0xFF may stand in front of a JPEG's marker and mean nothing."""
    assert sniff(plain("jpeg")[:20] + b"\xff\xff\xff" + plain("jpeg")[20:]) == PLAIN["jpeg"]


def test_a_marker_across_two_windows() -> None:
    """Long pictures are searched piece by piece, and an end that lies between two pieces is found."""
    data = plain("jpeg")
    at = data.index(b"\xff\xda")
    begin = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")

    assert not sniff(data[:begin] + bytes((1 << 20) - 1) + b"\xff\xd9").metadata


def test_a_frame_larger_than_its_screen() -> None:
    """Decoders enlarge the screen of such a GIF, so its size is that of the frame."""
    data = plain("gif")

    assert sniff(data[:6] + b"\1\0\1\0" + data[10:]) == PLAIN["gif"]
    assert pictures.opened(data[:6] + b"\1\0\1\0" + data[10:]).size == (64, 48)


def test_a_loop_is_no_metadata() -> None:
    """What makes a GIF repeat is part of it."""
    assert not sniff(encoded(noise(), "gif", save_all=True, append_images=[pictures.corners(64, 48)], loop=0)).metadata


def test_the_two_pictures_of_a_phone() -> None:
    """An MPO is a JPEG with something behind it."""
    data = encoded(noise(), "mpo", save_all=True, append_images=[noise(16, 16)])

    assert sniff(data) == replace(PLAIN["jpeg"], metadata=True, extra_pictures=True)


@pytest.mark.parametrize(
    ("extra", "is_plain"),
    [
        (chunk(b"gAMA", struct.pack(">I", 45_455)), True),
        (chunk(b"gAMA", struct.pack(">I", 100_000)), False),
        (chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"sRGB", b"\0"), True),
        (chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)), True),
        (chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)), False),
        (chunk(b"cHRM", bytes(32)), True),
        (chunk(b"cICP", bytes((1, 13, 0, 1))), True),
        (chunk(b"cICP", bytes((12, 13, 0, 1))), False),
        (chunk(b"cICP", bytes((9, 16, 0, 1))), False),
        (chunk(b"iCCP", b"x\0\0" + zlib.compress(pictures.SRGB)), True),
        (chunk(b"iCCP", b"x\0\0not deflated"), False),
    ],
)
def test_colour_chunks_of_png(extra: bytes, is_plain: bool) -> None:
    """Each of the five ways in which a PNG names its colours is understood, in the order of the specification."""
    assert sniff(pictures.with_chunk(plain("png"), extra)).plain is is_plain


@pytest.mark.parametrize(
    "data",
    [
        plain("png")[:33] + chunk(b"tEXt") * base.MAX_PARTS + plain("png")[33:],
        plain("jpeg")[:2] + b"\xff\xfe\0\x02" * base.MAX_PARTS + plain("jpeg")[2:],
        b"RIFF" + struct.pack("<I", 4 + 8 * base.MAX_PARTS) + b"WEBP" + b"junk\0\0\0\0" * base.MAX_PARTS,
        b"GIF89a\x04\0\x04\0\0\0\0" + b"\x21\xfe\0" * base.MAX_PARTS + b"\x3b",
        b"GIF89a\x04\0\x04\0\0\0\0\x2c" + bytes((0, 0, 0, 0, 4, 0, 4, 0, 0, 2)) + b"\x01\x01" * 2_000_000 + b"\0\x3b",
        plain("avif") + b"\0\0\0\x08free" * base.MAX_PARTS,
    ],
    ids=["png", "jpeg", "webp", "gif", "gif sub-blocks", "avif"],
)
def test_a_million_parts(data: bytes) -> None:
    """A file that is divided to wear out its reader is refused."""
    assert "divided into more than" in refusal(lambda: sniff(data)).message


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (Header(format="png", width=30_000, height=10), "image_too_large"),
        (Header(format="png", width=10_000, height=10_000), "image_too_large"),
        (Header(format="gif", width=10, height=10, animated=True), "animated_image"),
    ],
)
def test_limits(header: Header, code: str) -> None:
    """A side, the area and movement are refused, each by its code."""
    assert refusal(lambda: check(header, LIMITS)).code == code


def test_within_the_limits() -> None:
    """The largest that is allowed passes."""
    check(Header(format="png", width=16_384, height=3_051), LIMITS)


def test_a_bomb_is_seen_before_it_is_inflated() -> None:
    """A few bytes that announce a picture of terabytes cost nothing to read and are refused."""
    bomb = pictures.raw_png((2**31 - 1, 2**31 - 1), 8, 6, b"")

    assert refusal(lambda: check(sniff(bomb), LIMITS)).code == "image_too_large"


def _is_header_or_refusal(data: bytes) -> None:
    try:
        found = sniff(data)
    except BadImage:
        return
    assert found.width > 0
    assert found.height > 0


@pytest.mark.slow
@given(st.binary(max_size=300), st.sampled_from([b"", *(plain(fmt)[:16] for fmt in ALL)]))
@settings(max_examples=400)
def test_any_bytes(data: bytes, beginning: bytes) -> None:
    """Whatever comes is a header or a refusal, never another exception."""
    _is_header_or_refusal(beginning + data)


@pytest.mark.slow
@given(st.sampled_from(FEATURES), st.data())
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
def test_any_damage(name: str, draw: st.DataObject) -> None:
    """Real files with bytes changed, removed or repeated are a header or a refusal, never another exception."""
    data = bytearray(feature(name))
    for _ in range(draw.draw(st.integers(1, 6))):
        # Most of what a parser reads is in front.
        at = draw.draw(st.integers(0, min(len(data) - 1, 500)) | st.integers(0, len(data) - 1))
        data[at : at + draw.draw(st.integers(0, 4))] = draw.draw(st.binary(max_size=4))
        if not data:
            break
    if name.startswith("png"):
        data = bytearray(_with_checksums(bytes(data)))
    _is_header_or_refusal(bytes(data))


def _with_checksums(data: bytes) -> bytes:
    """A damaged PNG with its checksums made right, so that the damage comes through to what reads the chunks."""
    at, out = 8, data[:8]
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out + data[at:]


def test_what_is_read_in_a_moment() -> None:
    """A PNG of many chunks is not, nor is a large file of another format: those are read beside the event loop."""
    large = encoded(noise(420, 420), "png", compress_level=0)
    many = raw_png((4, 4), 8, 2, b"", b"".join(chunk(b"IDAT", bytes(600)) for _ in range(120)))

    assert len(large) > 500_000
    assert is_quick(large)
    assert is_quick(large[:-500_000])
    assert len(many) > 70_000
    assert not is_quick(many)
    assert not is_quick(encoded(noise(420, 420), "bmp"))
    assert not is_quick(large + bytes(1 << 20))
    assert is_quick(b"")
