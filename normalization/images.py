"""Whole pictures in and out: what a provider is given, and what the caller is given. Decoding is done here alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image as Pillow

from normalization.encode import encode
from normalization.headers import BadImage, Scan, scan, sniff
from normalization.pixels import pixels_of
from normalization.resize import WHITE, flatten, resize
from normalization.strip import strip
from normalization.values import Format, Header, Image, Resize, Step, Transcode

# What every provider reads.
_COMMON: tuple[Format, ...] = ("png", "jpeg", "webp")
_OPAQUE: tuple[Format, ...] = ("jpeg",)
_TRANSPOSE = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
# A picture of one colour compresses to next to nothing in every format: only such a file is worth a look for black.
_FLAT_BYTES_PER_PIXEL = 0.03
_BLACK_LEVEL = 2
# Nothing larger is decoded unless whoever asks has checked it against a limit of its own. A number of ours: Pillow's
# limit belongs to the whole process, where any library may lift it, and above it Pillow only warns.
MOST_PIXELS = 89_478_485


def load_codecs() -> None:
    """Load every decoder and encoder now, where that cannot wait for the first picture."""
    Pillow.init()


def prepare(image: Image, most: int = MOST_PIXELS) -> Image:
    """The picture as every provider reads it alike: upright, 8-bit sRGB, without metadata, as png, jpeg or webp.

    The very same object where it is so already; only its container is changed where there is metadata alone. Raises
    BadImage where the picture moves, cannot be decoded, or would have to be and has more than `most` pixels.
    """
    header = image.header
    if header.animated:
        raise BadImage("animated_image", f"This is an animated {header.format}.", "Send one still picture.")
    if header.format in _COMMON and header.plain and header.orientation == 1:
        return strip(image)
    # Losslessly, even a JPEG that only lies on its side: a second lossy encoding would be seen by an upscaler, which
    # makes detail out of the blocks.
    return _encoded(_decoded(scan(image.data), most), "png", None)


def finish(
    data: bytes, header: Header, steps: Sequence[Step], most: int = MOST_PIXELS
) -> tuple[Image, tuple[str, ...]]:
    """A provider's picture as the caller wants it, and a sentence for everything that was lost on the way.

    Bytes that are right already stay as they are, but for their metadata; otherwise they are decoded once and encoded
    once. Raises BadImage where they cannot be decoded, would have to be and have more than `most` pixels, or the result
    is too large for the format.
    """
    transcode, resizes = _wanted(header, steps)
    opaque = transcode.opaque or transcode.format in _OPAQUE
    black = _blackness(data, header, most)
    if _may_stay(header, transcode, resizes):
        return strip(Image(data=data, header=header)), (*black, *_unused_quality(transcode))
    notes = [*black, *_losses_of_decoding(header)]
    picture = _decoded(scan(data), most)
    if opaque and picture.mode == "RGBA":
        background = transcode.background or WHITE
        if not transcode.opaque and _alpha_below(picture, 255):
            notes.append(f"Transparent areas were flattened onto {background}: {transcode.format} has no transparency.")
        picture = flatten(picture, background)
    for step in resizes:
        picture = resize(picture, step, transparent=not opaque)
    notes += _losses_of_encoding(picture, transcode.format)
    return _encoded(picture, transcode.format, transcode.quality), tuple(notes)


def is_finished(data: bytes, header: Header, steps: Sequence[Step]) -> bool:
    """Whether `finish` would give these very bytes back, with nothing to say of them: it costs next to nothing then."""
    transcode, resizes = _wanted(header, steps)
    plain = not header.metadata and transcode.quality is None and not _may_be_black(data, header)
    return plain and _may_stay(header, transcode, resizes)


def _wanted(header: Header, steps: Sequence[Step]) -> tuple[Transcode, list[Resize]]:
    last = next((step for step in reversed(steps) if isinstance(step, Transcode)), Transcode(format=header.format))
    return last, [step for step in steps if isinstance(step, Resize)]


def _may_stay(header: Header, transcode: Transcode, resizes: Iterable[Resize]) -> bool:
    opaque = transcode.opaque or transcode.format in _OPAQUE
    return _is_right(header, transcode.format, resizes) and not (opaque and header.alpha)


def _is_right(header: Header, wanted: Format, resizes: Iterable[Resize]) -> bool:
    """Whether the bytes need no decoding for their format, size, position and colours."""
    return (
        header.format == wanted
        and header.plain
        and header.orientation == 1
        and all((step.size.width, step.size.height) == (header.width, header.height) for step in resizes)
    )


def _blackness(data: bytes, header: Header, most: int) -> tuple[str, ...]:
    """What to say of a picture that is black all over. Providers blank what their filters refuse, and call it done."""
    if not _may_be_black(data, header):
        return ()
    grey = _decoded(scan(data), most).convert("L")
    if grey.histogram()[_BLACK_LEVEL + 1 :] != [0] * (255 - _BLACK_LEVEL):
        return ()
    return ("The picture is black all over: the provider's safety filter may have blanked it.",)


def _may_be_black(data: bytes, header: Header) -> bool:
    return len(data) <= header.width * header.height * _FLAT_BYTES_PER_PIXEL


def _decoded(found: Scan, most: int = MOST_PIXELS) -> Pillow.Image:
    """The pixels, upright and in sRGB, in mode L, RGB or RGBA; the first frame of several. Raises BadImage."""
    header = found.header
    if header.width * header.height > most:
        raise BadImage(
            "image_too_large",
            f"The picture has {header.width}x{header.height} pixels, more than {most / 1e6:.1f} megapixels.",
            "Send a smaller one.",
        )
    picture = pixels_of(found)
    if header.orientation != 1:
        picture = picture.transpose(_TRANSPOSE[header.orientation])
    # A file object would carry its decoder and its frames into the encoder; what was derived from it is plain pixels.
    return picture if picture.format is None else picture.copy()


def _encoded(picture: Pillow.Image, fmt: Format, quality: int | None) -> Image:
    data = encode(picture, fmt, quality)
    return Image(data=data, header=sniff(data))


def _unused_quality(transcode: Transcode) -> tuple[str, ...]:
    if transcode.quality is None:
        return ()
    reason = f"the picture came as {transcode.format} already, and encoding it again would only lose detail"
    return (f"The quality of {transcode.quality} was not applied: {reason}.",)


def _losses_of_decoding(header: Header) -> Iterable[str]:
    if header.animated:
        yield "Only the first frame was kept: the picture was animated."
    if not header.plain:
        yield "The colours were converted to 8-bit sRGB."


def _losses_of_encoding(picture: Pillow.Image, fmt: Format) -> Iterable[str]:
    if fmt != "gif" or picture.mode == "L":
        return
    yield "The colours were reduced to 256: gif has no more."
    if picture.mode == "RGBA" and any(picture.getchannel("A").histogram()[1:255]):
        yield "Half-transparent areas became transparent or opaque: gif has nothing between."


def _alpha_below(picture: Pillow.Image, limit: int) -> bool:
    return any(picture.getchannel("A").histogram()[:limit])
