"""Pictures made ready for a provider and finished for the caller: whole files in, whole files out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from normalization import images
from normalization.headers import BadImage, Limits, check, scan, sniff
from normalization.images import finish, prepare
from normalization.values import FORMATS, Format, Resize, Size, Step, Transcode
from tests.normalization import pictures
from tests.normalization.pictures import (
    BLUE,
    FEATURES,
    GREEN,
    RED,
    SECRET,
    WHITE,
    corners,
    encoded,
    feature,
    near,
    noise,
    opened,
    plain,
    quarters,
    refusal,
    taken,
    transparent,
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


def done(data: bytes, *steps: Step) -> tuple[bytes, tuple[str, ...]]:
    """A file through the finishing steps, whose header is checked on the way."""
    found, notes = finish(data, sniff(data), steps)
    assert found.header == sniff(found.data)
    return found.data, notes


def transcoded(picture: Image.Image, fmt: Format, quality: int | None = None) -> bytes:
    """A picture through one transcoding, from a format that is another."""
    return done(
        encoded(picture, "webp" if fmt == "png" else "png", lossless=True), Transcode(format=fmt, quality=quality)
    )[0]


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


def test_a_bomb() -> None:
    """A picture that says it has billions of pixels is refused by its header, and by the decoder too."""
    bomb = pictures.raw_png((60_000, 60_000), 1, 0, b"")

    assert refusal(lambda: check(sniff(bomb), Limits(max_pixels=10**8, max_side=10**5))).code == "image_too_large"
    assert refusal(lambda: finish(bomb, sniff(bomb), [Transcode(format="jpeg")])).code == "image_too_large"


def test_a_bomb_in_a_process_of_its_own() -> None:
    """The guard is ours and does not hang on how a process treats warnings: 100 megapixels only warn by default."""
    script = """
import sys
from normalization import headers, images, values
data = sys.stdin.buffer.read()
try:
    images.finish(data, headers.sniff(data), [values.Transcode(format="jpeg")])
except headers.BadImage as error:
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
    assert notes[0].startswith("The quality of 40 was not applied: the picture came as jpeg already")


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
    assert "Only the first frame was kept: the picture was animated." in notes


def test_colours_that_were_converted() -> None:
    """A foreign profile is taken out of a file that was right otherwise, and the caller is told."""
    data, notes = done(feature("png-p3"), Transcode(format="png"))

    assert sniff(data).plain
    assert notes == ("The colours were converted to 8-bit sRGB.",)


@pytest.mark.parametrize("mode", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(48, 32), (33, 77), (200, 1), (1, 1), (96, 64), (7, 5)])
@pytest.mark.parametrize("source", ["RGB", "RGBA", "L"])
def test_exact_sizes(mode: str, size: tuple[int, int], source: str) -> None:
    """Every mode gives exactly the size that was asked for."""
    step = Resize(size=Size(width=size[0], height=size[1]), mode=mode)  # type: ignore[arg-type]
    data, notes = done(encoded(corners(mode=source), "png"), step)

    assert opened(data).size == size
    assert notes == ()


def test_crop() -> None:
    """The overhang is cut off evenly on both sides and the aspect ratio stays."""
    picture = Image.new("RGB", (60, 20), RED)
    picture.paste(GREEN, (20, 0, 40, 20))
    data, _ = done(encoded(picture, "png"), Resize(size=Size(width=40, height=40)))
    cut = opened(data)

    assert all(near(cut.getpixel((x, 20)), GREEN, 40) for x in (1, 20, 38))


def test_stretch() -> None:
    """The whole picture fills the size."""
    data, _ = done(encoded(corners(), "png"), Resize(size=Size(width=32, height=96), mode="stretch"))

    assert quarters(opened(data)) == (RED, GREEN, BLUE, WHITE)


@pytest.mark.parametrize(
    ("background", "fmt", "opaque", "expected"),
    [
        (None, "png", False, (0, 0, 0, 0)),
        (None, "png", True, (255, 255, 255)),
        (None, "jpeg", False, (255, 255, 255)),
        ("#102030", "png", False, (16, 32, 48)),
        ("#102030", "jpeg", False, (16, 32, 48)),
    ],
)
def test_pad(background: str | None, fmt: Format, opaque: bool, expected: tuple[int, ...]) -> None:
    """What is left is transparent where it can be and nothing else was asked for, else the colour, else white."""
    steps = (
        Resize(size=Size(width=48, height=96), mode="pad", background=background),
        Transcode(format=fmt, opaque=opaque, background=background),
    )
    data, notes = done(encoded(corners(), "webp", lossless=True), *steps)
    padded = opened(data)

    assert near(padded.getpixel((24, 5)), expected)
    assert near(padded.getpixel((24, 90)), expected)
    assert near(padded.convert("RGB").getpixel((12, 40)), RED, 30)
    assert notes == ()


def test_padded_evenly() -> None:
    """As much is left free on one side as on the other, and the picture is as large as fits."""
    step = Resize(size=Size(width=100, height=32), mode="pad", background="#000000")
    padded = opened(done(encoded(Image.new("RGB", (48, 32), WHITE), "png"), step)[0])

    assert padded.convert("L").getbbox() == (26, 0, 74, 32)


def test_invisible_colours_do_not_bleed() -> None:
    """What has no alpha has no colour either: no dark or bright fringe appears beside it when it is resized."""
    picture = Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 20, 40))
    data, _ = done(encoded(picture, "png"), Resize(size=Size(width=100, height=100), mode="stretch"))
    row = [opened(data).getpixel((x, 50)) for x in range(100)]

    assert row[0] == (255, 0, 0, 255)
    assert row[99] == (0, 0, 0, 0)
    assert all(pixel[1] == 0 for pixel in row if isinstance(pixel, tuple) and pixel[3])


@pytest.mark.parametrize("name", ["png-alpha", "webp-alpha", "webp-lossless", "avif-alpha", "gif-alpha"])
def test_flattened_for_a_format_without_alpha(name: str) -> None:
    """Transparent areas turn white in a JPEG, and the caller is told."""
    data, notes = done(feature(name), Transcode(format="jpeg"))

    assert near(opened(data).getpixel((5, 16)), WHITE)
    assert notes == ("Transparent areas were flattened onto #ffffff: jpeg has no transparency.",)


def test_flattened_onto_a_colour() -> None:
    """A colour replaces white; half-transparent areas are mixed with it."""
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    data, _ = done(encoded(picture, "png"), Transcode(format="png", opaque=True, background="#0000ff"))

    assert near(opened(data).getpixel((4, 4)), (128, 0, 127), 1)


def test_flattened_where_it_was_asked_for() -> None:
    """An opaque picture in a format with alpha is no loss to speak of: it is what was asked for."""
    data, notes = done(feature("png-alpha"), Transcode(format="png", opaque=True))

    assert not sniff(data).alpha
    assert notes == ()


def test_alpha_that_hides_nothing() -> None:
    """A picture that could be transparent and is not becomes a JPEG without a word."""
    assert done(encoded(corners(mode="RGBA"), "png"), Transcode(format="jpeg"))[1] == ()


@pytest.mark.parametrize("fmt", ["png", "webp", "avif", "gif"])
def test_alpha_is_kept(fmt: Format) -> None:
    """Where the target has transparency it stays."""
    source = encoded(transparent(), "webp" if fmt == "png" else "png", lossless=True)
    kept = opened(done(source, Transcode(format=fmt))[0]).convert("RGBA")

    assert kept.getchannel("A").getpixel((5, 16)) == 0
    assert near(kept.getpixel((40, 5)), (*GREEN, 255), 40)


def test_half_transparent_gif() -> None:
    """GIF knows no half: the nearer side is taken, and the caller is told."""
    picture = Image.new("RGBA", (40, 20), (255, 0, 0, 100))
    picture.paste((0, 0, 255, 200), (20, 0, 40, 20))
    data, notes = done(encoded(picture, "png"), Transcode(format="gif"))
    found = opened(data).convert("RGBA")

    assert [found.getchannel("A").getpixel((x, 10)) for x in (5, 35)] == [0, 255]
    assert near(found.getpixel((35, 10)), (0, 0, 255, 255))
    assert notes == (
        "The colours were reduced to 256: gif has no more.",
        "Half-transparent areas became transparent or opaque: gif has nothing between.",
    )


def test_grey_gif() -> None:
    """256 greys fit into a GIF: nothing is lost and nothing is said."""
    grey = Image.linear_gradient("L")
    data, notes = done(encoded(grey, "png"), Transcode(format="gif"))

    assert opened(data).convert("L").tobytes() == grey.tobytes()
    assert notes == ()


@pytest.mark.parametrize("fmt", ["jpeg", "webp", "avif"])
def test_quality(fmt: Format) -> None:
    """More quality is more bytes, from 0 to 100."""
    sizes = [len(transcoded(noise(), fmt, quality)) for quality in (0, 30, 60, 90, 100)]

    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(("fmt", "default"), [("jpeg", 90), ("webp", 90), ("avif", 75)])
def test_default_quality(fmt: Format, default: int) -> None:
    """Without a quality the measured default of the format is used."""
    assert transcoded(noise(), fmt) == transcoded(noise(), fmt, default) != transcoded(noise(), fmt, default + 1)


@pytest.mark.parametrize("quality", [-1, 101])
def test_a_quality_that_does_not_exist(quality: int) -> None:
    """Out of bounds is a mistake, never a silent correction."""
    with pytest.raises(ValueError, match="0 to 100"):
        transcoded(noise(), "jpeg", quality)


@pytest.mark.parametrize(("quality", "sampling"), [(100, 0x11), (90, 0x11), (89, 0x22), (0, 0x22)])
def test_colour_resolution_of_jpeg(quality: int, sampling: int) -> None:
    """From quality 90 on colours keep their full resolution, below it they have half."""
    data = transcoded(noise(), "jpeg", quality)

    assert data[data.index(b"\xff\xc0") + 11] == sampling


def test_png_level() -> None:
    """PNG is written at level 1, losslessly."""
    data = transcoded(noise(), "png")

    assert data == encoded(noise(), "png", compress_level=1)
    assert opened(data).tobytes() == noise().tobytes()


def test_webp_method() -> None:
    """WebP is written with method 2."""
    assert transcoded(noise(), "webp", 80) == encoded(noise(), "webp", quality=80, method=2)


@pytest.mark.parametrize(("side", "speed"), [(200, 8), (1_000, 9)])
def test_avif_speed(side: int, speed: int) -> None:
    """AVIF is written at speed 9, and one better below a megapixel."""
    picture = corners(side, side)

    assert transcoded(picture, "avif") == encoded(picture, "avif", quality=75, speed=speed)


def test_gif_palette() -> None:
    """GIF is written with a fast octree's palette and with dither, which keeps gradients smooth."""
    picture = Image.merge("RGB", (Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256))))
    palette = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
    expected = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)

    assert opened(transcoded(picture, "gif")).convert("RGB").tobytes() == expected.convert("RGB").tobytes()


def test_what_the_encoder_is_not_given() -> None:
    """A profile that means sRGB, a gamma and a resolution are not written again with other pixels."""
    data = encoded(corners(), "png", icc_profile=pictures.SRGB, dpi=(300, 300))
    found = opened(done(data, Resize(size=Size(width=24, height=16)))[0])

    assert found.info == {}


def test_too_wide_for_the_format() -> None:
    """WebP ends at 16,383 pixels: a wider picture is refused with a sentence that says so."""
    data = encoded(Image.new("L", (17_000, 1)), "png")
    error = refusal(lambda: finish(data, sniff(data), [Transcode(format="webp")]))

    assert error.code == "image_too_large"
    assert "16,383" in error.message


def test_a_decoder_that_sees_another_size() -> None:
    """The limits were held against our reading of the size, so a decoder with another one is not let go on."""
    found = scan(plain("png"))
    other = replace(found, header=replace(found.header, height=4))

    assert refusal(lambda: images._decoded(other)).code == "corrupt_image"


@given(st.sampled_from(FEATURES), st.sampled_from(FORMATS), st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_damage(name: str, fmt: Format, draw: st.DataObject) -> None:
    """Whatever the sniffer takes is finished or refused, never another exception."""
    data = bytearray(feature(name))
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, min(len(data) - 1, 500)) | st.integers(0, len(data) - 1))
        data[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    try:
        header = sniff(bytes(data))
        check(header, Limits(max_pixels=1_000_000, max_side=4_000))
        picture, _ = finish(bytes(data), header, [Resize(size=Size(width=20, height=20)), Transcode(format=fmt)])
    except BadImage:
        return
    assert (picture.header.format, picture.width, picture.height) == (fmt, 20, 20)
