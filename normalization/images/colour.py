"""Decoded images of any mode, converted to 8-bit sRGB: grey, RGB or RGBA; 16-bit PNGs beyond what Pillow reads."""

from __future__ import annotations

import functools
from io import BytesIO
from typing import IO

from PIL import Image, ImageChops, ImageCms

_SPACES = {b"GRAY": "L", b"RGB ": "RGB", b"CMYK": "CMYK"}


def to_srgb(picture: Image.Image, depth: int, icc: bytes | None, low: Image.Image | None = None) -> Image.Image:
    """The image in mode L, RGB or RGBA, with 8 bits, in sRGB.

    `depth` is the bits per sample in the file, which Pillow does not report; `icc` the samples' profile, None for sRGB.
    For `low` see `eight_bit`.
    """
    picture = eight_bit(picture, depth, low)
    if icc is not None:
        return _through(picture, icc)
    if picture.mode in ("L", "RGB", "RGBA"):
        return picture
    return picture.convert("RGBA" if picture.mode == "LA" else "RGB")


def eight_bit(picture: Image.Image, depth: int, low: Image.Image | None = None) -> Image.Image:
    """The image in mode L, LA, RGB, RGBA or CMYK: without a palette, and with transparency as a channel.

    For `depth` see `to_srgb`; `low` has the low bytes of an image that `has_deep_key`, in mode RGB. The only code that
    interprets samples and transparent colours, shared by the gateway and the worker.
    """
    if picture.mode.startswith("I"):
        return _high_byte(picture)
    key = picture.info.get("transparency")
    if key is not None and picture.mode == "RGB" and depth == 16:
        if low is not None:
            return keyed(picture, low, key)
        # Pillow has reduced the samples to their high byte, but not the transparent colour.
        picture.info["transparency"] = tuple(value >> 8 for value in key)
    elif key is not None and picture.mode == "L" and depth < 8:
        # Pillow has scaled the samples to 0 to 255, but not the transparent colour.
        picture.info["transparency"] = key * 255 // ((1 << depth) - 1)
    if key is not None:
        return picture.convert("LA" if picture.mode == "L" else "RGBA")
    mode = {"1": "L", "P": "RGB"}.get(picture.mode)
    return picture.convert(mode) if mode else picture


def _high_byte(picture: Image.Image) -> Image.Image:
    """16-bit grey reduced to its high byte: Pillow's own conversion clips everything above 255."""
    grey = picture.point(lambda value: value * (1 / 256)).convert("L")
    key = picture.info.get("transparency")
    if key is None:
        return grey
    alpha = picture.convert("I").point([0 if value == key else 255 for value in range(65536)], "L")
    return Image.merge("LA", (grey, alpha))


def _through(picture: Image.Image, icc: bytes) -> Image.Image:
    """Convert the colours by a profile; alpha is unchanged.

    An unreadable profile, or one for another kind of samples, is ignored, as viewers do.
    """
    alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
    mode = {"LA": "L", "RGBA": "RGB"}.get(picture.mode, picture.mode)
    space = _SPACES.get(icc[16:20])
    if mode == "L" and space == "RGB":
        mode = "RGB"
    colours = picture.convert(mode)
    if mode == space:
        try:
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(colours, BytesIO(icc), target, outputMode="RGB")
            colours = converted or colours
        except (ImageCms.PyCMSError, OSError):
            pass
    if alpha is None and colours.mode == "L":
        return colours
    colours = colours.convert("RGB")
    if alpha is not None:
        colours.putalpha(alpha)
    return colours


def low_bytes(file: IO[bytes]) -> Image.Image | None:
    """The low bytes of a 16-bit PNG, of which Pillow returns the high ones; None if that is not possible.

    Pillow supports both byte orders, and here reads the samples in the wrong one on purpose. Needed for PQ, for which
    eight bits are too coarse.
    """
    picture = Image.open(file, formats=("PNG",))
    if picture.mode.startswith("I"):
        return picture.convert("I").point([value & 0xFF for value in range(65536)], "L")
    if picture.mode not in ("RGB", "RGBA"):
        return None
    tile = picture.tile[0]
    picture.tile = [tile._replace(args=str(tile.args).replace("16B", "16L"))]
    return picture.convert("RGB")


def has_deep_key(picture: Image.Image) -> bool:
    """Whether a decoded 16-bit image has a transparent colour, which its high bytes alone cannot identify."""
    return picture.mode == "RGB" and picture.info.get("transparency") is not None


def keyed(high: Image.Image, low: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """16-bit RGB samples, given as high and low bytes, as RGBA: transparent where the whole sample equals the key.

    By the high bytes alone, similar colours would become transparent too.
    """
    samples = [(band, value >> 8) for band, value in zip(high.split(), key, strict=True)]
    samples += [(band, value & 0xFF) for band, value in zip(low.split(), key, strict=True)]
    differ = [band.point([0 if byte == part else 255 for byte in range(256)]) for band, part in samples]
    picture = high.convert("RGB")
    picture.putalpha(functools.reduce(ImageChops.lighter, differ))
    return picture
