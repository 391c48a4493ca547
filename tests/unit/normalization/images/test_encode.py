"""Files as they are written: the measured settings, and what a format cannot hold."""

from __future__ import annotations

import pytest
from PIL import Image

from normalization.images.encode import encode, holds_density
from normalization.images.sniff import sniff
from normalization.images.transform import finish
from normalization.values import Format, Resize, Size, Transcode
from tests.support import pictures
from tests.support.pictures import corners, done, encoded, near, noise, opened, refusal, transcoded


def test_half_transparent_gif() -> None:
    """GIF knows no half: the nearer side is taken, and the caller is told."""
    picture = Image.new("RGBA", (40, 20), (255, 0, 0, 100))
    picture.paste((0, 0, 255, 200), (20, 0, 40, 20))
    data, notes = done(encoded(picture, "png"), Transcode(format="gif"))
    found = opened(data).convert("RGBA")

    assert [found.getchannel("A").getpixel((x, 10)) for x in (5, 35)] == [0, 255]
    assert near(found.getpixel((35, 10)), (0, 0, 255, 255))
    assert notes == ("Semi-transparent areas became transparent or opaque: gif has no partial transparency.",)


@pytest.mark.parametrize("count", [2, 255, 256, 257])
@pytest.mark.parametrize("hole", [False, True])
def test_few_colours_in_a_gif(count: int, hole: bool) -> None:
    """A drawing, or a grey picture of three channels, loses nothing where the palette has a place for every colour."""
    picture = Image.new("RGBA" if hole else "RGB", (257, 3))
    picture.putdata(
        [(x % count * 251 % 256, x % count // 2, x % count % 7, 255)[: 4 if hole else 3] for x in range(771)]
    )
    if hole:
        picture.putpixel((0, 2), (9, 9, 9, 0))
    data, notes = done(encoded(picture, "png"), Transcode(format="gif"))
    holds = count <= (255 if hole else 256)
    shown = opened(data).convert("RGBA")

    assert notes == (() if holds else ("The colours were reduced to 256, the maximum of gif.",))
    assert (visible(shown) == visible(picture.convert("RGBA"))) == holds


def test_a_gif_that_shows_every_pixel() -> None:
    """It has no transparent colour, so that nobody takes it for a transparent picture."""
    data, notes = done(encoded(Image.new("RGBA", (9, 9), (9, 99, 199, 200)), "png"), Transcode(format="gif"))

    assert "transparency" not in opened(data).info
    assert notes == ("Semi-transparent areas became transparent or opaque: gif has no partial transparency.",)


def test_transparency_that_is_cut_off() -> None:
    """What is left is opaque, and is written and called so."""
    picture = Image.new("RGBA", (60, 20), (9, 99, 199, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 8, 20))
    data, _ = done(encoded(picture, "png"), Resize(size=Size(width=20, height=20)), Transcode(format="png"))

    assert opened(data).mode == "RGB"


def visible(picture: Image.Image) -> bytes:
    """The pixels, with one colour for all that is invisible."""
    ground = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    return Image.composite(picture, ground, picture.getchannel("A")).tobytes()


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


@pytest.mark.parametrize("density", [(300.0, 300.0), (72.0, 144.0), (11.81 * 25.4, 1200.0)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_density(mode: str, density: tuple[float, float]) -> None:
    """PNG and JPEG say how large the picture is on paper, and nothing else beside its pixels."""
    for fmt in ("png", "jpeg"):
        data = encode(corners().convert(mode if fmt == "png" else "RGB"), fmt, density=density)
        found = sniff(data)
        assert found.density == pytest.approx(density, abs=0.5)
        assert not found.metadata
        assert set(opened(data).info) <= {"dpi", "jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize("fmt", ["webp", "gif", "avif"])
def test_formats_without_a_place_for_the_density(fmt: Format) -> None:
    """They would need EXIF for it, and the file stays without."""
    assert not holds_density(fmt, (300, 300))
    assert encode(corners(), fmt, density=(300, 300)) == encode(corners(), fmt)


@pytest.mark.parametrize("density", [(0.1, 300.0), (300.0, 1e9), (70_000.0, 70_000.0)])
def test_a_density_beyond_the_format(density: tuple[float, float]) -> None:
    """What the format cannot say is left out."""
    assert not holds_density("jpeg", density)
    assert encode(corners(), "jpeg", density=density) == encode(corners(), "jpeg")


def test_too_wide_for_the_format() -> None:
    """WebP ends at 16,383 pixels: a wider picture is refused with a sentence that says so."""
    data = encoded(Image.new("L", (17_000, 1)), "png")
    error = refusal(lambda: finish(data, sniff(data), [Transcode(format="webp")]))

    assert error.code == "image_too_large"
    assert "16,383" in error.message
