"""What a result is to look like, worked out from the picture that was sent, and whether it does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeAlias

from PIL import Image, ImageChops, ImageFilter, ImageOps

from normalization.values import Image as Picture
from normalization.values import Size
from tests.support.pictures import encoded, opened

# What becomes of transparency on a route: it is kept by the provider, enlarged here beside it, or lost.
Way: TypeAlias = Literal["kept", "beside", "lost"]
# The mean square error at 40 dB.
MOST_ERROR = 255**2 / 10**4
_WHITE, _LANCZOS = "#ffffff", Image.Resampling.LANCZOS
# From what alpha on a pixel of a GIF is opaque.
_GIF_OPAQUE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller asked for beside the picture."""

    format: str
    quality: int | None
    background: str
    size: str | None
    mode: str
    factor: float | None

    @property
    def colour(self) -> str | None:
        """What transparent areas are to be flattened onto; None where they are to be kept."""
        if self.background.startswith("#"):
            return self.background
        return _WHITE if self.background == "opaque" or self.format == "jpeg" else None


def expected(
    seen: Image.Image, provided: tuple[int, int], preferences: Wish, promised: Size | None, *, way: Way
) -> Image.Image:
    """The result that was meant, as RGB, or as RGBA where anything in it is transparent.

    `provided` is the size that the provider enlarges to, `promised` what the plan says of the result's, `way` what
    becomes of transparency on the route.
    """
    picture = _opaque(seen)
    colour = preferences.colour or (_WHITE if way == "lost" else None)
    if colour is not None and way != "kept":
        picture = _onto(picture, colour)
    if way == "beside" and picture.mode == "RGBA":
        alpha = picture.getchannel("A").resize(provided, _LANCZOS)
        picture = _filled(picture).resize(provided, _LANCZOS)
        picture.putalpha(alpha)
    picture = picture.resize(provided, _LANCZOS)
    if colour is not None:
        picture = _onto(picture, colour)
    if preferences.size is None:
        if preferences.factor is not None:
            wanted = (max(1, round(seen.width * preferences.factor)), max(1, round(seen.height * preferences.factor)))
            assert promised == Size(width=wanted[0], height=wanted[1])
        wanted = picture.size if promised is None else (promised.width, promised.height)
        return _opaque(picture.resize(wanted, _LANCZOS))
    width, height = map(int, preferences.size.split("x"))
    if preferences.mode != "fit":
        assert promised == Size(width=width, height=height)
    return _opaque(_sized(picture, seen.size, (width, height), preferences))


def _filled(picture: Image.Image) -> Image.Image:
    """An RGBA picture as RGB: what is invisible has the mean colour of what is visible around it, layer by layer."""
    picture = picture.copy()
    for _ in range(max(picture.size)):
        solid = picture.getchannel("A").point([0] + [255] * 255)
        picture.putalpha(solid)
        # Premultiplied, invisible pixels have no weight.
        around = picture.convert("RGBa").filter(ImageFilter.BoxBlur(1)).convert("RGBA")
        picture = Image.composite(picture, around, solid)
    return picture.convert("RGB")


def _sized(picture: Image.Image, shape: tuple[int, int], box: tuple[int, int], preferences: Wish) -> Image.Image:
    if preferences.mode == "stretch":
        return picture.resize(box, _LANCZOS)
    if preferences.mode == "crop":
        return ImageOps.fit(picture, box, _LANCZOS)
    if preferences.mode == "fit":
        return picture.resize(_inside(shape, box), _LANCZOS)
    inner = picture.resize(_inside(picture.size, box), _LANCZOS)
    place = ((box[0] - inner.width) // 2, (box[1] - inner.height) // 2)
    if preferences.colour is None:
        canvas = Image.new("RGBA", box, (0, 0, 0, 0))
        canvas.paste(inner.convert("RGBA"), place)
        return canvas
    canvas = Image.new("RGB", box, preferences.colour)
    canvas.paste(inner, place)
    return canvas


def _inside(shape: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest size of a shape in a box, rounded to whole pixels; halves go up."""
    scale = min(Fraction(box[0], shape[0]), Fraction(box[1], shape[1]))
    width, height = (max(1, math.floor(side * scale + Fraction(1, 2))) for side in shape)
    return width, height


def assert_alike(found: Picture, meant: Image.Image, preferences: Wish, where: str) -> None:
    """Assert that a result has the format and the size that were meant, and looks so on black and on white.

    That is 40 dB, in colours and in alpha; where the format itself loses something, as much more as it does at most in
    twice Pillow's own hands.
    """
    picture = opened(found.data)
    assert found.format == preferences.format, where
    assert picture.size == meant.size, where
    ideal = _as_format(meant, preferences)
    made = picture.convert("RGBA")
    if not _all_but_opaque(ideal):
        assert _opaque(made).mode == ideal.mode, f"its alpha: {where}"
        assert found.header.alpha == (ideal.mode == "RGBA"), f"alpha in its header: {where}"
    reference = _written(ideal, preferences)
    for name, view in VIEWS.items():
        allowed = (
            MOST_ERROR + _undecided(meant, preferences) + 2 * mean_square(view(reference), view(ideal.convert("RGBA")))
        )
        error = mean_square(view(made), view(ideal.convert("RGBA")))
        assert error <= allowed, f"{name}: {decibels(error):.1f} dB, not {decibels(allowed):.1f}: {where}"


def _as_format(meant: Image.Image, preferences: Wish) -> Image.Image:
    """What the format can hold of it: a pixel of a GIF is transparent or not."""
    if preferences.format != "gif" or meant.mode != "RGBA":
        return meant
    solid = meant.copy()
    solid.putalpha(meant.getchannel("A").point([255 if value >= _GIF_OPAQUE else 0 for value in range(256)]))
    return _opaque(solid)


def _undecided(meant: Image.Image, preferences: Wish) -> float:
    """The error of a GIF in which every pixel whose alpha is all but in the middle went the other way."""
    if preferences.format != "gif" or meant.mode != "RGBA":
        return 0
    near = meant.getchannel("A").histogram()[_GIF_OPAQUE - 3 : _GIF_OPAQUE + 3]
    return 255**2 * sum(near) / (meant.width * meant.height)


def _written(ideal: Image.Image, preferences: Wish) -> Image.Image:
    """A picture as Pillow's own writer leaves it."""
    if preferences.format == "gif":
        colours = ideal.convert("RGB")
        if colours.getcolors(255) is not None:
            return ideal.convert("RGBA")
        palette = colours.quantize(255, method=Image.Quantize.FASTOCTREE)
        dithered = colours.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")
        if ideal.mode == "RGBA":
            dithered.putalpha(ideal.getchannel("A"))
        return dithered.convert("RGBA")
    return opened(encoded(ideal, preferences.format, **_options(ideal, preferences))).convert("RGBA")


def _options(picture: Image.Image, preferences: Wish) -> dict[str, Any]:
    options: dict[str, Any] = {} if preferences.quality is None else {"quality": preferences.quality}
    if preferences.format == "jpeg":
        options["subsampling"] = 0
    return options


def decibels(error: float) -> float:
    """A mean square error as a peak signal-to-noise ratio."""
    return 10 * math.log10(255**2 / error) if error else math.inf


def mean_square(one: Image.Image, other: Image.Image) -> float:
    """The mean square error of all channels."""
    counts = ImageChops.difference(one, other).histogram()
    return sum((at % 256) ** 2 * count for at, count in enumerate(counts)) / sum(counts)


def _onto(picture: Image.Image, colour: str) -> Image.Image:
    canvas = Image.new("RGBA", picture.size, colour)
    return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB")


def _opaque(picture: Image.Image) -> Image.Image:
    """Without an alpha channel that says nothing."""
    if picture.mode == "RGBA" and not any(picture.getchannel("A").histogram()[:255]):
        return picture.convert("RGB")
    return picture


def _all_but_opaque(picture: Image.Image) -> bool:
    """Whether rounding, or an encoder, decides if there is transparency at all."""
    return picture.mode == "RGBA" and not any(picture.getchannel("A").histogram()[:250])


VIEWS: dict[str, Any] = {
    "on black": lambda picture: _onto(picture, "#000000"),
    "on white": lambda picture: _onto(picture, "#ffffff"),
    "alpha": lambda picture: picture.getchannel("A"),
}
