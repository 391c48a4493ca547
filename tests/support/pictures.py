"""Pictures for the tests, made on the spot in every format and with everything that can be wrong with them."""

from __future__ import annotations

import functools
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from normalization.images import icc
from normalization.images.sniff import BadImage, sniff
from normalization.images.transform import finish
from normalization.values import FORMATS, Format, Step, Transcode
from normalization.values import Image as Picture

ALL = FORMATS
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
SECRET = b"a secret place"
DISPLAY_P3 = icc.build(icc.PRIMARIES[12], icc.D65, None) or b""
LINEAR = icc.build(icc.SRGB, icc.D65, 1.0) or b""
SRGB = icc.build(icc.SRGB, icc.D65, None) or b""


def corners(width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """A picture of four flat quarters: red, green, blue and white from the top left, row by row."""
    picture = Image.new("RGB", (width, height))
    for index, colour in enumerate((RED, GREEN, BLUE, WHITE)):
        x, y = index % 2 * width // 2, index // 2 * height // 2
        picture.paste(colour, (x, y, x + width // 2, y + height // 2))
    return picture.convert(mode)


def noise(width: int = 64, height: int = 48) -> Image.Image:
    """A picture with enough in it that its file has many bytes of pixels; the same one every time."""
    return Image.frombytes("RGB", (width, height), random.Random(7).randbytes(width * height * 3))


def encoded(picture: Image.Image, fmt: str, **options: Any) -> bytes:
    """A picture as a file."""
    out = BytesIO()
    picture.save(out, fmt, **options)
    return out.getvalue()


def taken(data: bytes) -> Picture:
    """The bytes with their header, as they come through the door."""
    return Picture(data=data, header=sniff(data))


def opened(data: bytes) -> Image.Image:
    """The pixels of a file, read by Pillow alone."""
    picture = Image.open(BytesIO(data))
    picture.load()
    return picture


def near(found: object, expected: tuple[int, ...], tolerance: int = 12) -> bool:
    """Whether two colours are the same to an eye."""
    assert isinstance(found, tuple)
    return len(found) == len(expected) and all(abs(a - b) <= tolerance for a, b in zip(found, expected, strict=True))


def quarters(picture: Image.Image) -> tuple[object, ...]:
    """The colour in the middle of each quarter, from the top left, row by row."""
    width, height = picture.size
    return tuple(picture.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3))


def refusal(action: Callable[[], object]) -> BadImage:
    """The BadImage that the action raises, whose message is whole sentences."""
    with pytest.raises(BadImage) as caught:
        action()

    assert caught.value.message.endswith(".")
    return caught.value


def exif(orientation: int | None = None) -> Image.Exif:
    """EXIF with a place in it, and an orientation if asked."""
    found = Image.Exif()
    found[ExifTags.Base.ImageDescription] = SECRET.decode()
    found.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    if orientation is not None:
        found[ExifTags.Base.Orientation] = orientation
    return found


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(size: tuple[int, int], depth: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG from its samples: `rows` are the bytes of all rows without their filter types."""
    width, height = size
    step = len(rows) // height
    pixels = b"".join(b"\0" + rows[at : at + step] for at in range(0, len(rows), step)) if step else b""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND")
    )


def with_chunk(data: bytes, extra: bytes) -> bytes:
    """A PNG with a chunk behind its header."""
    return data[:33] + extra + data[33:]


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with a segment behind its SOI."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


@functools.cache
def plain(fmt: str) -> bytes:
    """A still picture without anything special."""
    return encoded(noise(), fmt)


@functools.cache
def with_metadata(fmt: str) -> bytes:
    """A picture with all the metadata that its format has: EXIF, XMP, comments and text, all with the secret."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + SECRET + b"</x:xmpmeta>"
    if fmt == "png":
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", SECRET.decode())
        info.add_text("Long", SECRET.decode() * 9, zip=True)
        info.add_itxt("XML:com.adobe.xmp", xmp)
        info.add(b"tIME", struct.pack(">HBBBBB", 2026, 1, 2, 3, 4, 5))
        return encoded(noise(), fmt, pnginfo=info, exif=exif())
    if fmt == "jpeg":
        data = encoded(noise(), fmt, exif=exif(), xmp=xmp, comment=SECRET, icc_profile=SRGB)
        return with_segment(data, 0xED, b"Photoshop 3.0\0" + SECRET)
    if fmt == "gif":
        data = encoded(noise(), fmt, comment=SECRET)
        return data[:-1] + b"\x21\xff\x0bXMP DataXMP" + bytes((len(SECRET),)) + SECRET + b"\0\x3b"
    return encoded(noise(), fmt, exif=exif(), xmp=xmp)


def animated(fmt: str) -> bytes:
    """Two frames."""
    return encoded(corners(), fmt, save_all=True, append_images=[noise(48, 32)], duration=100)


def transparent(width: int = 48, height: int = 32) -> Image.Image:
    """The four quarters, the left half of them invisible."""
    picture = corners(width, height, "RGBA")
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (0, 0, width // 2, height))
    picture.putalpha(alpha)
    return picture


def _display_p3(fmt: str) -> bytes:
    return encoded(noise(), fmt, icc_profile=DISPLAY_P3)


def _transparent(fmt: str) -> bytes:
    return encoded(transparent(), fmt)


_FEATURES: Mapping[str, Callable[[], bytes]] = {
    **{fmt: functools.partial(plain, fmt) for fmt in ALL},
    **{f"{fmt}-metadata": functools.partial(with_metadata, fmt) for fmt in ALL},
    **{f"{fmt}-p3": functools.partial(_display_p3, fmt) for fmt in ALL if fmt != "gif"},
    **{f"{fmt}-alpha": functools.partial(_transparent, fmt) for fmt in ALL if fmt != "jpeg"},
    **{f"{fmt}-animated": functools.partial(animated, fmt) for fmt in ("png", "webp", "gif")},
    "jpeg-cmyk": lambda: encoded(noise().convert("CMYK"), "jpeg"),
    "jpeg-grey": lambda: encoded(noise().convert("L"), "jpeg"),
    "jpeg-progressive": lambda: encoded(noise(), "jpeg", progressive=True),
    "jpeg-turned": lambda: encoded(noise(), "jpeg", exif=exif(6)),
    "png-palette": lambda: encoded(noise().quantize(16), "png", transparency=3),
    "png-16": lambda: raw_png((8, 4), 16, 0, bytes(range(64))),
    "webp-lossless": lambda: encoded(transparent(), "webp", lossless=True),
}
FEATURES = sorted(_FEATURES)


@functools.cache
def feature(name: str) -> bytes:
    """A file with one property that matters, by its name in FEATURES."""
    return _FEATURES[name]()


def deflated_zeros(size: int) -> bytes:
    """Zeros as a zlib stream, made without ever holding them all."""
    deflater = zlib.compressobj(9)
    parts = [deflater.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join((*parts, deflater.flush()))


def tables(name: str) -> bytes:
    """The outside of an RGB profile that has only tables, under a name."""
    text = name.encode("utf-16-be")
    description = struct.pack(">4s4xII2s2sII", b"mluc", 1, 12, b"en", b"US", len(text), 28) + text
    head = bytes(16) + b"RGB XYZ " + bytes(104)
    return head + struct.pack(">I4sII", 1, b"desc", 144, len(description)) + description


def done(data: bytes, *steps: Step) -> tuple[bytes, tuple[str, ...]]:
    """A file through the finishing steps, whose header is checked on the way."""
    found, notes = finish(data, sniff(data), steps)
    # But for an alpha channel that is opaque all over.
    assert found.header.alpha <= sniff(found.data).alpha
    assert replace(found.header, alpha=False) == replace(sniff(found.data), alpha=False)
    return found.data, notes


def transcoded(picture: Image.Image, fmt: Format, quality: int | None = None) -> bytes:
    """A picture through one transcoding, from a format that is another."""
    return done(
        encoded(picture, "webp" if fmt == "png" else "png", lossless=True), Transcode(format=fmt, quality=quality)
    )[0]
