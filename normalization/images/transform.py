"""Whole images in and out: prepared for a provider, finished for the client; metadata stripped, pixels decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from PIL import Image as Pillow

from normalization.images.density import with_density
from normalization.images.encode import encode, fits_palette, flatten, losses, resize
from normalization.images.fitting import result_of, told
from normalization.images.formats.base import BadImage, Scan
from normalization.images.formats.exif import upright
from normalization.images.pixels import pixels_of
from normalization.images.sniff import scan, sniff
from normalization.values import OPAQUE, WHITE, Format, Header, Image, JoinAlpha, Resize, Size, Step, Transcode


def strip(image: Image) -> Image:
    """The same picture without EXIF, XMP, IPTC, comments, text, timestamps and bytes behind its end.

    The pixel data stays byte for byte, and so does all that it needs to be read (palette, transparency, profile). The
    very same object comes back where there is nothing to remove. In AVIF the metadata is blanked in place, as its
    offsets count from the beginning of the file.

    Raises ValueError for a picture that its metadata turns (an orientation other than 1), as it would be seen to lie on
    its side afterwards, and BadImage where the bytes are not what the header says.
    """
    if not image.header.metadata:
        return image
    if image.header.orientation != 1:
        raise ValueError(f"a picture of orientation {image.header.orientation} cannot lose its metadata")
    found = scan(image.data)
    data = b"".join(found.parts)
    header = replace(found.header, metadata=False, extra_pictures=False)
    if header.density is not None:
        # It may have stood in the EXIF alone.
        header = replace(header, density=sniff(data).density)
    return Image(data=data, header=header)


# Nothing larger is decoded unless whoever asks has checked it against a limit of its own. A number of ours: Pillow's
# limit belongs to the whole process, where any library may lift it, and above it Pillow only warns.
MOST_PIXELS = 89_478_485


def load_codecs() -> None:
    """Load every decoder and encoder now, where that cannot wait for the first picture."""
    Pillow.init()


def decoded(found: Scan, most: int = MOST_PIXELS) -> Pillow.Image:
    """The pixels, upright and in sRGB, in mode L, RGB or RGBA; the first frame of several. Raises BadImage."""
    header = found.header
    if header.width * header.height > most:
        raise BadImage(
            "image_too_large",
            f"The picture has {header.width}x{header.height} pixels, more than {most / 1e6:.1f} megapixels.",
            "Send a smaller one.",
        )
    picture = upright(pixels_of(found), header.orientation)
    # A file object would carry its decoder and its frames into the encoder; what was derived from it is plain pixels.
    return picture if picture.format is None else picture.copy()


# What every provider reads.
_COMMON: tuple[Format, ...] = ("png", "jpeg", "webp")
# A picture of one colour compresses to next to nothing in every format: only such a file is worth a look for black.
_FLAT_BYTES_PER_PIXEL = 0.03
_BLACK_LEVEL = 2


def prepare(image: Image, most: int = MOST_PIXELS) -> Image:
    """The picture as every provider reads it alike: upright, 8-bit sRGB, without metadata, as png, jpeg or webp.

    The very same object where it is so already; only its container is changed where there is metadata alone. Raises
    BadImage where the picture moves, cannot be decoded, or would have to be and has more than `most` pixels.
    """
    header = image.header
    if header.animated:
        raise BadImage("animated_image", f"This is an animated {header.format}.", "Send one still picture.")
    if header.format in _COMMON and header.plain and header.orientation == 1:
        stripped = strip(image)
        if not header.alpha or _alpha_below(decoded(scan(stripped.data), most), 255):
            return stripped
        # An alpha channel that is opaque everywhere says nothing: the bytes may stay as they are.
        return replace(stripped, header=replace(stripped.header, alpha=False))
    # Losslessly, even a JPEG that only lies on its side: a second lossy encoding would be seen by an upscaler, which
    # makes detail out of the blocks.
    return _encoded(_without_idle_alpha(decoded(scan(image.data), most)), "png", None)


def finish(
    data: bytes, header: Header, steps: Sequence[Step], most: int = MOST_PIXELS
) -> tuple[Image, tuple[str, ...]]:
    """A provider's picture as the caller wants it, and a sentence for everything that was lost on the way.

    Bytes that are right already stay as they are, but for their metadata; otherwise they are decoded once and encoded
    once. The picture's `alpha` says afterwards whether anything in it is transparent. Raises BadImage where they cannot
    be decoded, would have to be and have more than `most` pixels, or the result is too large for the format.
    """
    transcode, resizes = _wanted(header, steps)
    opaque = transcode.opaque or transcode.format in OPAQUE
    joins = [step for step in steps if isinstance(step, JoinAlpha)]
    black = () if any(step.black for step in joins) else _blackness(data, header, most)
    picture = _without_idle_alpha(decoded(scan(data, lenient=True), most)) if header.alpha else None
    if picture is not None and picture.mode != "RGBA":
        header = replace(header, alpha=False)
    if not joins and _may_stay(header, transcode, resizes):
        stripped = strip(Image(data=data, header=header))
        kept = replace(stripped, header=replace(stripped.header, alpha=header.alpha))
        if transcode.density is not None and kept.header.density != transcode.density:
            kept = with_density(kept, transcode.density)
        return kept, (*black, *_unused_quality(transcode))
    notes = [*black, *_losses_of_decoding(header)]
    picture = picture or decoded(scan(data, lenient=True), most)
    for join in joins:
        picture, lost = _joined(picture, join.alpha)
        notes += lost
    if opaque and picture.mode == "RGBA":
        background = transcode.background or WHITE
        if not transcode.opaque and _alpha_below(picture, 255):
            notes.append(f"Transparent areas were flattened onto {background}: {transcode.format} has no transparency.")
        picture = flatten(picture, background)
    for step in resizes:
        notes += told(Size(width=picture.width, height=picture.height), step) if step.tell else ()
        picture = resize(picture, step, transparent=not opaque)
    # What was transparent may have been cut off.
    picture = _without_idle_alpha(picture) if resizes else picture
    notes += _losses_of_encoding(picture, transcode.format)
    return _encoded(picture, transcode.format, transcode.quality, transcode.density), tuple(notes)


def is_finished(data: bytes, header: Header, steps: Sequence[Step]) -> bool:
    """Whether `finish` would give these very bytes back, with nothing to say of them: it costs next to nothing then."""
    transcode, resizes = _wanted(header, steps)
    plain = not header.metadata and transcode.quality is None and not _may_be_black(data, header)
    # What has an alpha channel is looked at: it may be opaque all over.
    plain = plain and not header.alpha and not any(isinstance(step, JoinAlpha) for step in steps)
    plain = plain and transcode.density in (None, header.density)
    return plain and _may_stay(header, transcode, resizes)


def _wanted(header: Header, steps: Sequence[Step]) -> tuple[Transcode, list[Resize]]:
    last = next((step for step in reversed(steps) if isinstance(step, Transcode)), Transcode(format=header.format))
    return last, [step for step in steps if isinstance(step, Resize)]


def _may_stay(header: Header, transcode: Transcode, resizes: Iterable[Resize]) -> bool:
    opaque = transcode.opaque or transcode.format in OPAQUE
    return _is_right(header, transcode.format, resizes) and not (opaque and header.alpha)


def _is_right(header: Header, wanted: Format, resizes: Iterable[Resize]) -> bool:
    """Whether the bytes need no decoding for their format, size, position and colours."""
    here = Size(width=header.width, height=header.height)
    return (
        header.format == wanted
        and header.plain
        and header.orientation == 1
        and all(result_of(here, step) == here for step in resizes)
    )


def _blackness(data: bytes, header: Header, most: int) -> tuple[str, ...]:
    """What to say of a picture that is black all over. Providers blank what their filters refuse, and call it done."""
    if not _may_be_black(data, header):
        return ()
    picture = decoded(scan(data, lenient=True), most)
    if picture.mode == "RGBA" and _alpha_below(picture, 255):
        return ()  # a drawing in black on nothing
    grey = picture.convert("L")
    if grey.histogram()[_BLACK_LEVEL + 1 :] != [0] * (255 - _BLACK_LEVEL):
        return ()
    return ("The picture is black all over: the provider's safety filter may have blanked it.",)


def _may_be_black(data: bytes, header: Header) -> bool:
    return len(data) <= header.width * header.height * _FLAT_BYTES_PER_PIXEL


def _encoded(
    picture: Pillow.Image, fmt: Format, quality: int | None, density: tuple[float, float] | None = None
) -> Image:
    data = encode(picture, fmt, quality, density)
    return Image(data=data, header=sniff(data))


def _unused_quality(transcode: Transcode) -> tuple[str, ...]:
    if transcode.quality is None:
        return ()
    reason = f"the picture came as {transcode.format} already, and encoding it again would only lose detail"
    return (f"The quality of {transcode.quality} was not applied: {reason}.",)


def _losses_of_decoding(header: Header) -> Iterable[str]:
    if header.animated:
        yield "Only the first frame was kept: the picture was animated."
    yield from losses(header)


def _losses_of_encoding(picture: Pillow.Image, fmt: Format) -> Iterable[str]:
    if fmt != "gif":
        return
    if not fits_palette(picture):
        yield "The colours were reduced to 256: gif has no more."
    if picture.mode == "RGBA" and any(picture.getchannel("A").histogram()[1:255]):
        yield "Half-transparent areas became transparent or opaque: gif has nothing between."


def _joined(picture: Pillow.Image, alpha: bytes | None) -> tuple[Pillow.Image, tuple[str, ...]]:
    """A result with the alpha channel of the picture that was sent, enlarged to its size, and what to say of it."""
    if alpha is None:
        return picture, ("The picture's transparency was lost: the gateway was restarted before it was finished.",)
    found = scan(alpha)
    # It is as large as what was sent, which has been checked; the result may be smaller.
    channel = decoded(found, found.header.width * found.header.height).convert("L")
    if abs(channel.width * picture.height - channel.height * picture.width) > _slack(channel, picture):
        return picture, ("The picture's transparency was lost: the provider's picture has another shape.",)
    if channel.size != picture.size:
        channel = channel.resize(picture.size, Pillow.Resampling.LANCZOS)
    joined = picture.convert("RGB")
    joined.putalpha(channel)
    return joined, ()


def _slack(one: Pillow.Image, other: Pillow.Image) -> float:
    """How much the product of one's width and the other's height may differ for two pictures of the same shape: two
    hundredths, or a block of 8 pixels of a model that works in blocks."""
    return max(0.02 * one.width * other.height, 8 * max(one.size))


def _without_idle_alpha(picture: Pillow.Image) -> Pillow.Image:
    """The picture without an alpha channel that is opaque everywhere."""
    if picture.mode != "RGBA" or _alpha_below(picture, 255):
        return picture
    return picture.convert("RGB")


def _alpha_below(picture: Pillow.Image, limit: int) -> bool:
    """Whether anything of a picture in any mode is more transparent than that."""
    return picture.mode == "RGBA" and any(picture.getchannel("A").histogram()[:limit])
