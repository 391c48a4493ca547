"""Prepares images for one route: without transparency that it would drop, and within its size limit.

Decodes and encodes, so it runs in the image pool, never on the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image as Pillow

from normalization.images.encode import MAX_SIDE, encode, encode_lossless_webp, flatten
from normalization.images.sniff import BadImage, scan, sniff
from normalization.images.transform import MOST_PIXELS, decoded
from normalization.values import WHITE, Format, Image, Sending

# At this quality upscalers treat a JPEG like the original: full chroma resolution, no visible blocks.
_JPEG_QUALITY = 95
_BLACK_LEVEL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """An image as it is sent. `alpha` is the removed alpha channel, as a grey PNG; `black` is true if the image is
    entirely black; `notes` are sentences on what was changed.
    """

    image: Image
    alpha: bytes | None = field(default=None, repr=False)
    black: bool = False
    notes: tuple[str, ...] = ()


def ready(image: Image, sending: Sending, most: int = MOST_PIXELS) -> PreparedImage:
    """The image as one route needs it; the same object if nothing has to change.

    Raises BadImage if it cannot be decoded or has more than `most` pixels, and with the code `image_too_large` if no
    encoding is small enough.
    """
    transparent = image.header.alpha and (sending.split or sending.flatten is not None)
    if not transparent and _fits(image, sending):
        return PreparedImage(image=image)
    picture = decoded(scan(image.data), most)
    alpha, black = None, False
    if transparent and picture.mode == "RGBA":
        if sending.split:
            alpha = encode(picture.getchannel("A"), "png")
            picture = bled(picture)
            black = not any(any(band.histogram()[_BLACK_LEVEL + 1 :]) for band in picture.split())
        else:
            picture = flatten(picture, sending.flatten or WHITE)
    made, notes = _encoded(picture, sending)
    return PreparedImage(image=made, alpha=alpha, black=black, notes=notes)


def bled(picture: Pillow.Image) -> Pillow.Image:
    """An RGBA image as RGB, with the colours of visible areas extended into invisible ones.

    Blurring or enlarging the result brings no other colour to an edge. Uses a pyramid: each level has the mean colour
    of the visible pixels among four pixels of the previous one, and fills its holes from the next one.
    """
    levels = [_solid(picture)]
    while max(levels[-1].size) > 1:
        last = levels[-1]
        size = ((last.width + 1) // 2, (last.height + 1) // 2)
        # Premultiplied, so that invisible pixels have no weight.
        levels.append(_solid(last.convert("RGBa").resize(size, Pillow.Resampling.BOX).convert("RGBA")))
    below = Pillow.new("RGB", levels[-1].size, WHITE)
    for level in reversed(levels):
        under = below.resize(level.size, Pillow.Resampling.BILINEAR)
        below = Pillow.composite(level.convert("RGB"), under, level.getchannel("A"))
    return below


def _solid(picture: Pillow.Image) -> Pillow.Image:
    """The image with every visible pixel made opaque."""
    solid = picture.copy()
    solid.putalpha(picture.getchannel("A").point([0] + [255] * 255))
    return solid


def _fits(image: Image, sending: Sending) -> bool:
    small = sending.max_bytes is None or len(image.data) <= sending.max_bytes
    return small and image.format in sending.formats


def _encoded(picture: Pillow.Image, sending: Sending) -> tuple[Image, tuple[str, ...]]:
    """The image in the first encoding that the route accepts and that is small enough, lossless if possible."""
    forms: list[tuple[Format, str]] = [("png", ""), ("jpeg", f"JPEG of quality {_JPEG_QUALITY}"), ("webp", "WebP")]
    smallest = 0
    for fmt, name in forms:
        if fmt not in sending.formats or not _holds(fmt, picture):
            continue
        image = _as(picture, fmt)
        if _fits(image, sending):
            note = f"The image was sent as {name}: as PNG it exceeds {sending.max_bytes or 0:,} bytes."
            return image, (note,) if smallest else ()
        smallest = min(smallest or len(image.data), len(image.data))
    raise BadImage(
        "image_too_large",
        f"The image has {smallest:,} bytes in the smallest encoding that keeps its quality; the provider's limit is "
        f"{sending.max_bytes or 0:,} bytes. Send a smaller image.",
    )


def _holds(fmt: Format, picture: Pillow.Image) -> bool:
    transparent = picture.mode == "RGBA"
    return not (fmt == "jpeg" and transparent) and max(picture.size) <= MAX_SIDE.get(fmt, max(picture.size))


def _as(picture: Pillow.Image, fmt: Format) -> Image:
    data = encode_lossless_webp(picture) if fmt == "webp" else encode(picture, fmt, _quality(fmt))
    return Image(data=data, header=sniff(data))


def _quality(fmt: Format) -> int | None:
    return _JPEG_QUALITY if fmt == "jpeg" else None
