"""Hostile pictures: bombs, damage, contradictions, other formats, and files that are two things at once."""

from __future__ import annotations

import functools
import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

from PIL import Image

from normalization.images import icc
from tests.hostile.entry import Hostile, form, hostile
from tests.support.pictures import DISPLAY_P3, chunk, encoded, exif, noise, plain, with_chunk, with_segment

_PNG = b"\x89PNG\r\n\x1a\n"
_END = chunk(b"IEND")


def corpus() -> Iterator[Hostile]:
    """Every picture, sent as the file `image` of a form that is good otherwise."""
    for family in (_pngs, _jpegs, _gifs, _webps, _avifs, _others):
        for name, data, word, says in family():
            code = "image_too_large" if word == "large" else "invalid_image_file"
            yield hostile(f"{family.__name__[1:-1]}: {name}", functools.partial(_sent, data), 400, code, says=says)


def _sent(data: Callable[[], bytes]) -> bytes:
    return form(picture=data())


Row = tuple[str, Callable[[], bytes], str, str]
_LARGE, _CUT, _DAMAGED, _NONE, _MOVES = "pixels", "is cut off", "is damaged", "PNG, JPEG, WebP, GIF or AVIF", "animated"


def _bad(name: str, data: Callable[[], bytes], says: str) -> Row:
    return name, data, "bad", says


def _large(name: str, data: Callable[[], bytes]) -> Row:
    return name, data, "large", _LARGE


def _ihdr(width: int, height: int, depth: int = 8, kind: int = 2, *more: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, *(*more, 0, 0, 0)[:3]))


def _png(*chunks: bytes) -> bytes:
    return _PNG + b"".join(chunks)


_PIXELS = chunk(b"IDAT", zlib.compress(bytes(100)))


def _pngs() -> Iterator[Row]:
    yield _large("65535 x 65535 in a hundred bytes", lambda: _png(_ihdr(65535, 65535), _PIXELS, _END))
    yield _large("88 megapixels of one bit", lambda: encoded(Image.new("1", (9400, 9400)), "png"))
    yield _large("one row of 2^31 - 1 pixels", lambda: _png(_ihdr(2**31 - 1, 1), _PIXELS, _END))
    yield _bad("a side of 2^31", lambda: _png(_ihdr(2**31, 1), _PIXELS, _END), _DAMAGED)
    yield _bad("no width", lambda: _png(_ihdr(0, 8), _PIXELS, _END), "its size is 0x8")
    yield _bad("no height", lambda: _png(_ihdr(8, 0), _PIXELS, _END), "its size is 8x0")
    yield _bad("a wrong checksum", lambda: plain("png")[:29] + bytes(4) + plain("png")[33:], "checksum of a IHDR")
    yield _bad("a flipped bit in the pixels", _flipped, "checksum of a IDAT")
    yield _bad("no IHDR", lambda: _png(_PIXELS, _END), "does not begin with an IHDR")
    yield _bad("no IDAT", lambda: _png(_ihdr(8, 8), _END), "no image data")
    yield _bad("no IEND", lambda: _png(_ihdr(8, 8), _PIXELS), _CUT)
    yield _bad("half of the file", lambda: plain("png")[: len(plain("png")) // 2], _CUT)
    yield _bad(
        "a chunk of 2^31 bytes", lambda: _png(_ihdr(8, 8), struct.pack(">I4s", 2**31, b"IDAT"), bytes(99)), "type"
    )
    yield _bad("a chunk of 2^31 - 1 bytes", lambda: _png(_ihdr(8, 8), b"\x7f\xff\xff\xffIDAT", bytes(99)), _CUT)
    yield _bad("a chunk of 2^32 - 1 bytes", lambda: _png(_ihdr(8, 8), b"\xff\xff\xff\xffIDAT", bytes(99)), "type")
    yield _bad("a chunk with a name of control characters", lambda: _png(_ihdr(8, 8), chunk(b"\0\1\r\n"), _END), "type")
    yield _bad(
        "an unknown critical chunk", lambda: with_chunk(plain("png"), chunk(b"EVIL", b"x")), "unknown chunk EVIL"
    )
    yield _bad("two headers", lambda: with_chunk(plain("png"), _ihdr(30000, 30000)), "two IHDR")
    yield _bad("two palettes", lambda: with_chunk(plain("png"), chunk(b"PLTE", bytes(3)) * 2), "two PLTE")
    yield _bad(
        "a palette picture without palette", lambda: _png(_ihdr(8, 8, 8, 3), _PIXELS, _END), "palette is missing"
    )
    yield _bad("an IHDR of 12 bytes", lambda: _png(chunk(b"IHDR", bytes(12)), _PIXELS, _END), "wrong length")
    yield _bad("an IHDR of a megabyte", lambda: _png(chunk(b"IHDR", bytes(1 << 20)), _PIXELS, _END), "wrong length")
    yield _bad("three bits a sample", lambda: _png(_ihdr(8, 8, 3), _PIXELS, _END), "does not exist")
    yield _bad("a colour type of 7", lambda: _png(_ihdr(8, 8, 8, 7), _PIXELS, _END), "does not exist")
    yield _bad("another compression", lambda: _png(_ihdr(8, 8, 8, 2, 1), _PIXELS, _END), "does not exist")
    yield _bad("interlaced in a way that is none", lambda: _png(_ihdr(8, 8, 8, 2, 0, 0, 9), _PIXELS, _END), "not exist")
    yield _bad(
        "a hundred thousand chunks", lambda: _png(_ihdr(8, 8), chunk(b"tEXt") * 100_001, _PIXELS, _END), "divided"
    )
    yield _bad("a profile that inflates to 200 MB", _profile_bomb, "colour profile is larger")
    yield _bad("animated", lambda: with_chunk(plain("png"), chunk(b"acTL", bytes(8))), _MOVES)
    yield _bad("animated with 2^32 - 1 frames", lambda: with_chunk(plain("png"), chunk(b"acTL", b"\xff" * 8)), _MOVES)
    yield _bad("16 bits of garbage", lambda: _png(_ihdr(8, 8, 16), chunk(b"IDAT", b"garbage"), _END), _DAMAGED)
    yield _bad("16 bits, far too few", lambda: _png(_ihdr(4000, 4000, 16), _PIXELS, _END), "ends in the middle")
    yield _bad(
        "turned, without its pixels", lambda: _png(_ihdr(3000, 3000), _turned(), _PIXELS, _END), "ends in the middle"
    )
    yield _bad(
        "wide colours, without its pixels", lambda: _png(_ihdr(99, 9), _p3(), _PIXELS, _END), "ends in the middle"
    )
    yield _bad("sent as text: line ends changed", lambda: plain("png").replace(b"\r\n", b"\n"), _NONE)
    yield _bad("only the signature", lambda: _PNG, _CUT)


def _flipped() -> bytes:
    data = bytearray(plain("png"))
    data[len(data) // 2] ^= 1
    return bytes(data)


def _profile_bomb() -> bytes:
    return with_chunk(plain("png"), chunk(b"iCCP", b"bomb\0\0" + zlib.compress(bytes(200 << 20))))


def _turned() -> bytes:
    return chunk(b"eXIf", exif(6).tobytes()[6:])


def _p3() -> bytes:
    return chunk(b"iCCP", b"p3\0\0" + zlib.compress(DISPLAY_P3))


def _segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _frame(width: int, height: int, precision: int = 8, components: int = 3, marker: int = 0xC0) -> bytes:
    parts = b"".join(bytes((number, 0x11, 0)) for number in range(components))
    return _segment(marker, struct.pack(">BHHB", precision, height, width, components) + parts)


_SCAN = _segment(0xDA, b"\1\0\0\0\x3f\0") + bytes(20)


def _jpeg(*segments: bytes, end: bytes = b"\xff\xd9") -> bytes:
    return b"\xff\xd8" + b"".join(segments) + end


def _jpegs() -> Iterator[Row]:
    yield _large("65535 x 65535", lambda: _jpeg(_frame(65535, 65535), _SCAN))
    yield _large("a strip of 65535 x 1", lambda: _jpeg(_frame(65535, 1), _SCAN))
    yield _bad("cut within its pixels", lambda: plain("jpeg")[:-500], _CUT)
    yield _bad("only the first marker", lambda: b"\xff\xd8\xff", _CUT)
    yield _bad("a beginning and an end", lambda: _jpeg(_segment(0xFE, b"hello")), "no image data")
    yield _bad("no size", lambda: _jpeg(_frame(0, 0), _SCAN), "its size is 0x0")
    yield _bad("a height that comes later", lambda: _jpeg(_frame(64, 0), _SCAN, b"\xff\xdc\0\4\0\x40"), "size is 64x0")
    yield _bad("12 bits a sample", lambda: _jpeg(_frame(8, 8, 12), _SCAN), "12 bits")
    yield _bad("two components", lambda: _jpeg(_frame(8, 8, 8, 2), _SCAN), "2 colour components")
    yield _bad("255 components", lambda: _jpeg(_frame(8, 8, 8, 255), _SCAN), "255 colour components")
    yield _bad("two frames of different sizes", lambda: _jpeg(_frame(8, 8), _frame(60000, 60000), _SCAN), "two frame")
    yield _bad("pixels before the frame", lambda: _jpeg(_SCAN, _frame(8, 8)), "before the frame header")
    yield _bad("a frame header of two bytes", lambda: _jpeg(_segment(0xC0, b"\x08\0"), _SCAN), "too short")
    yield _bad("a Huffman table longer than the file", lambda: _jpeg(b"\xff\xc4\xff\xff", bytes(99)), _CUT)
    yield _bad("a segment without length", lambda: _jpeg(b"\xff\xe1\0\0", _frame(8, 8), _SCAN), "no length")
    yield _bad("a second picture inside", lambda: _jpeg(_frame(8, 8), plain("jpeg"), _SCAN), "second image begins")
    yield _bad("a hundred thousand comments", lambda: _jpeg(_segment(0xFE) * 100_001, _frame(8, 8), _SCAN), "divided")
    yield _bad("lossless", lambda: _jpeg(_frame(8, 8, marker=0xC3), _SCAN), "few programs read")
    yield _bad("arithmetic coding", lambda: _jpeg(_frame(8, 8, marker=0xC9), _SCAN), "few programs read")
    yield _bad("hierarchical", lambda: _jpeg(_frame(8, 8, marker=0xC5), _SCAN), "few programs read")
    yield _bad("sixty thousand scans over 49 megapixels", _many_scans, "scans")
    yield _bad("nothing but fill bytes", lambda: b"\xff\xd8" + b"\xff" * 1_000_000, _CUT)
    yield _bad(
        "no frame, only an EXIF thumbnail", lambda: _jpeg(_segment(0xE1, b"Exif\0\0" + plain("jpeg"))), "no image"
    )


def _many_scans() -> bytes:
    """A picture on its side, which has to be decoded, and is drawn sixty thousand times."""
    return drawn_often(60_000, 8000, 6000)


def drawn_often(scans: int, width: int, height: int) -> bytes:
    """A progressive JPEG, turned, whose last scan comes so often."""
    data = bytearray(with_segment(encoded(noise(), "jpeg", progressive=True), 0xE1, exif(6).tobytes()))
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    last = data.rindex(b"\xff\xda")
    return bytes(data[:last] + data[last:-2] * scans + data[-2:])


def _gif(width: int, height: int, *blocks: bytes, end: bytes = b";") -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + b"".join(blocks) + end


def _gif_frame(width: int, height: int, left: int = 0, top: int = 0, data: bytes = b"\x02\x02\x44\x01\0") -> bytes:
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + data


def _gifs() -> Iterator[Row]:
    yield _large("65535 x 65535", lambda: _gif(65535, 65535, _gif_frame(1, 1)))
    yield _large("a small screen, a frame far away", lambda: _gif(1, 1, _gif_frame(1, 1, 60000, 60000)))
    yield _bad("49 megapixels in forty bytes", lambda: _gif(7000, 7000, _gif_frame(7000, 7000)), "ends in the middle")
    yield _bad("codes of 255 bits", lambda: _gif(9, 9, _gif_frame(9, 9, data=b"\xff\x02\x44\x01\0")), _DAMAGED)
    yield _bad("no trailer, nor its pixels", lambda: _gif(9, 9, _gif_frame(9, 9), end=b""), "ends in the middle")
    yield _bad("cut in a block", lambda: plain("gif")[:-300], _CUT)
    yield _bad("a frame of no size", lambda: _gif(8, 8, _gif_frame(0, 0)), "the size 0x0")
    yield _bad("an unknown block", lambda: _gif(8, 8, b"\x99"), "unknown kind 0x99")
    yield _bad("no picture at all", lambda: _gif(8, 8), "no image in it")
    yield _bad("a hundred thousand frames", lambda: _gif(1, 1, _gif_frame(1, 1) * 100_001), "divided")
    yield _bad("two frames", lambda: _gif(1, 1, _gif_frame(1, 1) * 2), _MOVES)
    yield _bad("a million blocks of a byte", lambda: _gif(1, 1, b"!\xfe" + b"\1x" * 1_000_001 + b"\0"), "divided")
    yield _bad("a palette cut off", lambda: b"GIF89a\1\0\1\0\xf7\0\0" + bytes(40), _CUT)
    yield _bad("a control block without content", lambda: _gif(1, 1, b"!\xf9\0", end=b""), "")


def _riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)


def _vp8x(width: int, height: int, flags: int = 0) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return _webp_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size)


def _vp8(width: int, height: int) -> bytes:
    return _webp_chunk(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(20))


def _webps() -> Iterator[Row]:
    pixels = plain("webp")[12:]
    yield _large("2^24 x 2^24, one frame", lambda: _riff(_vp8x(1 << 24, 1 << 24, 2), _webp_chunk(b"ANMF", bytes(30))))
    yield _large("16383 x 16383", lambda: _riff(_vp8(16383, 16383)))
    yield _bad("a canvas larger than its picture", lambda: _riff(_vp8x(16000, 3000), pixels), "another size")
    yield _bad("a file of 4 GB by its word, and cut", lambda: _riff(pixels[:-99], size=2**32 - 10), _CUT)
    yield _bad("a chunk of 4 GB by its word", lambda: _riff(b"VP8 \xff\xff\xff\xff", bytes(30)), "longer than the file")
    yield _bad("cut within its pixels", lambda: plain("webp")[:-300], _CUT)
    yield _bad("no pixels", lambda: _riff(_vp8x(8, 8), _webp_chunk(b"EXIF", bytes(8))), "no image data")
    yield _bad("an empty file of the kind", lambda: _riff(_webp_chunk(b"XMP ", bytes(8))), "not begin with an image")
    yield _bad("its header at the end", lambda: _riff(pixels, _vp8x(64, 48)), "not in front")
    yield _bad("a header of three bytes", lambda: _riff(_webp_chunk(b"VP8X", b"\0\0\0"), pixels), "too short")
    yield _bad("a lossy picture of no size", lambda: _riff(_vp8(0, 0)), "no valid beginning")
    yield _bad(
        "a lossless one of version 7", lambda: _riff(_webp_chunk(b"VP8L", b"\x2f\xff\xff\xff\xff" + bytes(9))), "valid"
    )
    yield _bad("a hundred thousand chunks", lambda: _riff(_webp_chunk(b"junk", b"") * 100_001, pixels), "divided")
    yield _bad("two frames", lambda: _riff(_vp8x(8, 8, 2), _webp_chunk(b"ANMF", bytes(30)) * 2), _MOVES)
    yield _bad("wide colours, broken pixels", lambda: _riff(_vp8x(64, 48, 32), _icc(), _vp8(64, 48)), _DAMAGED)
    yield _bad(
        "one frame of an animation, broken", lambda: _riff(_vp8x(99, 9, 2), _webp_chunk(b"ANMF", bytes(30))), _DAMAGED
    )


def _icc() -> bytes:
    return _webp_chunk(b"ICCP", DISPLAY_P3)


def _patched(old: bytes, new: bytes) -> bytes:
    data = plain("avif")
    assert data.count(old) >= 1
    return data.replace(old, new)


def _sized(width: int, height: int) -> bytes:
    """A good AVIF whose container names another size than its pixels have."""
    data = bytearray(plain("avif"))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


def _box(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


_FTYP = _box(b"ftyp", b"avif\0\0\0\0avifmif1")


def _meta(*boxes: bytes) -> bytes:
    return _FTYP + _box(b"meta", bytes(4) + b"".join(boxes))


_PITM = _box(b"pitm", bytes(4) + b"\0\1")
_IINF = _box(b"iinf", bytes(4) + b"\0\1" + _box(b"infe", b"\2\0\0\0\0\1\0\0av01\0"))
_IPRP = _box(b"iprp", _box(b"ipco"))


def _avifs() -> Iterator[Row]:
    yield _large("65535 x 65535", lambda: _sized(65535, 65535))
    yield _large("2^32 - 1 pixels wide", lambda: _sized(2**32 - 1, 1))
    yield _bad("no size", lambda: _sized(0, 0), "its size is 0x0")
    yield _bad("only its type", lambda: _FTYP, _CUT)
    yield _bad("no boxes inside", lambda: _meta(), "box is missing")
    yield _bad("no place for its pixels", lambda: _meta(_PITM, _IINF, _IPRP), "iloc box is missing")
    yield _bad("pixels far behind the end", lambda: _meta(_PITM, _IINF, _IPRP, _iloc(1, 2**31)), _CUT)
    yield _bad("four thousand million items", lambda: _meta(_PITM, _IINF, _IPRP, _items_bomb()), "divided")
    yield _bad("65535 pieces in no bytes", lambda: _meta(_PITM, _IINF, _IPRP, _pieces_bomb()), "divided")
    yield _bad(
        "a picture that is nowhere", lambda: _meta(_box(b"pitm", bytes(4) + b"\0\7"), _IINF, _IPRP, _iloc()), "nowhere"
    )
    yield _bad("no properties", lambda: _meta(_PITM, _IINF, _box(b"iprp"), _iloc()), "properties are missing")
    yield _bad("2^32 - 1 associations", lambda: _meta(_PITM, _IINF, _ipma_bomb(), _iloc()), "divided")
    yield _bad("a box of 2^63 bytes", lambda: _FTYP + b"\0\0\0\1meta" + b"\x7f" + b"\xff" * 7 + bytes(99), _CUT)
    yield _bad("boxes that do not fill their box", lambda: _FTYP + _box(b"meta", bytes(11)), "whole boxes")
    yield _bad("a sequence", lambda: _patched(b"ftypavif", b"ftypavis"), _MOVES)
    yield _bad("cut within its pixels", lambda: plain("avif")[:-200], _CUT)
    yield _bad("zeros in place of its pixels", _zeroed, _DAMAGED)


def _iloc(count: int = 1, start: int = 0) -> bytes:
    one = struct.pack(">HHHII", 1, 0, 1, start, 4)
    return _box(b"iloc", bytes(4) + b"\x44\0" + struct.pack(">H", count) + one)


def _items_bomb() -> bytes:
    return _box(b"iloc", b"\2\0\0\0\0\0" + b"\xff" * 4 + bytes(40))


def _pieces_bomb() -> bytes:
    """Two items of 65535 pieces each, whose numbers have no bytes: they would fit into nothing."""
    return _box(b"iloc", bytes(4) + b"\0\0\0\2" + b"\0\1\0\0\xff\xff" + b"\0\1\0\0\xff\xff")


def _ipma_bomb() -> bytes:
    return _box(b"iprp", _box(b"ipco") + _box(b"ipma", bytes(4) + b"\xff" * 4 + bytes(40)))


def _zeroed() -> bytes:
    data = plain("avif")
    at = data.index(b"mdat") + 4
    return data[:at] + bytes(len(data) - at)


def _zip() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.png", bytes(1 << 20))
    return out.getvalue()


_ENTITIES = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><svg xmlns="http://www.w3.org/2000/svg"><text>&c;</text></svg>'
)
_EXTERNAL = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "http://127.0.0.1:00000/xxe">]>'
    b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:00000/a.png"/><text>&x;</text></svg>'
)


def _others() -> Iterator[Row]:
    for name, fmt, word in (
        ("a TIFF", "tiff", "a TIFF"), ("a BMP", "bmp", "a BMP"), ("an icon", "ico", "an icon"),
        ("a JPEG 2000", "jpeg2000", "a JPEG 2000"), ("a PDF of a picture", "pdf", "a PDF"),
        ("an EPS", "eps", "not an image"), ("a PPM", "ppm", "not an image"), ("a PCX", "pcx", "not an image"),
        ("a TGA", "tga", "not an image"), ("an SGI", "sgi", "not an image"), ("a DDS", "dds", "not an image"),
    ):  # fmt: skip
        yield _bad(name, functools.partial(encoded, noise(), fmt), word)
    yield _bad("a TIFF whose directory is itself", lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "a TIFF")
    yield _bad(
        "a Photoshop document",
        lambda: b"8BPS\0\1" + bytes(6) + b"\0\3\x7f\xff\xff\xff\x7f\xff\xff\xff\0\x08\0\3",
        "Photo",
    )
    yield _bad("an SVG whose entities multiply", lambda: _ENTITIES, "an SVG")
    yield _bad("an SVG that fetches", lambda: _EXTERNAL, "an SVG")
    yield _bad("an SVG with a script", lambda: b"<svg onload='fetch(\"//a\")'><script>1</script></svg>", "an SVG")
    yield _bad("an XML document", lambda: b"<?xml version='1.0'?><Error/>", "an XML")
    yield _bad("a web page", lambda: b"<!doctype html><img src=x onerror=alert(1)>", "an HTML page")
    yield _bad("a HEIC", lambda: _box(b"ftyp", b"heic\0\0\0\0mif1heic") + bytes(50), "a HEIC")
    yield _bad("a JPEG XL", lambda: b"\xff\x0a" + bytes(50), "a JPEG XL")
    yield _bad("a JPEG XL in boxes", lambda: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "a JPEG XL")
    yield _bad("a video", lambda: _box(b"ftyp", b"isom\0\0\0\0isommp42") + bytes(50), "a video")
    yield _bad("a Matroska video", lambda: b"\x1aE\xdf\xa3" + bytes(50), "a video")
    yield _bad("a sound", lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(50), "not an image")
    yield _bad("a ZIP", _zip, "a ZIP")
    yield _bad("a gzip bomb", lambda: gzip.compress(bytes(50 << 20)), "a gzip")
    yield _bad("a script", lambda: b"#!/bin/sh\nrm -rf /\n", "not an image")
    yield _bad("a program", lambda: b"\x7fELF\2\1\1" + bytes(100), "not an image")
    yield _bad(
        "an ImageMagick script", lambda: b"push graphic-context\nfill 'url(http://127.0.0.1:00000/)'\n", "not an"
    )
    yield _bad(
        "a FITS of 10^18 pixels",
        lambda: f"{'SIMPLE  =                    T':80}{'NAXIS1  = 1000000000':80}".encode(),
        "no",
    )
    yield _bad("a million zeros", lambda: bytes(1_000_000), "not an image")
    yield _bad("nothing", lambda: b"", "empty")
    yield _bad("one byte", lambda: b"\x89", _CUT)
    yield _bad("one letter", lambda: b"a", "not an image")
    yield _bad("JSON", lambda: b'{"b64_json": "iVBORw0KGgo="}', "JSON text")
    yield _bad("base64 in a file", lambda: b"iVBORw0KGgoAAAANSUhEUg==", "base64 text")
    yield _bad("a data URL in a file", lambda: b"data:image/png;base64,iVBORw0KGgo=", "a data URL")
    yield _bad("an address in a file", lambda: b"http://127.0.0.1:00000/a.png", "a URL as text")
    yield _bad("a GIF that is a script too", lambda: b"GIF89a/*" + bytes(5) + b"*/=1;alert(1)//;", "")
    yield _bad("a PDF that is a JPEG too", lambda: b"%PDF-1.4\n" + plain("jpeg"), "a PDF")
    yield _bad("a web page that is a PNG too", lambda: b"<html><!--" + plain("png") + b"-->", "an HTML page")
    yield _bad("a ZIP that is a PNG too", lambda: _zip() + plain("png"), "a ZIP")
    yield _bad("a PNG whose rest is a ZIP", lambda: _PNG + _zip(), "")
    yield _bad("a picture behind a space", lambda: b" " + plain("png"), "not an image")
    yield _bad("a profile alone", lambda: icc.build(icc.PRIMARIES[12], icc.D65, None) or b"", "not an image")
