"""GIF: a screen descriptor, then blocks up to a trailer, each a chain of sub-blocks."""

from __future__ import annotations

import struct

from normalization.images.formats.base import (
    MAX_PARTS,
    BadImage,
    Scan,
    begins_picture,
    corrupt,
    too_many_parts,
    truncated,
)
from normalization.values import Header

NAME = "GIF"
SIGNATURES = (b"GIF87a", b"GIF89a")

_IMAGE, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_CONTROL, _APPLICATION = 0xF9, 0xFF
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
# Programs write 255 bytes into each: this number holds 255 MB.
_MAX_SUB_BLOCKS = 1_000_000


class _GifWalk:
    """One pass over the blocks, and its findings so far."""

    def __init__(self, data: bytes, lenient: bool) -> None:
        self.data = data
        self.lenient = lenient
        self.view = memoryview(data)
        self.frames = self.ended_frames = 0
        self.began = 0
        self.damaged = False
        self.alpha = False
        self.metadata = False
        self.sub_blocks = 0
        self.width, self.height, flags = struct.unpack_from("<HHB", data, 6)
        self.at = 13 + _colours(flags)
        self.parts: list[bytes | memoryview] = [self.view[: self.at]]

    def run(self) -> None:
        """Read up to the trailer. Raises BadImage."""
        for _ in range(MAX_PARTS):
            if self.frames and self.at == len(self.data):
                self._end()
                return
            kind = self._byte()
            start = self.at - 1
            self.began = start
            if kind == _TRAILER:
                self.parts.append(self.view[start : self.at])
                self.metadata = self.metadata or self.at < len(self.data)
                return
            if kind == _IMAGE:
                self._image()
                self.ended_frames += 1
                self.parts.append(self.view[start : self.at])
            elif kind == _EXTENSION:
                if self._extension():
                    self.parts.append(self.view[start : self.at])
                else:
                    self.metadata = True
            elif kind == 0:
                # Some programs end an image with two terminators, and all decoders skip the second.
                self.metadata = True
            elif self.ended_frames and self.lenient:
                self.break_off()
                return
            else:
                raise corrupt(NAME, f"it has a block of the unknown kind 0x{kind:02x}")
        raise too_many_parts(NAME)

    def break_off(self) -> None:
        """End after the last complete block, or within the first image if that is truncated."""
        if self.frames == 1 and not self.ended_frames:
            self.parts += (self.view[self.began :], b"\0")
        self.at = len(self.data)
        self.damaged = True
        self._end()

    def _end(self) -> None:
        self.metadata = True
        self.parts.append(bytes((_TRAILER,)))

    def _byte(self) -> int:
        if self.at >= len(self.data):
            raise truncated(NAME)
        self.at += 1
        return self.data[self.at - 1]

    def _image(self) -> None:
        if self.at + 9 > len(self.data):
            raise truncated(NAME)
        left, top, width, height, flags = struct.unpack_from("<HHHHB", self.data, self.at)
        if not (width and height):
            raise corrupt(NAME, f"its frame has the size {width}x{height}")
        if self.frames == 0:
            # Decoders enlarge a screen that is smaller than its first frame.
            self.width, self.height = max(self.width, left + width), max(self.height, top + height)
        self.frames += 1
        self.at += 9 + _colours(flags) + 1
        self._skip()

    def _extension(self) -> bool:
        """Skip an extension and return whether it is kept."""
        label, start = self._byte(), self.at
        self._skip()
        if label == _CONTROL:
            if self.frames == 0:
                self.alpha = bool(self.data[start + 1] & 1)
            return True
        return label == _APPLICATION and self.data[start + 1 : start + 12] in _LOOPS

    def _skip(self) -> None:
        """Skip a chain of sub-blocks and its terminator. Raises BadImage if the file ends first."""
        data, at, count, end = self.data, self.at, 0, len(self.data)
        while at < end and (length := data[at]):
            at += length + 1
            count += 1
            if self.sub_blocks + count > _MAX_SUB_BLOCKS:
                raise corrupt(NAME, f"it is divided into more than {_MAX_SUB_BLOCKS:,} parts")
        if at >= end:
            raise truncated(NAME)
        self.sub_blocks += count
        self.at = at + 1


def scan(data: bytes, lenient: bool = False) -> Scan:
    """Read a GIF's blocks up to the trailer, which may be missing after a complete image. Raises BadImage.

    `lenient` ignores damage after the beginning of the first image.
    """
    if len(data) < 14:
        raise truncated(NAME)
    walk = _GifWalk(data, lenient)
    try:
        walk.run()
    except BadImage as error:
        if not (lenient and walk.frames and error.code == "truncated_image"):
            raise
        walk.break_off()
    if walk.frames == 0:
        raise corrupt(NAME, "there is no image in it")
    header = Header(
        format="gif",
        width=walk.width,
        height=walk.height,
        alpha=walk.alpha,
        animated=walk.frames > 1,
        plain=not walk.damaged,
        metadata=walk.metadata,
        extra_pictures=begins_picture(data, walk.at),
    )
    return Scan(header=header, icc=None, parts=tuple(walk.parts))


def _colours(flags: int) -> int:
    """Return the size in bytes of the colour table that a flags byte declares."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
