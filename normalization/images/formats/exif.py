"""EXIF: the orientation and the resolution."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL import Image

_ORIENTATION, _X, _Y, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_SHORT, _LONG, _RATIONAL = 3, 4, 5
# Dots per inch for one dot per unit: none, inch, centimetre.
_INCHES = {2: 1.0, 3: 2.54}


def orientation(exif: bytes | memoryview) -> int:
    """Return the orientation, 1 to 8, of an EXIF block with or without its `Exif` prefix; 1 if none can be read.

    Damaged EXIF is common in intact images and viewers ignore it, so it is not an error here either.
    """
    try:
        for tag, value in _numbers(exif):
            if tag == _ORIENTATION:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def density(exif: bytes | memoryview) -> tuple[float, float] | None:
    """Return the dots per inch, x and y, of an EXIF block; None if none can be read."""
    found: dict[int, float] = {}
    try:
        for tag, value in _numbers(exif):
            found.setdefault(tag, value)
    except struct.error:
        return None
    # According to the specification a missing unit means inches.
    inches = _INCHES.get(int(found.get(_UNIT, 2)))
    x, y = found.get(_X, 0.0), found.get(_Y, 0.0)
    return (x * inches, y * inches) if inches and x and y else None


def _numbers(exif: bytes | memoryview) -> Iterator[tuple[int, float]]:
    """Yield the tags known here in the first directory, with their values. Raises struct.error if it is truncated."""
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
    """Return a stored image with its orientation applied; the same object for orientation 1."""
    return picture if orientation == 1 else picture.transpose(_TRANSPOSE[orientation])
