"""Detects an image's format and properties from its bytes, without a library, decoding or trust in the input."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from normalization.images.formats import avif, gif, jpeg, png, webp
from normalization.images.formats.base import BadImage, Scan, corrupt, truncated
from normalization.values import Format, Header

_WANTED = "Send a PNG, JPEG, WebP, GIF or AVIF instead."
_SMALLER = "Send a smaller image."
_SCANNERS: Mapping[Format, tuple[str, Callable[[bytes, bool], Scan]]] = {
    "png": (png.NAME, png.scan),
    "jpeg": (jpeg.NAME, jpeg.scan),
    "webp": (webp.NAME, webp.scan),
    "gif": (gif.NAME, gif.scan),
    "avif": (avif.NAME, avif.scan),
}
# Signatures of other files that people send.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF or a camera's raw file"),
    (b"MM\0*", "a TIFF or a camera's raw file"),
    (b"II+\0", "a TIFF"),
    (b"MM\0+", "a TIFF"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a video"),
)
_TEXTS: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "an SVG drawing"),
    (b"<!doctype svg", "an SVG drawing"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"{", "JSON text"),
    (b"[", "JSON text"),
    (b"data:image/", "a data URL as text, not the image in it"),
    (b"http://", "a URL as text, not the image behind it"),
    (b"https://", "a URL as text, not the image behind it"),
    (b"ivborw0kgg", "base64 text, not the decoded image"),
    (b"/9j/", "base64 text, not the decoded image"),
    (b"ukleg", "base64 text, not the decoded image"),
)
# For any format, and for PNG, which is read quickly: little more than checksums.
_QUICK_BYTES, _QUICK_PNG_BYTES = 64 << 10, 1 << 20
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
_AVIF = frozenset({b"avif", b"avis"})
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (png.SIGNATURE, png.NAME),
    (jpeg.SIGNATURE + b"\xff", jpeg.NAME),
    (gif.SIGNATURES[0], gif.NAME),
    (gif.SIGNATURES[1], gif.NAME),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    """The largest accepted image: `max_pixels` is width times height, `max_side` is in pixels."""

    max_pixels: int
    max_side: int


def sniff(data: bytes, *, lenient: bool = False) -> Header:
    """Read an image's header and check its structure, in time linear in its parts; see `scan`.

    Raises only BadImage, for any input.
    """
    return scan(data, lenient=lenient).header


def scan(data: bytes, *, lenient: bool = False) -> Scan:
    """Parse the image's container; see `Scan`. Raises only BadImage.

    Damage outside the pixel data is tolerated. `lenient` also tolerates damage around it, as decoders do: an image that
    has been paid for is good if its pixels decode. Its header is then not `plain`, so that it will be decoded.
    """
    name, scanner = _SCANNERS[_format(data)]
    try:
        return scanner(data, lenient)
    except (struct.error, IndexError) as error:
        # A part is shorter than the values it must contain.
        raise corrupt(name, "one of its parts is too short") from error


def instead(data: bytes) -> str | None:
    """A short description of bytes that are not an image; None if they start like a supported image."""
    try:
        _format(data)
    except BadImage as error:
        return _describe(data) if error.code == "not_an_image" else None
    return None


def is_quick(data: bytes) -> bool:
    """Whether `scan` certainly takes only about a millisecond or less."""
    if len(data) <= _QUICK_BYTES:
        return True
    return len(data) <= _QUICK_PNG_BYTES and data.startswith(png.SIGNATURE) and png.has_few_chunks(data)


def check(header: Header, limits: InputLimits) -> None:
    """Raise BadImage for an image that exceeds the limits or is animated."""
    width, height = header.width, header.height
    if max(width, height) > limits.max_side:
        raise BadImage(
            "image_too_large",
            f"The image is {width}x{height} pixels; the limit is {limits.max_side:,} pixels per side.",
            _SMALLER,
        )
    if width * height > limits.max_pixels:
        raise BadImage(
            "image_too_large",
            f"The image is {width}x{height} pixels ({width * height / 1e6:,.1f} megapixels); the limit is "
            f"{limits.max_pixels / 1e6:,.1f} megapixels.",
            _SMALLER,
        )
    if header.animated:
        name = _SCANNERS[header.format][0]
        raise BadImage("animated_image", f"This is an animated {name}.", "Send a still image.")


def _format(data: bytes) -> Format:
    """The format, by its signature. Raises BadImage that describes what the bytes are instead."""
    if not data:
        raise BadImage("empty_image", "The file is empty.", "Send the bytes of an image.")
    if data.startswith(png.SIGNATURE):
        return "png"
    if data.startswith(jpeg.SIGNATURE + b"\xff"):
        return "jpeg"
    if data.startswith(gif.SIGNATURES):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp" and _AVIF & _brands(data):
        return "avif"
    if len(data) < 12:
        _refuse_beginning(data)
    raise BadImage("not_an_image", f"This is {_describe(data)}.", _WANTED)


def _refuse_beginning(data: bytes) -> None:
    """Raise BadImage if a few bytes are the beginning of an image."""
    for signature, name in _SIGNATURES:
        if signature.startswith(data):
            raise truncated(name)
    if b"RIFF".startswith(data[:4]) and len(data) != 1:
        raise truncated(webp.NAME)
    if data[:3] == b"\0\0\0" and b"ftyp".startswith(data[4:8]):
        raise truncated(avif.NAME)


def _brands(data: bytes) -> frozenset[bytes]:
    """The brands of an ISO media file: the major one and the first 96 compatible ones."""
    end = min(int.from_bytes(data[:4], "big"), 400)
    return frozenset((data[8:12], *(data[at : at + 4] for at in range(16, end, 4))))


def _describe(data: bytes) -> str:
    for signature, name in _OTHERS:
        if data.startswith(signature):
            return name
    if data[4:8] == b"ftyp":
        return "a HEIC photo" if _HEIF & _brands(data) else "a video"
    text = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, name in _TEXTS:
        if text.startswith(beginning):
            return name
    if text.startswith((b"<?xml", b"<!--")):
        return "an SVG drawing" if b"<svg" in text else "an XML document"
    return "not an image in a supported format"


__all__ = ["BadImage", "InputLimits", "Scan", "check", "instead", "scan", "sniff"]
