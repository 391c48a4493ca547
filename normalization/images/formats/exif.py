"""EXIF: the orientation and the density."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL import Image

_ORIENTATION, _X, _Y, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_SHORT, _LONG, _RATIONAL = 3, 4, 5
# Dots per inch of one dot per unit: none, inch, centimetre.
_INCHES = {2: 1.0, 3: 2.54}


def orientation(exif: bytes | memoryview) -> int:
    """The orientation, 1 to 8, of an EXIF block with or without its `Exif` prefix; 1 where none can be read.

    Damaged EXIF is common in good pictures and viewers ignore it, so it is no error here either.
    """
    try:
        for tag, value in _numbers(exif):
            if tag == _ORIENTATION:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def density(exif: bytes | memoryview) -> tuple[float, float] | None:
    """Dots per inch, x and y, of an EXIF block; None where it says nothing that can be read."""
    found: dict[int, float] = {}
    try:
        for tag, value in _numbers(exif):
            found.setdefault(tag, value)
    except struct.error:
        return None
    # Inches are what the specification means where the unit is missing.
    inches = _INCHES.get(int(found.get(_UNIT, 2)))
    x, y = found.get(_X, 0.0), found.get(_Y, 0.0)
    return (x * inches, y * inches) if inches and x and y else None


def _numbers(exif: bytes | memoryview) -> Iterator[tuple[int, float]]:
    """The numbers of the first directory that we know, by their tags. Raises struct.error where it is cut off."""
    tiff = memoryview(exif)
    if bytes(tiff[:6]) == b"Exif\0\0":
        tiff = tiff[6:]
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        return
    magic, directory = struct.unpack_from(f"{order}HI", tiff, 2)
    if magic != 42:
        return
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + count * 12, 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag in (_ORIENTATION, _UNIT) and kind in (_SHORT, _LONG):
            (value,) = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", tiff, entry + 8)
            yield tag, value
        elif tag in (_X, _Y) and kind == _RATIONAL:
            (place,) = struct.unpack_from(f"{order}I", tiff, entry + 8)
            if place + 8 <= len(tiff):
                numerator, denominator = struct.unpack_from(f"{order}II", tiff, place)
                yield tag, numerator / denominator if denominator else 0.0


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """A picture as it is stored, as a person sees it; the very same object for orientation 1."""
    return picture if orientation == 1 else picture.transpose(_TRANSPOSE[orientation])
