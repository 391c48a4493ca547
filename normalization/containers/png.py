"""PNG: a signature and a row of chunks, each with its own checksum."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from normalization import icc
from normalization.containers.base import MAX_PARTS, BadImage, Scan, begins_picture, corrupt, too_many_parts, truncated
from normalization.exif import density, orientation
from normalization.values import Hdr, Header

NAME = "PNG"
SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Those of a picture of half a megabyte, as libpng writes it.
_FEW_CHUNKS = 100
_CHUNK = struct.Struct(">I4s")
# Bit depths by colour type.
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_COLOUR = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"})
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# What the pixels need, and what is harmless and was meant for them (resolution, significant bits). All else (text,
# time, EXIF, private chunks) goes.
_KEPT = (
    _CRITICAL | _COLOUR | {b"tRNS", b"bKGD", b"hIST", b"pHYs", b"sBIT", b"mDCV", b"cLLI"} | {b"acTL", b"fcTL", b"fdAT"}
)
_FRAMES = frozenset({b"fcTL", b"fdAT"})
_LONGEST = {
    b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"bKGD": 6, b"hIST": 512, b"pHYs": 9, b"sBIT": 4, b"mDCV": 24,
    b"cLLI": 8,
}  # fmt: skip
# Within a hundredth of 1/2.2, which is what programs write for sRGB.
_GAMMA, _GAMMA_TOLERANCE = 45_455, 460
_SRGB_CHROMATICITIES = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
_CHROMATICITY_TOLERANCE = 200
_METRES_PER_INCH = 0.0254


def scan(data: bytes) -> Scan:
    """Read a PNG to its IEND and check every chunk's checksum. Raises BadImage, struct.error on a short chunk."""
    view = memoryview(data)
    parts: list[bytes | memoryview] = [view[:8]]
    first: dict[bytes, memoryview] = {}
    metadata = False
    end = 8
    for kind, start, end in _chunks(data):
        body = view[start + 8 : end - 4]
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise corrupt(NAME, f"the checksum of a {kind.decode()} chunk is wrong")
        if kind not in _KEPT:
            if not kind[0] & 0x20:
                raise corrupt(NAME, f"it needs the unknown chunk {kind.decode()} to be read")
            metadata = True
        elif (kind in _FRAMES and b"acTL" not in first) or len(body) > _LONGEST.get(kind, len(body)):
            # Readers pass over frames of a picture that does not move, and over more than a chunk can hold: so anything
            # may be in there.
            metadata = True
            continue
        elif kind in first and kind in (b"IHDR", b"PLTE"):
            # Readers differ in which one counts: a second header could hide a far larger picture.
            raise corrupt(NAME, f"it has two {kind.decode()} chunks")
        else:
            parts.append(view[start:end])
        first.setdefault(kind, body)
    width, height, depth, colour_type = _dimensions(first)
    srgb, profile = _colour(first)
    header = Header(
        format="png",
        width=width,
        height=height,
        alpha=colour_type in (4, 6) or b"tRNS" in first,
        animated=b"acTL" in first,
        orientation=orientation(first.get(b"eXIf", b"")),
        plain=srgb and depth <= 8,
        metadata=metadata or end < len(data),
        # A palette's entries have 8 bits, whatever its indices have.
        bits=8 if colour_type == 3 else depth,
        profile=not srgb,
        hdr=_hdr(first),
        extra_pictures=begins_picture(data, end),
        density=_density(first),
    )
    return Scan(header=header, icc=profile, parts=tuple(parts))


def has_few_chunks(data: bytes) -> bool:
    """Whether IEND, or the end of the file, is near by: `scan` takes time for each chunk."""
    at, size = 8, len(data)
    for _ in range(_FEW_CHUNKS):
        if at + 12 > size or data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def bit_depth(data: bytes) -> int:
    """Bits per sample of a PNG that was scanned before."""
    return data[24]


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Every chunk's type, start and end, up to and with IEND. Raises BadImage where they do not reach it."""
    at = 8
    for _ in range(MAX_PARTS):
        if at + 12 > len(data):
            raise truncated(NAME)
        length, kind = _CHUNK.unpack_from(data, at)
        if not (kind.isalpha() and length < 2**31):
            raise corrupt(NAME, "a chunk has no valid type")
        end = at + 12 + length
        if end > len(data):
            raise truncated(NAME)
        if at == 8 and kind != b"IHDR":
            raise corrupt(NAME, "it does not begin with an IHDR chunk")
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end
    raise too_many_parts(NAME)


def _dimensions(chunks: dict[bytes, memoryview]) -> tuple[int, int, int, int]:
    """Width, height, bit depth and colour type. Raises BadImage where the critical chunks are not as they must be."""
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
    """Whether the samples are sRGB, and the profile to read them with where they are not.

    In the order of precedence of the specification's third edition: cICP, iCCP, sRGB, then gAMA and cHRM.
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
    """Dots per inch, from pHYs where its unit is the metre, else from EXIF."""
    if len(physical := chunks.get(b"pHYs", b"")) == 9:
        x, y, unit = struct.unpack(">IIB", physical)
        if x and y and unit == 1:
            return x * _METRES_PER_INCH, y * _METRES_PER_INCH
    return density(chunks.get(b"eXIf", b""))


def _inflated(chunk: memoryview) -> bytes:
    """The profile of an iCCP chunk; empty where it cannot be inflated. Raises BadImage where it is a bomb."""
    _, _, rest = bytes(chunk).partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], icc.MAX_BYTES)
    except zlib.error:
        return b""
    if inflater.unconsumed_tail:
        raise BadImage("corrupt_image", f"The PNG file's colour profile is larger than {icc.MAX_BYTES:,} bytes.")
    return profile
