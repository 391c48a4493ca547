"""JPEG: a sequence of segments, and between them entropy-coded data, which ends only at the next marker."""

from __future__ import annotations

import re
import struct

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
from normalization.values import Header

NAME = "JPEG"
SIGNATURE = b"\xff\xd8"

_SOI, _EOI, _SOS, _COM, _TEM = 0xD8, 0xD9, 0xDA, 0xFE, 0x01
_RESTARTS = range(0xD0, 0xD8)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive with Huffman coding. Browsers read no others (lossless, hierarchical, arithmetic).
_COMMON_FRAMES = range(0xC0, 0xC3)
# A progressive image has about ten, and a decoder processes all pixels once for each: a file of a few kilobytes could
# keep it busy for minutes.
_MAX_SCANS, _USUAL_SCANS = 100, 20
_APPLICATION = range(0xE0, 0xF0)
_EXIF = b"Exif\0\0"
_PROFILE = b"ICC_PROFILE\0"
_JFIF = b"JFIF\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# Signs of a gain map: Adobe's and Google's namespaces in XMP (Ultra HDR), and ISO 21496-1.
_GAIN_MAP_XMP, _GAIN_MAP_ISO = b"http://ns.adobe.com/hdr-gain-map/1.0/", b"urn:iso:std:iso:ts:21496:-1\0"
# Dots per inch for one dot per unit of JFIF: inch, centimetre. The third unit only gives the pixel aspect ratio.
_INCHES = {1: 1.0, 2: 2.54}
# Including the name; the last two bytes are the size of the thumbnail.
_JFIF_BYTES = 14
_ADOBE_BYTES = 12
# The application segments that a decoder needs: the colour transform and the ICC profile.
_KEPT = ((0xE0, _JFIF), (0xE2, _PROFILE), (0xEE, b"Adobe"))
# A marker that ends entropy-coded data: not a stuffed zero, a restart, or fill bytes before another marker.
_PROGRESSIVE = 0xC2
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_NO_FILL = re.compile(rb"[^\xff]")
# The search is done in windows, so that other threads can run during a large image.
_WINDOW = 1 << 20


class _JpegWalk:
    """One pass over the segments, and its findings so far."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.view = memoryview(data)
        self.parts: list[bytes | memoryview] = [self.view[:2]]
        self.metadata = False
        self.scans = 0
        self.frame: tuple[int, int, int] | None = None
        self.components: tuple[int, ...] = ()
        self.progressive = False
        self.scan_headers: list[memoryview] = []
        self.unended = False
        self.exif: memoryview | None = None
        self.jfif: memoryview | None = None
        self.extra_pictures = False
        self.profile: list[bytes] = []

    def run(self) -> None:
        """Read up to the end of the image. Raises BadImage.

        If the file ends, or another image begins, in or after the last scan that the image needs, the image counts as
        ended there, since some programs lose only the end marker. Only a decoder can tell if its data are complete.
        """
        at = 2
        try:
            for _ in range(MAX_PARTS):
                at = self._segment(at)
                if at < 0:
                    return
        except BadImage as error:
            if error.code != "truncated_image" or not _is_covered(self):
                raise
            self._break_off()
            return
        raise too_many_parts(NAME)

    def _break_off(self) -> None:
        self.unended = self.metadata = True
        self.parts.append(b"\xff\xd9")

    def _segment(self, at: int) -> int:
        """Process a segment and return the offset of the next one, or -1 after the last."""
        start = self.data.find(b"\xff", at)
        if start < 0:
            raise truncated(NAME)
        # Decoders skip stray bytes between segments; they are dropped together with the metadata.
        self.metadata = self.metadata or start > at
        marker_at = self._find(_NO_FILL, start + 1)
        marker, body = self.data[marker_at], marker_at + 1
        if marker == _EOI:
            self.parts.append(b"\xff\xd9")
            self.metadata = self.metadata or body < len(self.data)
            self.extra_pictures = self.extra_pictures or begins_picture(self.data, body)
            return -1
        if marker in _RESTARTS or marker in (0, _TEM):
            return body
        if marker == _SOI and _is_covered(self):
            self.extra_pictures = True
            self._break_off()
            return -1
        if marker == _SOI:
            raise corrupt(NAME, "a second image begins inside the first")
        end = body + int.from_bytes(self.data[body : body + 2], "big")
        if body + 2 > len(self.data) or end > len(self.data):
            raise truncated(NAME)
        if end < body + 2:
            raise corrupt(NAME, "a segment has no length")
        if marker == _SOS:
            self.scan_headers.append(self.view[body + 2 : end])
            end = self._entropy(end)
        self._take(marker, body + 2, end)
        return end

    def _take(self, marker: int, start: int, end: int) -> None:
        content = self.view[start:end]
        if marker in _FRAMES:
            self._take_frame(marker, content)
        elif marker in _APPLICATION or marker == _COM:
            if marker == 0xE1 and self.exif is None and content[:6] == _EXIF:
                self.exif = content
            if marker == 0xE0 and self.jfif is None and content[:5] == _JFIF:
                self.jfif = content
            if _names_gain_map(marker, content):
                self.extra_pictures = True
            if marker == 0xE2 and content[:12] == _PROFILE:
                self.profile.append(bytes(content[12:]))
            if marker == 0xE2 and len(content) < len(_PROFILE) + 2:
                self.metadata = True
                return
            if not any(marker == kept and content[: len(label)] == label for kept, label in _KEPT):
                self.metadata = True
                return
        if marker == 0xE0 and len(content) > _JFIF_BYTES:
            # After its fixed part a JFIF header may have a thumbnail, which shows the image before it was edited.
            self.metadata = True
            self.parts.append(b"\xff\xe0\x00\x10" + bytes(content[: _JFIF_BYTES - 2]) + b"\0\0")
            return
        if (marker == 0xE0 and len(content) < _JFIF_BYTES) or (marker == 0xEE and len(content) < _ADOBE_BYTES):
            # Too short to contain information, and an error to some decoders.
            self.metadata = True
            return
        if marker == 0xEE and len(content) > _ADOBE_BYTES:
            self.metadata = True
            self.parts.append(b"\xff\xee\x00\x0e" + bytes(content[:_ADOBE_BYTES]))
            return
        self.parts += (bytes((0xFF, marker)), self.view[start - 2 : end])

    def _take_frame(self, marker: int, content: memoryview) -> None:
        if self.frame is not None:
            raise corrupt(NAME, "it has two frame headers")
        if marker not in _COMMON_FRAMES:
            raise BadImage(
                "not_an_image",
                "This JPEG is lossless, hierarchical or arithmetic-coded, which few programs read.",
                "Send a baseline or progressive JPEG or a PNG.",
            )
        precision, height, width, components = struct.unpack_from(">BHHB", content)
        if precision != 8:
            raise BadImage(
                "not_an_image",
                f"This JPEG has {precision} bits per sample, which few programs read.",
                "Send an 8-bit JPEG or a PNG.",
            )
        if not (width and height):
            raise corrupt(NAME, f"its size is {width}x{height}")
        if components not in (1, 3, 4):
            raise corrupt(NAME, f"it has {components} colour components")
        self.frame = width, height, components
        self.components = tuple(content[at] for at in range(6, len(content), 3))[:components]
        self.progressive = marker == _PROGRESSIVE

    def _entropy(self, at: int) -> int:
        """Return the end of the entropy-coded data that starts at `at`. Raises BadImage if the file ends first."""
        if self.frame is None:
            raise corrupt(NAME, "image data comes before the frame header")
        self.scans += 1
        if self.scans > _MAX_SCANS:
            raise corrupt(NAME, f"it has more than {_MAX_SCANS} scans")
        try:
            return self._find(_MARKER, at)
        except BadImage:
            # Without a single 0xFF at the end, which would merge with the marker that is added there.
            return max(at, len(self.data) - self.data.endswith(b"\xff"))

    def _find(self, pattern: re.Pattern[bytes], at: int) -> int:
        """Return the next offset of a pattern of at most two bytes. Raises BadImage if the file ends first."""
        for start in range(at, len(self.data), _WINDOW):
            # Windows overlap by one byte, as a marker may cross the edge between two.
            if found := pattern.search(self.data, start, start + _WINDOW + 1):
                return found.start()
        raise truncated(NAME)


def scan(data: bytes, lenient: bool = False) -> Scan:
    """Read a JPEG's segments up to the end of the image; thumbnails inside segments do not count.

    `lenient` has no effect: the damage that decoders tolerate in a paid result is the same as in an upload.

    A second image after the first (MPO, as written by phones) counts as metadata. Raises BadImage, and struct.error
    for a short frame header.
    """
    walk = _JpegWalk(data)
    walk.run()
    if walk.frame is None or not walk.scans:
        raise corrupt(NAME, "there is no image data in it")
    width, height, components = walk.frame
    profile = _assembled(walk.profile)
    foreign = profile is not None and not icc.is_srgb(profile)
    header = Header(
        format="jpeg",
        width=width,
        height=height,
        orientation=orientation(walk.exif) if walk.exif is not None else 1,
        plain=components != 4 and not foreign and not walk.unended,
        metadata=walk.metadata,
        cmyk=components == 4,
        profile=foreign,
        extra_pictures=walk.extra_pictures,
        density=_density(walk),
    )
    return Scan(header=header, icc=profile if foreign else None, parts=tuple(walk.parts), unended=walk.unended)


def _is_covered(walk: _JpegWalk) -> bool:
    """Whether the scans that have begun contain every coefficient of every component to the last bit.

    An image with more scans than any program writes should not be decoded several times.
    """
    if len(walk.scan_headers) > _USUAL_SCANS:
        return False
    missing: dict[int, list[int]] = {component: [1] * 64 for component in walk.components}
    for header in walk.scan_headers:
        count = header[0] if len(header) else 0
        if len(header) < 4 + 2 * count:
            return False
        first, last, precision = header[1 + 2 * count], header[2 + 2 * count], header[3 + 2 * count] & 15
        if not walk.progressive:
            first, last, precision = 0, 63, 0
        for component in header[1 : 1 + 2 * count : 2]:
            if component in missing:
                for place in range(first, min(last, 63) + 1):
                    missing[component][place] = precision
    return bool(missing) and not any(any(bits) for bits in missing.values())


def _names_gain_map(marker: int, content: memoryview) -> bool:
    if marker == 0xE1 and content[: len(_XMP)] == _XMP:
        return _GAIN_MAP_XMP in bytes(content)
    return marker == 0xE2 and content[: len(_GAIN_MAP_ISO)] == _GAIN_MAP_ISO


def _density(walk: _JpegWalk) -> tuple[float, float] | None:
    """Return the dots per inch, from JFIF if it has a unit, otherwise from EXIF."""
    if walk.jfif is not None and len(walk.jfif) >= _JFIF_BYTES - 2:
        unit, x, y = struct.unpack_from(">BHH", walk.jfif, 7)
        if x and y and unit in _INCHES:
            return x * _INCHES[unit], y * _INCHES[unit]
    return density(walk.exif) if walk.exif is not None else None


def _assembled(pieces: list[bytes]) -> bytes | None:
    """Join the pieces of an ICC profile, each of which begins with its number and the count; None if one is missing."""
    pieces = sorted(pieces, key=lambda piece: piece[:1])
    if not pieces or any(piece[:2] != bytes((i & 0xFF, len(pieces) & 0xFF)) for i, piece in enumerate(pieces, 1)):
        return None
    return b"".join(piece[2:] for piece in pieces)
