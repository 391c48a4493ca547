"""Writes an image's density, in dots per inch, into its file without changing the pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from normalization.images.encode import holds_density
from normalization.images.formats.png import METRES_PER_INCH, written
from normalization.images.sniff import scan
from normalization.values import Image

_PHYS = b"pHYs"
_IHDR_END = 33
# In a JFIF segment, the place of its unit and the two densities.
_JFIF_DENSITY = 11
_APP0, _APP14, _SCAN = b"\xff\xe0", b"\xff\xee", b"\xff\xda"
_JFIF = _APP0 + b"\x00\x10JFIF\0\x01\x01"
_FRAMES = (0xC0, 0xC1, 0xC2)


def with_density(image: Image, density: tuple[float, float]) -> Image:
    """The image with this density, for PNG and JPEG; unchanged if the format, or this file, cannot store it.

    Raises BadImage if the bytes contradict the header.
    """
    if not holds_density(image.format, density):
        return image
    data = b"".join(scan(image.data).parts)
    encoded = _png(data, density) if image.format == "png" else _jpeg(data, density)
    return (
        image if encoded is None else Image(data=encoded, header=replace(image.header, density=density, metadata=False))
    )


def _png(data: bytes, density: tuple[float, float]) -> bytes:
    for kind, at, end in _chunks(data):
        if kind == _PHYS:
            data = data[:at] + data[end:]
            break
    body = struct.pack(">IIB", *(round(dots / METRES_PER_INCH) for dots in density), 1)
    return b"".join((data[:_IHDR_END], *written(_PHYS, body), data[_IHDR_END:]))


def _jpeg(data: bytes, density: tuple[float, float]) -> bytes | None:
    value = struct.pack(">BHH", 1, *map(round, density))
    for marker, at, body in _segments(data):
        if marker == _APP0 and body[:5] == b"JFIF\0":
            return data[: at + _JFIF_DENSITY] + value + data[at + _JFIF_DENSITY + len(value) :]
        # With a JFIF header readers assume YCbCr colours, whatever Adobe's header or the components' names say.
        if (marker == _APP14 and body[:5] == b"Adobe") or (marker[1] in _FRAMES and body[6::3] == b"RGB"):
            return None
    return data[:2] + _JFIF + value + b"\0\0" + data[2:]


def _segments(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """The marker, offset and content of each segment before the first scan."""
    at = 2
    while at < len(data) and (marker := data[at : at + 2]) != _SCAN:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, data[at + 4 : at + 2 + length]
        at += 2 + length


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The type, offset and end of each chunk before the image data."""
    at = 8
    while at < len(data) and (kind := data[at + 4 : at + 8]) != b"IDAT":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield kind, at, end
        at = end
