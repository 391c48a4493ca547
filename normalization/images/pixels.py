"""Pixels as they are stored, from a container that was taken apart: what breaks off is told from what is whole."""

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

# What a decoder is given behind data that may break off, each in turn: bits that begin with a zero, with a one, mixed.
_TAILS = (bytes((i * 73 + 41) % 251 for i in range(64)), b"\xaa" * 64, b"\xfe\x5a" * 32)
_RESTARTS = b"\xff\xdd"
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")


def pixels_of(found: Scan) -> Pillow.Image:
    """The pixels as they are stored, in sRGB, in mode L, RGB or RGBA; the first frame of several.

    Raises BadImage where they are damaged or break off, and MemoryError.
    """
    header = found.header
    # Without its metadata: Pillow inflates text, parses EXIF and takes a JPEG with a second picture for an MPO.
    data = b"".join(found.parts)
    try:
        picture: Pillow.Image = Pillow.open(BytesIO(data), formats=(header.format.upper(),))
        if picture.size != (header.width, header.height):
            raise BadImage("corrupt_image", f"The {header.format} file names two different sizes.", SAVE_AGAIN)
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
    """Whether a JPEG without its end marker lacks some of its data.

    libjpeg fills what is missing with zeros and says so to nobody who asks through Pillow. But it passes over what
    stands between whole data and the end marker: so the pixels of a whole picture stay the same whatever is put there,
    and those of another do not.
    """
    data = b"".join(found.parts[:-1])
    # Between the restart markers of a picture a decoder waits for the next of them.
    restart = bytes((0xFF, 0xD0 + (_last_restart(data) + 1) % 8))
    tails = (*_TAILS, *(restart + tail for tail in _TAILS)) if _RESTARTS in data else _TAILS
    return any(_differs(picture, data + tail + b"\xff\xd9") for tail in tails)


def _differs(picture: Pillow.Image, data: bytes) -> bool:
    with Pillow.open(BytesIO(data), formats=("JPEG",)) as other:
        return ImageChops.difference(picture, other).getbbox() is not None


def _last_restart(data: bytes) -> int:
    """The number of the last restart marker in the last scan, 7 where there is none."""
    at = data.rfind(b"\xff\xda")
    found = _RESTART.findall(data, at)
    return found[-1][0] - 0xD0 if found else 7


def _undecodable(fmt: Format, error: Exception) -> BadImage:
    """Decoders report damage with whatever exception is at hand; only the words tell truncation from it."""
    if "truncated" in str(error).lower():
        return BadImage("truncated_image", f"The {fmt} file ends in the middle of its picture.", WHOLE)
    return BadImage("corrupt_image", f"The {fmt} file is damaged and cannot be decoded.", SAVE_AGAIN)
