"""PNG: a signature and a sequence of chunks, each with its own checksum."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping

from normalization.images import icc
from normalization.images.formats.base import (
    MAX_PARTS,
    BadImage,
    Scan,
    begins_picture,
    corrupt,
    too_many_parts,
    truncated,
)
from normalization.images.formats.exif import density, orientation
from normalization.values import Hdr, Header

NAME = "PNG"
SIGNATURE = b"\x89PNG\r\n\x1a\n"

# As many as libpng writes for an image of half a megabyte.
_FEW_CHUNKS = 100
_CHUNK = struct.Struct(">I4s")
_DEFLATE_RATIO = 1032
# Samples per pixel and permitted bit depths, by colour type.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_COLOUR = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"})
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# The chunks that the pixels need, and harmless ones that describe them (resolution, significant bits). All others
# (text, time, EXIF, private chunks) are removed.
_KEPT = (
    _CRITICAL | _COLOUR | {b"tRNS", b"bKGD", b"hIST", b"pHYs", b"sBIT", b"mDCV", b"cLLI"} | {b"acTL", b"fcTL", b"fdAT"}
)
_FRAMES = frozenset({b"fcTL", b"fdAT"})
_LENGTHS: Mapping[bytes, Collection[int]] = {
    b"cICP": (4,), b"sRGB": (1,), b"gAMA": (4,), b"cHRM": (32,), b"bKGD": (1, 2, 6), b"hIST": range(2, 513, 2),
    b"pHYs": (9,), b"sBIT": (1, 2, 3, 4), b"mDCV": (24,), b"cLLI": (8,),
}  # fmt: skip
# Chunks that must be intact, except in a paid result.
_STRICT = _CRITICAL | {b"tRNS"}
# Within a hundredth of 1/2.2, the value that programs write for sRGB.
_GAMMA, _GAMMA_TOLERANCE = 45_455, 460
_SRGB_CHROMATICITIES = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
_CHROMATICITY_TOLERANCE = 200
METRES_PER_INCH = 0.0254


def scan(data: bytes, lenient: bool = False) -> Scan:
    """Read a PNG up to its IEND and check all checksums. Raises BadImage, and struct.error for a short chunk.

    As in libpng, an ancillary chunk with a wrong checksum is ignored, except for the transparent colours, which the
    pixels need. `lenient` tolerates wrong checksums of these and of the pixels, and a missing IEND.
    """
    view = memoryview(data)
    parts: list[bytes | memoryview] = [view[:8]]
    first: dict[bytes, memoryview] = {}
    metadata = damaged = False
    kind, end = b"", 8
    for kind, start, end, body in _chunks(data, lenient):
        sound = zlib.crc32(view[start + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
        if not (sound or _is_spared(kind) or (lenient and kind not in (b"IHDR", b"PLTE"))):
            raise corrupt(NAME, f"the checksum of a {kind.decode()} chunk is wrong")
        if kind not in _KEPT and not kind[0] & 0x20:
            raise corrupt(NAME, f"it needs the unknown chunk {kind.decode()} to be read")
        damaged |= not sound and kind in _STRICT
        if kind in first and kind in (b"IHDR", b"PLTE"):
            # Readers differ in which one they use: a second header could hide a far larger image.
            raise corrupt(NAME, f"it has two {kind.decode()} chunks")
        if not sound and kind in (b"IDAT", b"IEND"):
            parts += written(kind, body)
        elif not sound or not _counts(kind, body, first):
            # It may contain anything.
            metadata = True
            if kind in _KEPT or not sound:
                continue
        else:
            parts.append(view[start:end])
        first.setdefault(kind, body)
    if kind != b"IEND":
        damaged = True
        parts += written(b"IEND", b"")
    metadata |= damaged
    width, height, depth, colour_type = _dimensions(first)
    srgb, profile = _colour(first)
    header = Header(
        format="png",
        width=width,
        height=height,
        alpha=colour_type in (4, 6) or b"tRNS" in first,
        animated=b"acTL" in first,
        orientation=orientation(first.get(b"eXIf", b"")),
        # Only in a palette do all readers interpret a transparent colour in the same way.
        plain=srgb and depth <= 8 and (colour_type == 3 or b"tRNS" not in first) and not damaged,
        metadata=metadata or end < len(data),
        # A palette's entries have 8 bits, regardless of the size of its indices.
        bits=8 if colour_type == 3 else depth,
        profile=bool(profile) or _hdr(first) is not None,
        hdr=_hdr(first),
        extra_pictures=begins_picture(data, end),
        density=_density(first),
    )
    primaries = first[b"cICP"][0] if header.hdr else 1
    return Scan(header=header, icc=profile, parts=tuple(parts), primaries=primaries)


def has_few_chunks(data: bytes) -> bool:
    """Whether IEND or the end of the file comes after a few chunks: `scan` takes time for each chunk."""
    at, size = 8, len(data)
    for _ in range(_FEW_CHUNKS):
        if at + 12 > size or data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def can_hold_its_pixels(data: bytes) -> bool:
    """Whether a scanned PNG has enough data for the pixels that it declares; nothing is inflated to find out.

    Deflate compresses at most 1032 to 1: https://zlib.net/zlib_tech.html.
    """
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour_type = data[24], data[25]
    bits = width * depth * _CHANNELS[colour_type]
    coded, at = 0, 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            coded += min(length, len(data) - at - 8)
        at += 12 + length
    return coded * _DEFLATE_RATIO >= height * ((bits + 7) // 8)


def bit_depth(data: bytes) -> int:
    """Return the bits per sample of a scanned PNG."""
    return data[24]


def _chunks(data: bytes, lenient: bool) -> Iterator[tuple[bytes, int, int, memoryview]]:
    """Yield every chunk's type, start, end and content, up to and including IEND.

    Raises BadImage if the file ends before IEND; `lenient` stops there instead, and yields truncated image data.
    """
    at, view = 8, memoryview(data)
    for _ in range(MAX_PARTS):
        if at + 12 > len(data):
            if lenient and at > 8:
                return
            raise truncated(NAME)
        length, kind = _CHUNK.unpack_from(data, at)
        if not (kind.isalpha() and length < 2**31):
            if lenient and at > 8:
                return
            raise corrupt(NAME, "a chunk has no valid type")
        end = at + 12 + length
        if at == 8 and kind != b"IHDR":
            raise corrupt(NAME, "it does not begin with an IHDR chunk")
        if end > len(data):
            if not lenient or at == 8:
                raise truncated(NAME)
            if kind == b"IDAT":
                # Its checksum is missing too, or is read as pixel data: a decoder stops when that is complete.
                yield kind, at, len(data), view[at + 8 :]
            return
        yield kind, at, end, view[at + 8 : end - 4]
        if kind == b"IEND":
            return
        at = end
    raise too_many_parts(NAME)


def _is_spared(kind: bytes) -> bool:
    return bool(kind[0] & 0x20) and kind not in _STRICT


def _counts(kind: bytes, body: memoryview, first: dict[bytes, memoryview]) -> bool:
    """Whether all readers use this chunk in the same way: not text, a duplicate, or a chunk of the wrong length."""
    if kind not in _KEPT or len(body) not in _LENGTHS.get(kind, (len(body),)):
        return False
    return b"acTL" in first if kind in _FRAMES else kind == b"IDAT" or kind not in first


def written(kind: bytes, body: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """Return a chunk with its correct checksum, in pieces."""
    return len(body).to_bytes(4, "big") + kind, body, zlib.crc32(body, zlib.crc32(kind)).to_bytes(4, "big")


def _dimensions(chunks: dict[bytes, memoryview]) -> tuple[int, int, int, int]:
    """Return width, height, bit depth and colour type. Raises BadImage if the critical chunks are invalid."""
    if len(chunks[b"IHDR"]) != 13:
        raise corrupt(NAME, "its IHDR chunk has the wrong length")
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise corrupt(NAME, f"its size is {width}x{height}")
    if depth not in _DEPTHS.get(colour_type, ()) or compression or filtering or interlace > 1:
        raise corrupt(NAME, "its IHDR chunk names a combination that does not exist")
    if b"IDAT" not in chunks:
        raise corrupt(NAME, "there is no image data in it")
    if colour_type == 3 and b"PLTE" not in chunks:
        raise corrupt(NAME, "its palette is missing")
    return width, height, depth, colour_type


def _colour(chunks: dict[bytes, memoryview]) -> tuple[bool, bytes | None]:
    """Return whether the samples are sRGB, and their ICC profile if they are not.

    The order of precedence is that of the specification's third edition: cICP, iCCP, sRGB, then gAMA and cHRM.
    """
    if len(cicp := chunks.get(b"cICP", b"")) == 4:
        return icc.from_code_points(cicp[0], cicp[1])
    if b"iCCP" in chunks:
        profile = _inflated(chunks[b"iCCP"])
        return (True, None) if icc.is_srgb(profile) else (False, profile)
    if b"sRGB" in chunks:
        return True, None
    gamma = int.from_bytes(chunks.get(b"gAMA", b"")[:4], "big") or _GAMMA
    corners = _SRGB_CHROMATICITIES
    if len(chunks.get(b"cHRM", b"")) == 32:
        corners = struct.unpack(">8I", chunks[b"cHRM"])
    near = all(abs(a - b) <= _CHROMATICITY_TOLERANCE for a, b in zip(corners, _SRGB_CHROMATICITIES, strict=True))
    if near and abs(gamma - _GAMMA) <= _GAMMA_TOLERANCE:
        return True, None
    white, red, green, blue = ((corners[i] / 100_000, corners[i + 1] / 100_000) for i in range(0, 8, 2))
    power = None if abs(gamma - _GAMMA) <= _GAMMA_TOLERANCE else 100_000 / gamma
    built = icc.build((red, green, blue), white, power)
    return built is None, built


def _hdr(chunks: dict[bytes, memoryview]) -> Hdr | None:
    return icc.HDR.get(cicp[1]) if len(cicp := chunks.get(b"cICP", b"")) == 4 else None


def _density(chunks: dict[bytes, memoryview]) -> tuple[float, float] | None:
    """Return the dots per inch, from pHYs if its unit is the metre, otherwise from EXIF."""
    if len(physical := chunks.get(b"pHYs", b"")) == 9:
        x, y, unit = struct.unpack(">IIB", physical)
        if x and y and unit == 1:
            return x * METRES_PER_INCH, y * METRES_PER_INCH
    return density(chunks.get(b"eXIf", b""))


def _inflated(chunk: memoryview) -> bytes:
    """Return the profile of an iCCP chunk; empty if it cannot be inflated. Raises BadImage for a decompression bomb."""
    _, _, rest = bytes(chunk).partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], icc.MAX_BYTES)
    except zlib.error:
        return b""
    if inflater.unconsumed_tail:
        raise BadImage("corrupt_image", f"The PNG file's colour profile is larger than {icc.MAX_BYTES:,} bytes.")
    return profile
