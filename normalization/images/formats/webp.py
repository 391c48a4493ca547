"""WebP: a RIFF file with a single image chunk, or an extended one whose header lists its other contents."""

from __future__ import annotations

import struct
from typing import TypeAlias

from normalization.images import icc
from normalization.images.formats.base import MAX_PARTS, Scan, begins_picture, corrupt, too_many_parts, truncated
from normalization.images.formats.exif import density, orientation
from normalization.values import Header

NAME = "WebP"

_EXIF_FLAG, _XMP_FLAG, _ALPHA_FLAG = 0x08, 0x04, 0x10
_PIXELS = (b"VP8 ", b"VP8L")
_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
# The image cannot be decoded unless these are complete.
_NEEDED = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANMF"})
# A chunk's name, its start, and its end without padding.
Chunk: TypeAlias = tuple[bytes, int, int]


def scan(data: bytes, lenient: bool = False) -> Scan:
    """Read a WebP's chunks up to its end. Raises BadImage, and struct.error for a short chunk.

    If the length in the file header contradicts the chunks, the chunks count and the length is corrected. `lenient` has
    no effect: the damage that decoders tolerate in a paid result is the same as in an upload.
    """
    if len(data) < 20:
        raise truncated(NAME)
    chunks, end = _walked(data)
    view = memoryview(data)
    first: dict[bytes, memoryview] = {}
    parts: list[bytes | memoryview] = []
    frames = 0
    metadata = end != 8 + int.from_bytes(data[4:8], "little") or end < len(data)
    for kind, start, stop in chunks:
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
    exif = _exif(data, chunks) if b"VP8X" in first else b""
    header = Header(
        format="webp",
        width=width,
        height=height,
        alpha=alpha,
        animated=frames > 1,
        orientation=orientation(exif),
        # An animation with one frame is an image, but not every reader accepts it.
        plain=not foreign and frames == 0,
        metadata=metadata,
        profile=foreign,
        extra_pictures=begins_picture(data, end),
        density=density(exif),
    )
    return Scan(header=header, icc=profile if foreign else None, parts=tuple(parts))


def _walked(data: bytes) -> tuple[list[Chunk], int]:
    """Return the chunks and where the last one ends. Raises BadImage if they end before the image is complete."""
    claimed = 8 + int.from_bytes(data[4:8], "little")
    at, limit, found = 12, min(claimed, len(data)), list[Chunk]()
    pictures, animated = 0, False
    for _ in range(MAX_PARTS):
        # The padding byte of the last chunk may be missing, or may be included in the length.
        if at + 1 >= limit and not (pictures or animated):
            # The length in the file header is too small.
            limit = len(data)
        if at + 1 >= limit and (limit == claimed or not animated):
            return found, claimed if limit == claimed else min(at, len(data))
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        stop = at + 8 + size
        if at + 8 > len(data) or stop > len(data):
            if pictures and kind not in _NEEDED and not animated:
                return found, at
            raise truncated(NAME) if claimed > len(data) else corrupt(NAME, "a chunk is longer than the file")
        if stop > limit:
            limit = len(data)
        found.append((kind, at, stop))
        pictures, animated = pictures + (kind in _PIXELS), animated or kind == b"ANMF"
        at = stop + (size & 1)
    raise too_many_parts(NAME)


def _exif(data: bytes, chunks: list[Chunk]) -> bytes:
    return next((data[start + 8 : stop] for kind, start, stop in chunks if kind == b"EXIF"), b"")


def _dimensions(chunks: dict[bytes, memoryview], frames: int) -> tuple[int, int, bool]:
    """Return width, height and whether there is alpha. Raises BadImage if the chunks contradict each other."""
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
    """Return width, height and whether there is alpha, from the first bytes of a lossy or lossless bitstream."""
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
