"""Decodes pixels as stored from a parsed container, and detects truncated image data."""

from __future__ import annotations

import re
from io import BytesIO

from PIL import Image as Pillow
from PIL import ImageChops

from normalization.images.colour import eight_bit, has_deep_key, low_bytes, to_srgb
from normalization.images.formats import jpeg, png
from normalization.images.formats.base import SAVE_AGAIN, WHOLE, BadImage, Scan, truncated
from normalization.images.hdr import tone_mapped
from normalization.values import Format

# Appended in turn to data that may be truncated: bits that begin with zero, with one, and mixed.
_TAILS = (bytes((i * 73 + 41) % 251 for i in range(64)), b"\xaa" * 64, b"\xfe\x5a" * 32)
_RESTARTS = b"\xff\xdd"
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")


def pixels_of(found: Scan) -> Pillow.Image:
    """The pixels as stored (not rotated), in sRGB, in mode L, RGB or RGBA; of an animation the first frame.

    Raises BadImage if they are damaged or truncated, and MemoryError.
    """
    header = found.header
    # Without metadata: Pillow inflates text, parses EXIF and treats a JPEG with a second image as MPO.
    data = b"".join(found.parts)
    try:
        picture: Pillow.Image = Pillow.open(BytesIO(data), formats=(header.format.upper(),))
        if picture.size != (header.width, header.height):
            raise BadImage("corrupt_image", f"The {header.format} file states two different sizes.", SAVE_AGAIN)
        picture.load()
        if found.unended and _breaks_off(picture, found):
            raise truncated(jpeg.NAME)
        depth = png.bit_depth(data) if header.format == "png" else 8
        low = None
        if depth == 16 and (header.hdr is not None or has_deep_key(picture)):
            low = low_bytes(BytesIO(data))
        if header.hdr is not None:
            return tone_mapped(eight_bit(picture, depth, low), header.hdr, found.primaries, low)
        return to_srgb(picture, depth, found.icc, low)
    except (BadImage, MemoryError):
        raise
    except Exception as error:
        raise _undecodable(header.format, error) from error


def _breaks_off(picture: Pillow.Image, found: Scan) -> bool:
    """Whether a JPEG without an end marker lacks some of its image data.

    libjpeg fills missing data with zeros, and Pillow does not report that. But libjpeg skips anything between complete
    data and the end marker: appending bytes changes the pixels of a truncated image, and not those of a complete one.
    """
    data = b"".join(found.parts[:-1])
    # In an image with restart markers the decoder waits for the next marker.
    restart = bytes((0xFF, 0xD0 + (_last_restart(data) + 1) % 8))
    tails = (*_TAILS, *(restart + tail for tail in _TAILS)) if _RESTARTS in data else _TAILS
    return any(_differs(picture, data + tail + b"\xff\xd9") for tail in tails)


def _differs(picture: Pillow.Image, data: bytes) -> bool:
    with Pillow.open(BytesIO(data), formats=("JPEG",)) as other:
        return ImageChops.difference(picture, other).getbbox() is not None


def _last_restart(data: bytes) -> int:
    """The number of the last restart marker in the last scan; 7 if there is none."""
    at = data.rfind(b"\xff\xda")
    found = _RESTART.findall(data, at)
    return found[-1][0] - 0xD0 if found else 7


def _undecodable(fmt: Format, error: Exception) -> BadImage:
    """Decoders raise all kinds of exceptions for damage; only the message identifies truncation."""
    if "truncated" in str(error).lower():
        return BadImage("truncated_image", f"The {fmt} file ends in the middle of its image data.", WHOLE)
    return BadImage("corrupt_image", f"The {fmt} file is damaged and cannot be decoded.", SAVE_AGAIN)
