"""Operations on whole images: preparing them for providers, finishing results, stripping metadata, decoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from PIL import Image as Pillow

from normalization.images.density import with_density
from normalization.images.encode import encode, fits_palette, flatten, losses, resize
from normalization.images.fitting import resize_notes, result_of
from normalization.images.formats.base import BadImage, Scan
from normalization.images.formats.exif import upright
from normalization.images.pixels import pixels_of
from normalization.images.sniff import scan, sniff
from normalization.values import OPAQUE, WHITE, Format, Header, Image, JoinAlpha, Resize, Size, Step, Transcode


def strip(image: Image) -> Image:
    """The image without EXIF, XMP, IPTC, comments, text, timestamps and trailing bytes.

    The pixel data is unchanged byte for byte, as is everything needed to read it (palette, transparency, profile).
    Returns the same object if there is nothing to remove. In AVIF the metadata is blanked in place, because offsets
    count from the start of the file.

    Raises ValueError for an orientation other than 1, because the image would be shown rotated without its metadata,
    and BadImage if the bytes contradict the header.
    """
    if not image.header.metadata:
        return image
    if image.header.orientation != 1:
        raise ValueError(f"cannot strip the metadata of an image with orientation {image.header.orientation}")
    found = scan(image.data)
    data = b"".join(found.parts)
    header = replace(found.header, metadata=False, extra_pictures=False)
    if header.density is not None:
        # It may have been in the EXIF only.
        header = replace(header, density=sniff(data).density)
    return Image(data=data, header=header)


# Nothing larger is decoded, unless the caller has checked another limit. Pillow's own limit is not used: it is global,
# any library may lift it, and Pillow only warns above it.
MOST_PIXELS = 89_478_485


def load_codecs() -> None:
    """Load every decoder and encoder now, for processes that cannot open files later."""
    Pillow.init()


def decoded(found: Scan, most: int = MOST_PIXELS) -> Pillow.Image:
    """The pixels, upright and in sRGB, in mode L, RGB or RGBA; of an animation the first frame. Raises BadImage."""
    header = found.header
    if header.width * header.height > most:
        raise BadImage(
            "image_too_large",
            f"The image is {header.width}x{header.height} pixels; the limit is {most / 1e6:.1f} megapixels.",
            "Send a smaller image.",
        )
    picture = upright(pixels_of(found), header.orientation)
    # A copy, because Pillow's file object would carry its decoder and frames into the encoder.
    return picture if picture.format is None else picture.copy()


# The formats that every provider reads.
_COMMON: tuple[Format, ...] = ("png", "jpeg", "webp")
# An image of one colour is tiny in every format: only such files are checked for being black.
_FLAT_BYTES_PER_PIXEL = 0.03
_BLACK_LEVEL = 2


def prepare(image: Image, most: int = MOST_PIXELS) -> Image:
    """The image in a form that all providers read the same way: upright 8-bit sRGB png, jpeg or webp, no metadata.

    Returns the same object if nothing has to change; if only metadata has to go, the pixel data is unchanged. Raises
    BadImage if the image is animated, cannot be decoded, or has to be decoded and has more than `most` pixels.
    """
    header = image.header
    if header.animated:
        raise BadImage("animated_image", f"This is an animated {header.format}.", "Send a still image.")
    if header.format in _COMMON and header.plain and header.orientation == 1:
        stripped = strip(image)
        if not header.alpha or _alpha_below(decoded(scan(stripped.data), most), 255):
            return stripped
        # A fully opaque alpha channel has no effect: the bytes stay unchanged.
        return replace(stripped, header=replace(stripped.header, alpha=False))
    # Losslessly, even for a rotated JPEG: an upscaler would turn the blocks of a second lossy encoding into detail.
    return _encoded(_without_opaque_alpha(decoded(scan(image.data), most)), "png", None)


def finish(
    data: bytes, header: Header, steps: Sequence[Step], most: int = MOST_PIXELS
) -> tuple[Image, tuple[str, ...]]:
    """A provider's image in the form that the client requested, and a sentence for everything that was lost.

    A file that already matches is only stripped of its metadata; otherwise it is decoded once and encoded once. The
    result's `alpha` says whether anything is transparent. Raises BadImage if the image cannot be decoded, has to be
    decoded and has more than `most` pixels, or is too large for the format.
    """
    transcode, resizes = _wanted(header, steps)
    opaque = transcode.opaque or transcode.format in OPAQUE
    joins = [step for step in steps if isinstance(step, JoinAlpha)]
    black = () if any(step.black for step in joins) else _blackness(data, header, most)
    picture = _without_opaque_alpha(decoded(scan(data, lenient=True), most)) if header.alpha else None
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
        notes += resize_notes(Size(width=picture.width, height=picture.height), step) if step.tell else ()
        picture = resize(picture, step, transparent=not opaque)
    # The transparent parts may have been cropped.
    picture = _without_opaque_alpha(picture) if resizes else picture
    notes += _losses_of_encoding(picture, transcode.format)
    return _encoded(picture, transcode.format, transcode.quality, transcode.density), tuple(notes)


def is_finished(data: bytes, header: Header, steps: Sequence[Step]) -> bool:
    """Whether `finish` would return these bytes unchanged and without notes, which costs almost nothing."""
    transcode, resizes = _wanted(header, steps)
    plain = not header.metadata and transcode.quality is None and not _may_be_black(data, header)
    # An image with an alpha channel has to be decoded: it may be fully opaque.
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
    """Whether format, size, orientation and colours are right without decoding."""
    here = Size(width=header.width, height=header.height)
    return (
        header.format == wanted
        and header.plain
        and header.orientation == 1
        and all(result_of(here, step) == here for step in resizes)
    )


def _blackness(data: bytes, header: Header, most: int) -> tuple[str, ...]:
    """A note for an entirely black image: providers blank what their filters refuse, and report success."""
    if not _may_be_black(data, header):
        return ()
    picture = decoded(scan(data, lenient=True), most)
    if picture.mode == "RGBA" and _alpha_below(picture, 255):
        return ()  # a black drawing on a transparent background
    grey = picture.convert("L")
    if grey.histogram()[_BLACK_LEVEL + 1 :] != [0] * (255 - _BLACK_LEVEL):
        return ()
    return ("The image is entirely black: the provider's safety filter may have blanked it.",)


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
    reason = f"the provider's image is already {transcode.format}, and encoding it again would only lose detail"
    return (f"The quality of {transcode.quality} was not applied: {reason}.",)


def _losses_of_decoding(header: Header) -> Iterable[str]:
    if header.animated:
        yield "Only the first frame was kept: the image was animated."
    yield from losses(header)


def _losses_of_encoding(picture: Pillow.Image, fmt: Format) -> Iterable[str]:
    if fmt != "gif":
        return
    if not fits_palette(picture):
        yield "The colours were reduced to 256, the maximum of gif."
    if picture.mode == "RGBA" and any(picture.getchannel("A").histogram()[1:255]):
        yield "Semi-transparent areas became transparent or opaque: gif has no partial transparency."


def _joined(picture: Pillow.Image, alpha: bytes | None) -> tuple[Pillow.Image, tuple[str, ...]]:
    """The result with the input's alpha channel, enlarged to its size, and notes."""
    if alpha is None:
        return picture, ("The image's transparency was lost: the gateway was restarted before the image was finished.",)
    found = scan(alpha)
    # It has the size of the input, which was checked; the result may be smaller.
    channel = decoded(found, found.header.width * found.header.height).convert("L")
    if abs(channel.width * picture.height - channel.height * picture.width) > _slack(channel, picture):
        return picture, ("The image's transparency was lost: the provider's image has a different aspect ratio.",)
    if channel.size != picture.size:
        channel = channel.resize(picture.size, Pillow.Resampling.LANCZOS)
    joined = picture.convert("RGB")
    joined.putalpha(channel)
    return joined, ()


def _slack(one: Pillow.Image, other: Pillow.Image) -> float:
    """The tolerated difference between the cross products of width and height for two images of the same aspect ratio:
    2 %, or 8 pixels, the block size of many models."""
    return max(0.02 * one.width * other.height, 8 * max(one.size))


def _without_opaque_alpha(picture: Pillow.Image) -> Pillow.Image:
    """The image without its alpha channel, if that is fully opaque."""
    if picture.mode != "RGBA" or _alpha_below(picture, 255):
        return picture
    return picture.convert("RGB")


def _alpha_below(picture: Pillow.Image, limit: int) -> bool:
    """Whether any pixel's alpha is below the limit; the image may have any mode."""
    return picture.mode == "RGBA" and any(picture.getchannel("A").histogram()[:limit])
