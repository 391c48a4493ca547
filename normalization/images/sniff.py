"""What a picture is, read from its own bytes: no library, no decoding, nothing taken on trust."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from normalization.images.formats import avif, gif, jpeg, png, webp
from normalization.images.formats.base import BadImage, Scan, corrupt, truncated
from normalization.values import Format, Header

_WANTED = "Send a PNG, JPEG, WebP, GIF or AVIF instead."
_SMALLER = "Send a smaller one."
_SCANNERS: Mapping[Format, tuple[str, Callable[[bytes, bool], Scan]]] = {
    "png": (png.NAME, png.scan),
    "jpeg": (jpeg.NAME, jpeg.scan),
    "webp": (webp.NAME, webp.scan),
    "gif": (gif.NAME, gif.scan),
    "avif": (avif.NAME, avif.scan),
}
# What people send instead of a picture that we take, by how it begins.
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
    (b"data:image/", "a data URL as text, not the picture that it holds"),
    (b"http://", "an address as text, not the picture behind it"),
    (b"https://", "an address as text, not the picture behind it"),
    (b"ivborw0kgg", "base64 text, not the picture that it holds"),
    (b"/9j/", "base64 text, not the picture that it holds"),
    (b"ukleg", "base64 text, not the picture that it holds"),
)
# For any format; and for a PNG, of which hardly more than the checksums is to be read.
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
    """The largest picture that is taken: `max_pixels` in pixels (width times height), `max_side` in pixels."""

    max_pixels: int
    max_side: int


def sniff(data: bytes, *, lenient: bool = False) -> Header:
    """Read a picture's header and walk its structure to the end, in time linear in its parts; see `scan`.

    Raises BadImage, and nothing else, for whatever bytes these are.
    """
    return scan(data, lenient=lenient).header


def scan(data: bytes, *, lenient: bool = False) -> Scan:
    """The picture's container taken apart; see `Scan`. Raises BadImage and nothing else.

    Damage outside of the pixels is passed over. `lenient` passes over damage around them too, as decoders do: for a
    picture that is paid for it counts whether its pixels decode, and its header is not `plain`, so that somebody tries.
    """
    name, scanner = _SCANNERS[_format(data)]
    try:
        return scanner(data, lenient)
    except (struct.error, IndexError) as error:
        # A part is shorter than the values that belong into it.
        raise corrupt(name, "one of its parts is too short") from error


def instead(data: bytes) -> str | None:
    """What these bytes are in the place of a picture, in a few words; None where they begin like one that is taken."""
    try:
        _format(data)
    except BadImage as error:
        return _describe(data) if error.code == "not_an_image" else None
    return None


def is_quick(data: bytes) -> bool:
    """Whether `scan` surely takes less than a millisecond or so."""
    if len(data) <= _QUICK_BYTES:
        return True
    return len(data) <= _QUICK_PNG_BYTES and data.startswith(png.SIGNATURE) and png.has_few_chunks(data)


def check(header: Header, limits: InputLimits) -> None:
    """Raise BadImage for a picture that is larger than the limits or moves."""
    width, height = header.width, header.height
    if max(width, height) > limits.max_side:
        raise BadImage(
            "image_too_large",
            f"The picture has {width}x{height} pixels, and a side may have at most {limits.max_side:,}.",
            _SMALLER,
        )
    if width * height > limits.max_pixels:
        raise BadImage(
            "image_too_large",
            f"The picture has {width}x{height} pixels, {width * height / 1e6:,.1f} megapixels, and at most "
            f"{limits.max_pixels / 1e6:,.1f} are taken.",
            _SMALLER,
        )
    if header.animated:
        name = _SCANNERS[header.format][0]
        raise BadImage("animated_image", f"This is an animated {name}.", "Send one still picture.")


def _format(data: bytes) -> Format:
    """The format by its signature. Raises BadImage that names what the bytes are instead."""
    if not data:
        raise BadImage("empty_image", "The file is empty.", "Send the bytes of a picture.")
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
    """Raise BadImage where a few bytes are the beginning of a picture."""
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
    return "no picture of a format that we know"


__all__ = ["BadImage", "InputLimits", "Scan", "check", "instead", "scan", "sniff"]
