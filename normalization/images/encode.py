"""Encodes images: the encoders' settings with their reasons, resizing, flattening, and notes on what is lost.

Figures marked "measured" are from 1024² photos.
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import IO

from PIL import Image

from normalization.images.fitting import fitted, result_of
from normalization.images.formats.base import BadImage
from normalization.values import WHITE, Format, Header, Resize, Size, Step, Transcode


def resize(picture: Image.Image, step: Resize, *, transparent: bool) -> Image.Image:
    """The image, in mode L, RGB or RGBA, resized to exactly the step's size; with `fit`, to the largest size inside it.

    `transparent` says whether the output may have transparent areas: it decides how `pad` fills the margins if the step
    names no background.
    """
    width, height = picture.size
    target = result_of(Size(width=width, height=height), step)
    if picture.size == (target.width, target.height):
        return picture
    if step.mode in ("stretch", "fit"):
        return _resampled(picture, target, (0, 0, width, height))
    if step.mode == "crop":
        scale = max(step.size.width / width, step.size.height / height)
        # Rounding may put the box slightly outside the image, which Pillow refuses.
        across, down = min(step.size.width / scale, width), min(step.size.height / scale, height)
        left, top = (width - across) / 2, (height - down) / 2
        return _resampled(picture, step.size, (left, top, left + across, top + down))
    inner = fitted(Size(width=width, height=height), step.size)
    small = _resampled(picture, inner, (0, 0, width, height))
    place = ((step.size.width - inner.width) // 2, (step.size.height - inner.height) // 2)
    return _padded(small, step, place, transparent=transparent)


def flatten(picture: Image.Image, background: str) -> Image.Image:
    """An RGBA image flattened onto one colour, `#rrggbb`, as RGB."""
    canvas = Image.new("RGB", picture.size, background)
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas


def _padded(picture: Image.Image, step: Resize, place: tuple[int, int], *, transparent: bool) -> Image.Image:
    size = (step.size.width, step.size.height)
    if step.background is None and transparent:
        canvas = Image.new("RGBA", size, (0, 0, 0, 0))
    else:
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        canvas = Image.new(mode, size, step.background or WHITE)
    # Pasted without a mask, so that the image's own transparent areas stay transparent.
    canvas.paste(picture.convert(canvas.mode), place)
    return canvas


def _resampled(picture: Image.Image, size: Size, box: tuple[float, float, float, float]) -> Image.Image:
    """A region of the image resampled to the size, in one pass and without shortcuts that would blur.

    Pillow premultiplies alpha itself, so that the colour of invisible pixels does not bleed into visible ones.
    """
    return picture.resize((size.width, size.height), Image.Resampling.LANCZOS, box=box, reducing_gap=None)


# Level 6 takes four times as long for a tenth fewer bytes (measured).
PNG_LEVEL = 1
# Looks like the original at normal size; beyond it files more than double (measured: 218 KB at 90, 746 KB at 100).
JPEG_QUALITY = 90
# From this quality on, colour keeps its full resolution: at high quality the fringes of 4:2:0 become visible.
JPEG_FULL_COLOUR = 90
WEBP_QUALITY = 90
# Half the time of the default 4 for 4 % more bytes; 3 and 5 buy nothing (measured).
WEBP_METHOD = 2
# AVIF needs less for the same look: 75 is where it leaves 129 KB against 218 KB of the JPEG (measured).
AVIF_QUALITY = 75
# An eighth of the time of the default 6 for a sixth more bytes; small pictures can afford one step better (measured).
AVIF_SPEED, AVIF_SPEED_SMALL, AVIF_SMALL_PIXELS = 9, 8, 1_000_000
# GIF pixels are either transparent or opaque; this alpha value decides.
GIF_THRESHOLD = 128
_GIF_TRANSPARENT = 255

# The longest side, in pixels, that the formats or their libraries can write.
MAX_SIDE: Mapping[Format, int] = {"jpeg": 65_500, "webp": 16_383, "gif": 65_535, "avif": 65_536}
# The formats with a field for the density, and its maximum in dots per inch. WebP and AVIF could store it only in EXIF,
# which is metadata; GIF not at all.
MAX_DENSITY: Mapping[Format, float] = {"png": 50_000_000, "jpeg": 65_535}


def encode(
    picture: Image.Image, fmt: Format, quality: int | None = None, density: tuple[float, float] | None = None
) -> bytes:
    """An image in mode L, RGB or RGBA (JPEG: L or RGB) encoded as a file, without metadata.

    `quality` is 0 to 100 for jpeg, webp and avif, None for the format's default; png and gif have none. `density` is in
    dots per inch, x and y; see `holds_density`. Raises BadImage if a side is too long for the format,
    ValueError for a quality outside its range.
    """
    if quality is not None and not 0 <= quality <= 100:
        raise ValueError(f"quality {quality} is not within 0 to 100")
    if max(picture.size) > MAX_SIDE.get(fmt, max(picture.size)):
        raise BadImage(
            "image_too_large",
            f"The image would be {picture.width}x{picture.height} pixels; the limit of {fmt} is {MAX_SIDE[fmt]:,} "
            "pixels per side. Use another format or a smaller size.",
        )
    # Encoders would write this: profiles, resolution, comments.
    picture.info = {}
    if density is not None and not holds_density(fmt, density):
        density = None
    if fmt == "jpeg":
        return _jpeg(picture, JPEG_QUALITY if quality is None else quality, density)
    out = BytesIO()
    if fmt == "png":
        picture.save(out, "PNG", compress_level=PNG_LEVEL, dpi=density)
    elif fmt == "webp":
        picture.save(out, "WEBP", quality=WEBP_QUALITY if quality is None else quality, method=WEBP_METHOD)
    elif fmt == "gif":
        _gif(picture, out)
    else:
        _avif(picture, out, AVIF_QUALITY if quality is None else quality)
    return out.getvalue()


def encode_lossless_webp(picture: Image.Image) -> bytes:
    """An image in mode L, RGB or RGBA as lossless WebP, without metadata."""
    picture.info = {}
    out = BytesIO()
    # The lowest effort is already as small as PNG (measured); `exact` keeps the colours of transparent pixels.
    picture.save(out, "WEBP", lossless=True, quality=0, method=0, exact=True)
    return out.getvalue()


def holds_density(fmt: Format, density: tuple[float, float]) -> bool:
    """Whether the format can store a density: JPEG in whole dots per inch, PNG in dots per metre."""
    return all(0.5 < dots <= MAX_DENSITY.get(fmt, 0) for dots in density)


def _jpeg(picture: Image.Image, quality: int, density: tuple[float, float] | None) -> bytes:
    subsampling = 0 if quality >= JPEG_FULL_COLOUR else 2
    with _file() as file:
        # libjpeg's scale starts at 1; it accepts 0 as 1.
        picture.save(file, "JPEG", quality=quality, subsampling=subsampling, dpi=density or (0, 0))
        file.seek(0)
        return file.read()


def _file() -> IO[bytes]:
    """A file with a descriptor: Pillow holds the GIL while writing a JPEG to anything else (measured: 13 ms at 4 MP).

    In memory if the system supports that. In a process that may not write files no other thread waits for the GIL.
    """
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0:
        return BytesIO()
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("jpeg"), "w+b")
    return tempfile.TemporaryFile()


def _avif(picture: Image.Image, out: BytesIO, quality: int) -> None:
    small = picture.width * picture.height < AVIF_SMALL_PIXELS
    # One thread: a second one saves only an eighth (measured), and other jobs need it.
    picture.save(
        out, "AVIF", quality=quality, speed=AVIF_SPEED_SMALL if small else AVIF_SPEED, max_threads=1, icc_profile=b""
    )


def fits_palette(picture: Image.Image) -> bool:
    """Whether an image in mode L, RGB or RGBA has few enough visible colours for a GIF palette."""
    picture = _as_shown(picture)
    return picture.mode == "L" or _visible(picture).getcolors(_most_colours(picture)) is not None


def _as_shown(picture: Image.Image) -> Image.Image:
    """The image as RGB if it is RGBA without a pixel that GIF would make transparent."""
    return picture.convert("RGB") if picture.mode == "RGBA" and _hole(picture).getbbox() is None else picture


def _most_colours(picture: Image.Image) -> int:
    return _GIF_TRANSPARENT if picture.mode == "RGBA" else 256


def _hole(picture: Image.Image) -> Image.Image:
    """The mask of the pixels of an RGBA image that are transparent in a GIF."""
    return picture.getchannel("A").point([255 if value < GIF_THRESHOLD else 0 for value in range(256)])


def _visible(picture: Image.Image) -> Image.Image:
    """The colours as RGB, with all transparent pixels set to one colour, so that they use one palette entry."""
    colours = picture.convert("RGB")
    if picture.mode == "RGBA":
        colours.paste((0, 0, 0), mask=_hole(picture))
    return colours


def _gif(picture: Image.Image, out: BytesIO) -> None:
    """Few colours are kept exactly; for many, the palette is chosen by fast octree and dithered.

    Fast octree with Floyd-Steinberg takes a twentieth of the time of median cut (measured), which alone is exact if
    every colour fits into the palette.
    """
    picture = _as_shown(picture)
    if picture.mode == "L":
        picture.save(out, "GIF")
        return
    colours, most = _visible(picture), _most_colours(picture)
    if colours.getcolors(most) is not None:
        reduced = colours.quantize(most, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    else:
        palette = colours.quantize(most, method=Image.Quantize.FASTOCTREE)
        reduced = colours.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    if picture.mode != "RGBA":
        reduced.save(out, "GIF")
        return
    reduced.paste(_GIF_TRANSPARENT, mask=_hole(picture))
    reduced.save(out, "GIF", transparency=_GIF_TRANSPARENT, optimize=False)


_CURVES = {"pq": "PQ", "hlg": "HLG"}
# The screen resolutions that programs write by default: losing them is not reported.
_SCREENS = ((72, 72), (96, 96))


def losses(header: Header) -> tuple[str, ...]:
    """Sentences for what is lost when the image is decoded to 8-bit sRGB, except for animation."""
    notes = []
    if header.hdr is not None:
        notes.append(
            f"HDR ({_CURVES[header.hdr]}) was tone-mapped to sRGB with its reference white at 203 nits: "
            "highlights brighter than white were compressed."
        )
    elif header.cmyk:
        notes.append("The colours were converted from CMYK to sRGB.")
    elif header.profile:
        notes.append("The colours were converted to sRGB from another colour space.")
    if header.bits > 8:
        notes.append(f"The bit depth was reduced from {header.bits} to 8 bits per sample.")
    if header.extra_pictures:
        notes.append("Only the main image was kept: the file contains further images or a gain map.")
    return tuple(notes)


def keeping_density(
    steps: Sequence[Step], density: tuple[float, float] | None
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Finishing steps that write the input's density into the result; with a note if the format cannot store it."""
    last = next((step for step in reversed(steps) if isinstance(step, Transcode)), None)
    if density is None or last is None:
        return tuple(steps), ()
    if not holds_density(last.format, density):
        note = (
            f"The density of {round(density[0], 1):g} dots per inch was lost: {last.format} files cannot store it here."
        )
        return tuple(steps), () if tuple(map(round, density)) in _SCREENS else (note,)
    return tuple(replace(step, density=density) if step is last else step for step in steps), ()
