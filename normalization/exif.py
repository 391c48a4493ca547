"""The one EXIF value that changes a picture: its orientation."""

from __future__ import annotations

import struct

_TAG = 0x0112
_SHORT, _LONG = 3, 4


def orientation(exif: bytes | memoryview) -> int:
    """The orientation, 1 to 8, of an EXIF block with or without its `Exif` prefix; 1 where none can be read.

    Damaged EXIF is common in good pictures and viewers ignore it, so it is no error here either.
    """
    tiff = memoryview(exif)
    if bytes(tiff[:6]) == b"Exif\0\0":
        tiff = tiff[6:]
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        return 1
    try:
        magic, directory = struct.unpack_from(f"{order}HI", tiff, 2)
        if magic != 42:
            return 1
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + count * 12, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _TAG and kind in (_SHORT, _LONG):
                (value,) = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
