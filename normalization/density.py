"""A picture's size on paper, in dots per inch, written into a file whose pixels stay as they are."""

from __future__ import annotations

import struct
from dataclasses import replace

from normalization.containers.png import METRES_PER_INCH, written
from normalization.encode import holds_density
from normalization.headers import scan
from normalization.values import Image

_PHYS = b"pHYs"
_IHDR_END = 33
# Of a JPEG that begins with a JFIF header: where its name is, and where its unit and the two densities are.
_JFIF, _JFIF_DENSITY = slice(6, 11), 13
_APP0 = b"\xff\xe0\x00\x10JFIF\0\x01\x01"
_ADOBE = b"\xff\xee\x00\x0eAdobe"


def with_density(image: Image, density: tuple[float, float]) -> Image:
    """The same picture with this density, in a PNG or a JPEG; as it is where the format, or this file, has no place.

    Raises BadImage where the bytes are not what the header says.
    """
    if not holds_density(image.format, density):
        return image
    data = b"".join(scan(image.data).parts)
    made = _png(data, density) if image.format == "png" else _jpeg(data, density)
    return image if made is None else Image(data=made, header=replace(image.header, density=density, metadata=False))


def _png(data: bytes, density: tuple[float, float]) -> bytes:
    at = data.find(_PHYS, _IHDR_END, data.find(b"IDAT"))
    if at > 0:
        data = data[: at - 4] + data[at + 17 :]
    body = struct.pack(">IIB", *(round(dots / METRES_PER_INCH) for dots in density), 1)
    return b"".join((data[:_IHDR_END], *written(_PHYS, body), data[_IHDR_END:]))


def _jpeg(data: bytes, density: tuple[float, float]) -> bytes | None:
    value = struct.pack(">BHH", 1, *map(round, density))
    if data[2:4] == _APP0[:2] and data[_JFIF] == b"JFIF\0":
        return data[:_JFIF_DENSITY] + value + data[_JFIF_DENSITY + len(value) :]
    if _ADOBE in data[:1024]:
        # Readers take the colours of a file with a JFIF header for YCbCr, whatever Adobe's says.
        return None
    return data[:2] + _APP0 + value + b"\0\0" + data[2:]
