"""Images in and out of an engine: decoding untrusted data, and lossless encoding."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageCms

from normalization.images.colour import eight_bit, has_deep_key, low_bytes
from normalization.images.formats import png
from normalization.images.formats.exif import upright
from normalization.images.hdr import tone_mapped
from normalization.images.sniff import BadImage, scan
from normalization.values import Hdr
from providers.worker.engines.base import (
    Cancelled,
    EngineFailure,
    InputRejected,
    Output,
    Progress,
    RunCancelled,
    stop_if,
)

if TYPE_CHECKING:
    # Python 3.12 has it in collections.abc.
    from _typeshed import ReadableBuffer as Buffer

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")
OUTPUT_FORMATS: Final = ("png", "webp")
# Keys in `Image.info` for facts about the samples that the file states and Pillow does not report.
_DEPTH: Final = "darkroom_depth"
_HDR: Final = "darkroom_hdr"
_LOW: Final = "darkroom_low_bytes"
_WEBP_MAX_SIDE: Final = 16383
# What Pillow's decoders raise for damaged files.
_CORRUPT: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)


class _Watched(io.BytesIO):
    """A file that stops a cancelled run: codecs access it every 64 KiB, and cannot be interrupted otherwise."""

    def __init__(self, data: bytes, cancelled: Cancelled) -> None:
        super().__init__(data)
        self._cancelled = cancelled

    def read(self, size: int | None = -1, /) -> bytes:
        stop_if(self._cancelled)
        return super().read(size)

    def write(self, data: Buffer, /) -> int:
        stop_if(self._cancelled)
        return super().write(data)


def lift_limit() -> None:
    """Turn off Pillow's own limit on pixels, in a process that only runs a worker.

    Engines check the size of an image against the operator's limit before they decode it. Pillow's limit applies to
    the whole process, so it is not changed by an engine but by the code that starts the process.
    """
    Image.MAX_IMAGE_PIXELS = None


def open_picture(data: bytes, cancelled: Cancelled) -> Image.Image:
    """Read the header of a png, jpeg, webp, gif or avif. Raises EngineFailure for anything else.

    The calling code has to check the size before it decodes the image.
    """
    try:
        picture = Image.open(_Watched(data, cancelled), formats=FORMATS)
        if picture.format == "PNG":
            picture.info[_DEPTH] = png.bit_depth(data)
            picture.info[_LOW] = functools.partial(low_bytes, _Watched(data, cancelled))
        if picture.format in {"PNG", "AVIF"}:
            picture.info[_HDR] = _hdr(data)
        return picture
    except Image.DecompressionBombError as error:
        raise EngineFailure("the picture is too large: it has more pixels than this process decodes") from error
    except _CORRUPT as error:
        raise EngineFailure("the picture cannot be read: it is not a whole png, jpeg, webp, gif or avif") from error


def _hdr(data: bytes) -> tuple[Hdr, int] | None:
    """Return the transfer curve and the primaries of an HDR image; None for other images and for invalid ones."""
    try:
        found = scan(data, lenient=True)
    except BadImage:
        return None
    return None if found.header.hdr is None else (found.header.hdr, found.primaries)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return width and height in pixels, with the EXIF orientation applied."""
    width, height = picture.size
    return (height, width) if _orientation(picture) >= 5 else (width, height)


def decode(picture: Image.Image, progress: Progress) -> Image.Image:
    """Decode to 8-bit L, LA, RGB or RGBA, with the orientation applied, and no metadata except the colour profile.

    Anything else that is lost is reported to `progress`. Raises EngineFailure for corrupt data.
    """
    try:
        if getattr(picture, "is_animated", False):
            progress("the picture is animated: only its first frame is used")
        picture.load()
        # Read it again: a PNG may contain it after its pixels.
        orientation = _orientation(picture)
        profile = picture.info.get("icc_profile")
        plain, profile = _eight_bit(picture, profile, progress)
        plain = upright(plain, orientation)
    except RunCancelled:
        raise
    except _CORRUPT as error:
        raise EngineFailure(f"the picture cannot be decoded: {error}") from error
    plain.info = {"icc_profile": profile} if profile else {}
    return plain


def encode(picture: Image.Image, output_format: str, profile: bytes | None, cancelled: Cancelled) -> Output:
    """Encode losslessly as `png` or `webp`. Raises InputRejected if the size exceeds the limit of webp."""
    if output_format == "webp" and max(picture.size) > _WEBP_MAX_SIDE:
        width, height = picture.size
        raise InputRejected(
            "output_format", f"webp holds sides of up to {_WEBP_MAX_SIDE} pixels, not {width} x {height}"
        )
    stop_if(cancelled)
    buffer = _Watched(b"", cancelled)
    if output_format == "webp":
        # With method 0 the file is already as small as a PNG; `exact` keeps the colours of transparent pixels.
        picture.save(buffer, "WEBP", lossless=True, quality=0, method=0, exact=True, icc_profile=profile or b"")
    else:
        # Level 6 takes four times as long, for a file that is a tenth smaller.
        picture.save(buffer, "PNG", compress_level=1, icc_profile=profile)
    width, height = picture.size
    return Output(data=buffer.getvalue(), mime=f"image/{output_format}", pixels=width * height)


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(0x0112, 1)
    except _CORRUPT:
        # An image with damaged EXIF is still intact; viewers show it as it is stored.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _eight_bit(picture: Image.Image, profile: bytes | None, progress: Progress) -> tuple[Image.Image, bytes | None]:
    """Read the samples as the gateway does, and report the same notes for the client."""
    depth = picture.info.get(_DEPTH, 8)
    if picture.mode == "CMYK":
        return _from_cmyk(picture, profile, progress), None
    if depth > 8:
        progress("the picture has more than 8 bits a sample: it is reduced to 8")
    hdr, low = picture.info.get(_HDR), None
    if depth == 16 and (hdr is not None or has_deep_key(picture)):
        low = picture.info[_LOW]()
    plain = eight_bit(picture, depth, low)
    if hdr is not None:
        progress("the picture is HDR: it is tone-mapped to sRGB")
        curve, primaries = hdr
        return tone_mapped(plain, curve, primaries, low), None
    return plain if plain.mode in {"L", "LA", "RGB", "RGBA"} else plain.convert("RGB"), profile


def _from_cmyk(picture: Image.Image, profile: bytes | None, progress: Progress) -> Image.Image:
    progress("the picture is CMYK: it is converted to RGB")
    if profile:
        try:
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(picture, io.BytesIO(profile), target, outputMode="RGB")
        except ImageCms.PyCMSError as error:
            progress(f"its colour profile cannot be used: {error}")
        else:
            assert converted is not None
            return converted
    return picture.convert("RGB")
