"""WebP: a RIFF file with one image chunk, or an extended one that announces what else is inside."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from normalization import icc
from normalization.containers.base import MAX_PARTS, Scan, begins_picture, corrupt, too_many_parts, truncated
from normalization.exif import density, orientation
from normalization.values import Header

NAME = "WebP"

_EXIF_FLAG, _XMP_FLAG, _ALPHA_FLAG = 0x08, 0x04, 0x10
_PIXELS = (b"VP8 ", b"VP8L")
_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})


def scan(data: bytes) -> Scan:
    """Read a WebP's chunks and hold its length against them. Raises BadImage, struct.error on a short chunk."""
    if len(data) < 20:
        raise truncated(NAME)
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise truncated(NAME)
    view = memoryview(data)
    first: dict[bytes, memoryview] = {}
    parts: list[bytes | memoryview] = []
    frames = 0
    metadata = end < len(data)
    for kind, start, stop in _chunks(data, end):
        body = view[start + 8 : stop]
        frames += kind == b"ANMF"
        if kind not in _KEPT or (kind in first and kind != b"ANMF"):
            metadata = True
            continue
        first.setdefault(kind, body)
        if kind == b"VP8X":
            body = memoryview(bytes((body[0] & ~(_EXIF_FLAG | _XMP_FLAG),)) + bytes(body[1:]))
        parts += (view[start : start + 8], body, bytes(len(body) & 1))
    size = 4 + sum(map(len, parts))
    parts.insert(0, struct.pack("<4sI4s", b"RIFF", size, b"WEBP"))
    profile = bytes(first.get(b"ICCP", b""))
    foreign = bool(profile) and not icc.is_srgb(profile)
    width, height, alpha = _dimensions(first, frames)
    exif = _exif(data, end) if b"VP8X" in first else b""
    header = Header(
        format="webp",
        width=width,
        height=height,
        alpha=alpha,
        animated=frames > 1,
        orientation=orientation(exif),
        # A one-frame animation is a picture, but not to every reader.
        plain=not foreign and frames == 0,
        metadata=metadata,
        profile=foreign,
        extra_pictures=begins_picture(data, end),
        density=density(exif),
    )
    return Scan(header=header, icc=profile if foreign else None, parts=tuple(parts))


def _chunks(data: bytes, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Every chunk's name, start and end without its padding. Raises BadImage where they do not fit into the file."""
    at = 12
    for _ in range(MAX_PARTS):
        # The byte that evens the last chunk may be missing or may be counted.
        if at + 1 >= end:
            return
        if at + 8 > end:
            raise corrupt(NAME, "a chunk is cut off by the end of the file")
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        stop = at + 8 + size
        if stop > end:
            raise corrupt(NAME, "a chunk is longer than the file")
        yield kind, at, stop
        at = stop + (size & 1)
    raise too_many_parts(NAME)


def _exif(data: bytes, end: int) -> bytes:
    return next((data[start + 8 : stop] for kind, start, stop in _chunks(data, end) if kind == b"EXIF"), b"")


def _dimensions(chunks: dict[bytes, memoryview], frames: int) -> tuple[int, int, bool]:
    """Width, height and whether there is alpha. Raises BadImage where the chunks contradict each other."""
    coded = [_bitstream(kind, chunks[kind]) for kind in _PIXELS if kind in chunks]
    if b"VP8X" not in chunks:
        if next(iter(chunks), b"") not in _PIXELS:
            raise corrupt(NAME, "it does not begin with an image")
        return coded[0]
    if next(iter(chunks)) != b"VP8X":
        raise corrupt(NAME, "its extended header is not in front")
    flags, low, high = struct.unpack_from("<B3xHB", chunks[b"VP8X"])
    width = 1 + (low | high << 16)
    low, high = struct.unpack_from("<HB", chunks[b"VP8X"], 7)
    height = 1 + (low | high << 16)
    if frames == 0 and not coded:
        raise corrupt(NAME, "there is no image data in it")
    if frames == 0 and coded[0][:2] != (width, height):
        raise corrupt(NAME, "its image has another size than its header says")
    return width, height, bool(flags & _ALPHA_FLAG) or b"ALPH" in chunks or any(alpha for _, _, alpha in coded)


def _bitstream(kind: bytes, chunk: memoryview) -> tuple[int, int, bool]:
    """Width, height and alpha of a lossy or a lossless bitstream, from its first bytes."""
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", chunk)
        if signature != 0x2F or bits >> 29:
            raise corrupt(NAME, "its lossless image has no valid beginning")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    tag, signature, width, height = struct.unpack_from("<B2x3sHH", chunk)
    width, height = width & 0x3FFF, height & 0x3FFF
    if tag & 1 or signature != b"\x9d\x01\x2a" or not (width and height):
        raise corrupt(NAME, "its lossy image has no valid beginning")
    return width, height, False
