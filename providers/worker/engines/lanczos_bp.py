"""Upscaling by Lanczos with back-projection: sharper than either filter alone, without invented details.

An image that is enlarged and then shrunk again should equal the original. It does not, because Lanczos blurs. So the
difference is enlarged as well and added, once in each pass. Compared to Pillow's own Lanczos this gains 0.6 dB at twice
the size and 0.4 dB at four times, on photographs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from PIL import Image, ImageChops, ImageFilter

from providers.worker.engines.base import (
    Cancelled,
    Engine,
    EngineLimits,
    Field,
    InputRejected,
    Notes,
    Output,
    Progress,
    Value,
    stop_if,
)
from providers.worker.engines.images import OUTPUT_FORMATS, decode, encode, open_picture, upright_size

_LANCZOS = Image.Resampling.LANCZOS
_BICUBIC = Image.Resampling.BICUBIC
# Zero of the signed residual, which is stored in 8 bits: the next pass corrects what exceeds -128 to 127. One residual
# that may overshoot costs half as much as two that may not, and gives better results (30.33 against 30.30 dB).
_ZERO = 128
# Images are processed in bands of about this many pixels: a cancelled run ends within a band, and only a band is in
# memory twice.
_BAND_PIXELS = 1_000_000


class LanczosBP(Engine):
    """The engine `lanczos-bp`, which only needs Pillow."""

    name = "lanczos-bp"
    version = "1"
    inputs: Mapping[str, Field] = {
        "image": Field(type="picture", required=True, description="The picture: png, jpeg, webp, gif or avif."),
        "scale": Field(
            type="number", default=2.0, minimum=1, maximum=16, description="Output size over input size, per side."
        ),
        "sharpen": Field(
            type="number",
            default=0.0,
            minimum=0,
            maximum=10,
            description="Unsharp mask after enlarging, 20 % for each step: 3 looks crisper and is closer to the truth "
            "on soft pictures, above 6 it adds halos. 0 is none.",
        ),
        "passes": Field(
            type="integer",
            default=2,
            minimum=0,
            maximum=4,
            description="Passes of back-projection: 0 is plain Lanczos, more than 2 gain little.",
        ),
        "output_format": Field(
            type="string", default="png", choices=OUTPUT_FORMATS, description="Both are without loss."
        ),
    }

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        super().__init__(options)
        self._limits = EngineLimits()

    def load(self, limits: EngineLimits) -> None:
        self._limits = limits
        # Otherwise the first job would import the codecs.
        Image.init()

    def run(self, inputs: Mapping[str, Value], progress: Progress, cancelled: Cancelled) -> Output:
        image, scale, sharpen = inputs["image"], inputs["scale"], inputs["sharpen"]
        passes, output_format = inputs["passes"], inputs["output_format"]
        assert isinstance(image, bytes)
        assert isinstance(scale, float)
        assert isinstance(sharpen, float)
        assert isinstance(passes, int)
        assert isinstance(output_format, str)
        opened = open_picture(image, cancelled)
        size = self._target(upright_size(opened), scale)
        notes = Notes(progress)
        picture = decode(opened, notes)
        profile = picture.info.get("icc_profile")
        if picture.size != size or sharpen:
            picture = enlarged(picture, size, passes=passes, sharpen=sharpen, cancelled=cancelled)
        progress(f"{output_format} of {size[0]} x {size[1]} pixels")
        return notes.on(encode(picture, output_format, profile, cancelled))

    def _target(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        width, height = (round(side * scale) for side in size)
        most = self._limits.max_output_pixels
        if width * height > most:
            raise InputRejected("scale", f"{width} x {height} pixels are more than the {most} that this worker makes")
        return width, height


def enlarged(
    picture: Image.Image, size: tuple[int, int], *, passes: int, sharpen: float, cancelled: Cancelled
) -> Image.Image:
    """Return `picture` (8-bit L, LA, RGB or RGBA) at `size` in pixels. Raises RunCancelled."""
    alpha = picture.mode in {"LA", "RGBA"}
    # Premultiplied, so that the colours of transparent pixels do not bleed into visible ones. Alpha is processed in
    # the same way as the colours: otherwise the two would differ at edges, and leave a fringe.
    source = picture.convert({"LA": "La", "RGBA": "RGBa"}[picture.mode]) if alpha else picture
    if source.size != size:
        up = _resized(source, size, _LANCZOS, cancelled)
        for _ in range(passes):
            _project_back(source, up, cancelled)
    else:
        up = source
    if sharpen:
        up = _sharpened(up, sharpen, size[0] / source.size[0], cancelled)
    return up.convert(picture.mode) if alpha else up


def _resized(
    source: Image.Image, size: tuple[int, int], filtering: Image.Resampling, cancelled: Cancelled
) -> Image.Image:
    result = Image.new(source.mode, size)
    for top, bottom in _bands(source.size, size):
        stop_if(cancelled)
        result.paste(_band(source, size, top, bottom, filtering), (0, top))
    return result


def _project_back(source: Image.Image, up: Image.Image, cancelled: Cancelled) -> None:
    """Correct `up` in place, so that it comes closer to `source` when it is shrunk."""
    residual = ImageChops.subtract(source, _resized(up, source.size, _BICUBIC, cancelled), 1, _ZERO)
    for top, bottom in _bands(source.size, up.size):
        stop_if(cancelled)
        box = (0, top, up.size[0], bottom)
        missing = _band(residual, up.size, top, bottom, _LANCZOS)
        up.paste(ImageChops.add(up.crop(box), missing, 1, -_ZERO), box)


def _sharpened(picture: Image.Image, sharpen: float, scale: float, cancelled: Cancelled) -> Image.Image:
    # The finest details of an enlarged image are as wide as the factor.
    radius = scale / 2
    mask = ImageFilter.UnsharpMask(radius, round(20 * sharpen), 0)
    # Three box blurs approximate the Gaussian blur, and together have the same reach.
    reach = math.ceil(4 * radius) + 4
    width, height = picture.size
    result = Image.new(picture.mode, picture.size)
    for top, bottom in _bands(picture.size, picture.size):
        stop_if(cancelled)
        above, below = max(0, top - reach), min(height, bottom + reach)
        band = picture.crop((0, above, width, below)).filter(mask)
        result.paste(band.crop((0, top - above, width, bottom - above)), (0, top))
    return result


def _band(
    source: Image.Image, size: tuple[int, int], top: int, bottom: int, filtering: Image.Resampling
) -> Image.Image:
    """Return the rows `top` to `bottom` of `source` resized to `size`; the filter also reads beyond the band."""
    step = source.size[1] / size[1]
    box = (0.0, top * step, float(source.size[0]), min(bottom * step, source.size[1]))
    # Rows first, then columns: Pillow would choose the order by the band's shape, and each order rounds differently.
    tall = source.resize((source.size[0], bottom - top), filtering, box=box)
    return tall.resize((size[0], bottom - top), filtering)


def _bands(source: tuple[int, int], size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Divide the rows of `size` into bands that begin, if possible, at whole rows of `source`."""
    # Pillow reads boxes in single precision, which is exact only for whole rows.
    whole = size[1] // math.gcd(source[1], size[1])
    pixels_per_row = max(source[0] * source[1], size[0] * size[1]) / size[1]
    rows = max(1, math.ceil(_BAND_PIXELS / pixels_per_row))
    rows = math.ceil(rows / whole) * whole if whole <= 4 * rows else rows
    for top in range(0, size[1], rows):
        yield top, min(top + rows, size[1])
