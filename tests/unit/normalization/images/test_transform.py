"""Pictures made ready for a provider and finished for the caller: whole files in, whole files out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from normalization.images import transform
from normalization.images.sniff import BadImage, InputLimits, check, scan, sniff
from normalization.images.transform import finish, prepare
from normalization.values import FORMATS, Format, Resize, Size, Transcode
from tests.support import pictures
from tests.support.pictures import (
    BLUE,
    FEATURES,
    GREEN,
    RED,
    SECRET,
    WHITE,
    corners,
    done,
    encoded,
    feature,
    near,
    opened,
    plain,
    quarters,
    refusal,
    taken,
)

COMMON = ("png", "jpeg", "webp")
READABLE = [name for name in FEATURES if not name.endswith("-animated")]
# What the encoders turn the four quarters into so that decoding with each orientation shows them upright again.
ORIENTED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("fmt", COMMON)
def test_what_every_provider_reads_stays(fmt: str) -> None:
    """A plain picture comes back as the very same object."""
    picture = taken(plain(fmt))

    assert prepare(picture) is picture


@pytest.mark.parametrize("name", READABLE)
def test_prepared(name: str) -> None:
    """Whatever comes, a provider gets an upright plain picture of the same size without metadata."""
    picture = taken(feature(name))
    ready = prepare(picture)

    assert ready.format in COMMON
    assert (ready.width, ready.height) == (picture.width, picture.height)
    assert (ready.header.plain, ready.header.orientation, ready.header.metadata) == (True, 1, False)
    assert ready.header.alpha == picture.header.alpha
    assert sniff(ready.data) == ready.header
    assert SECRET not in ready.data
    assert prepare(ready) is ready


def test_metadata_alone_costs_no_quality() -> None:
    """A JPEG with a place in it stays a JPEG with the same pixels."""
    data = feature("jpeg-metadata")
    ready = prepare(taken(data))

    assert ready.format == "jpeg"
    assert opened(ready.data).tobytes() == opened(data).tobytes()


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(fmt: str, orientation: int) -> None:
    """Each of the eight orientations shows the picture as it was meant, to the provider and to the caller."""
    turn = ORIENTED[orientation]
    stored = corners().transpose(turn) if turn is not None else corners()
    data = encoded(stored, fmt, quality=95, exif=pictures.exif(orientation))

    for ready in (prepare(taken(data)).data, done(data, Transcode(format="png"))[0]):
        shown = opened(ready).convert("RGB")
        assert shown.size == (48, 32)
        assert all(near(a, b, 24) for a, b in zip(quarters(shown), (RED, GREEN, BLUE, WHITE), strict=True))


@pytest.mark.parametrize("name", [name for name in FEATURES if name.endswith("-animated")])
def test_moving_pictures_are_refused(name: str) -> None:
    """A provider is never given an arbitrary frame."""
    assert refusal(lambda: prepare(taken(feature(name)))).code == "animated_image"


@pytest.mark.parametrize("name", ["gif", "webp-lossless", "avif"])
def test_damage_within_the_pixels(name: str) -> None:
    """Pixels that cannot be decoded are refused when they have to be decoded."""
    data = bytearray(feature(name))
    pixels = {"gif": b"\x2c\0\0\0\0", "webp-lossless": b"VP8L", "avif": b"mdat"}[name]
    begin = data.index(pixels) + 14
    data[begin : begin + 60] = b"\xfe" * 60

    error = refusal(lambda: finish(bytes(data), sniff(feature(name)), [Resize(size=Size(width=5, height=5))]))

    assert error.code == "corrupt_image"


def test_pixels_that_the_structure_does_not_show() -> None:
    """A PNG whose chunks are whole and whose pixels are not is found out by the decoder."""
    data = pictures.raw_png((64, 64), 8, 2, bytes(64 * 3))

    error = refusal(lambda: finish(data, sniff(data), [Transcode(format="jpeg")]))

    assert error.code == "truncated_image"


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None], ids=["by default", "lifted"])
def test_a_bomb(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    """A picture that says it has billions of pixels is refused by its header, and by the decoder too.

    Pillow's own limit, which anything in the process may have lifted, has no part in that.
    """
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    bomb = pictures.raw_png((60_000, 60_000), 1, 0, b"")

    assert refusal(lambda: check(sniff(bomb), InputLimits(max_pixels=10**8, max_side=10**5))).code == "image_too_large"
    assert refusal(lambda: finish(bomb, sniff(bomb), [Transcode(format="jpeg")])).code == "image_too_large"


def test_a_bomb_in_a_process_of_its_own() -> None:
    """The guard is ours and does not hang on how a process treats warnings: 100 megapixels only warn by default."""
    script = """
import sys
from normalization import values
from normalization.images import sniff, transform
data = sys.stdin.buffer.read()
try:
    transform.finish(data, sniff.sniff(data), [values.Transcode(format="jpeg")])
except sniff.BadImage as error:
    print(error.code)
"""
    bomb = pictures.raw_png((10_000, 10_000), 1, 0, b"")
    command = [sys.executable, "-c", script]

    assert subprocess.run(command, input=bomb, capture_output=True, check=True).stdout == b"image_too_large\n"


@pytest.mark.parametrize("fmt", FORMATS)
def test_right_bytes_stay(fmt: Format) -> None:
    """Format and size match: not one byte is touched, and nothing is said."""
    data = plain(fmt)
    picture, notes = finish(data, sniff(data), [Resize(size=Size(width=64, height=48)), Transcode(format=fmt)])

    assert picture.data is data
    assert notes == ()


def test_no_steps() -> None:
    """Without steps the picture is delivered as it came, but for its metadata."""
    data = feature("webp-metadata")
    picture, notes = finish(data, sniff(data), [])

    assert SECRET not in picture.data
    assert opened(picture.data).tobytes() == opened(data).tobytes()
    assert notes == ()


def test_a_quality_that_is_not_applied() -> None:
    """Encoding a JPEG as JPEG again would only lose; the caller is told that his quality had no effect."""
    data = plain("jpeg")
    picture, notes = finish(data, sniff(data), [Transcode(format="jpeg", quality=40)])

    assert picture.data is data
    assert len(notes) == 1
    assert notes[0].startswith("The quality of 40 was not applied: the provider's image is already jpeg")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", READABLE)
def test_every_format_to_every_format(name: str, fmt: Format) -> None:
    """Whatever comes is delivered in the asked format, plain and without metadata."""
    data, _ = done(feature(name), Transcode(format=fmt))
    found = sniff(data)

    assert (found.format, found.plain, found.orientation, found.metadata) == (fmt, True, 1, False)
    assert (found.width, found.height) == (taken(feature(name)).width, taken(feature(name)).height)
    assert not {"exif", "xmp", "comment", "gamma"} & opened(data).info.keys()


@pytest.mark.parametrize("fmt", ["png", "webp", "gif"])
def test_the_first_frame(fmt: str) -> None:
    """Of a moving picture that has to be converted the first frame is kept, and the caller is told."""
    data, notes = done(feature(f"{fmt}-animated"), Transcode(format="jpeg"))

    assert all(near(a, b, 24) for a, b in zip(quarters(opened(data)), (RED, GREEN, BLUE, WHITE), strict=True))
    assert "Only the first frame was kept: the image was animated." in notes


def test_colours_that_were_converted() -> None:
    """A foreign profile is taken out of a file that was right otherwise, and the caller is told."""
    data, notes = done(feature("png-p3"), Transcode(format="png"))

    assert sniff(data).plain
    assert notes == ("The colours were converted to sRGB from another colour space.",)


def test_a_decoder_that_sees_another_size() -> None:
    """The limits were held against our reading of the size, so a decoder with another one is not let go on."""
    found = scan(plain("png"))
    other = replace(found, header=replace(found.header, height=4))

    assert refusal(lambda: transform.decoded(other)).code == "corrupt_image"


@pytest.mark.slow
@given(st.sampled_from(FEATURES), st.sampled_from(FORMATS), st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_damage(name: str, fmt: Format, draw: st.DataObject) -> None:
    """Whatever the sniffer takes is finished or refused, never another exception."""
    data = bytearray(feature(name))
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, min(len(data) - 1, 500)) | st.integers(0, len(data) - 1))
        data[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    try:
        header = sniff(bytes(data))
        check(header, InputLimits(max_pixels=1_000_000, max_side=4_000))
        picture, _ = finish(bytes(data), header, [Resize(size=Size(width=20, height=20)), Transcode(format=fmt)])
    except BadImage:
        return
    assert (picture.header.format, picture.width, picture.height) == (fmt, 20, 20)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("target", ["png", "jpeg"])
def test_a_blanked_picture_is_named(fmt: str, target: Format) -> None:
    """A picture that is black all over is told of, whether it stays as it is or is encoded; others are not."""
    black = pictures.encoded(Image.new("RGB", (400, 300)), fmt)
    night = Image.new("RGB", (400, 300))
    night.paste("white", (200, 150, 206, 156))

    for data, told in (
        (black, True),
        (pictures.encoded(Image.new("RGB", (400, 300), "navy"), fmt), False),
        (pictures.encoded(night, fmt), False),
    ):
        _, notes = pictures.done(data, Transcode(format=target))
        assert any("entirely black" in note for note in notes) is told


STEPS = (
    Transcode(format="png"),
    Transcode(format="jpeg"),
    Transcode(format="webp", quality=80),
    Transcode(format="gif"),
    Transcode(format="png", opaque=True),
    Resize(size=Size(width=48, height=32)),
    Resize(size=Size(width=24, height=16)),
)


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("step", STEPS)
def test_what_is_finished_already(name: str, step: Resize | Transcode) -> None:
    """`is_finished` says beforehand what `finish` would find: the very bytes, and nothing to tell.

    But for an alpha channel: whether anything is transparent has to be looked at.
    """
    data = feature(name)
    header = sniff(data)
    given, notes = finish(data, header, [step])

    assert transform.is_finished(data, header, [step]) == (given.data is data and not notes and not header.alpha)


def test_a_black_picture_is_not_finished() -> None:
    """It has to be looked at: a provider's filter may have blanked it."""
    data = encoded(Image.new("RGB", (400, 300)), "png")

    assert not transform.is_finished(data, sniff(data), [Transcode(format="png")])
