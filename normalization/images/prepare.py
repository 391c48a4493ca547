"""Pictures made ready for one route: without the transparency that it drops, and no larger than it takes.

Decodes and encodes: it is run where pictures are decoded, and never on the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image as Pillow

from normalization.images.encode import MAX_SIDE, encode, encode_lossless_webp, flatten
from normalization.images.sniff import BadImage, scan, sniff
from normalization.images.transform import MOST_PIXELS, decoded
from normalization.values import WHITE, Format, Image, Sending

# Above it a JPEG is not told from the picture by what is made of it: no chroma is left out, no block is seen.
_JPEG_QUALITY = 95
_BLACK_LEVEL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """A picture as it is sent. `alpha` is the channel that was taken off, as a grey PNG; `black` says that the colours
    are black all over; `notes` are sentences on what was done to it.
    """

    image: Image
    alpha: bytes | None = field(default=None, repr=False)
    black: bool = False
    notes: tuple[str, ...] = ()


def ready(image: Image, sending: Sending, most: int = MOST_PIXELS) -> PreparedImage:
    """A picture that was prepared, as a route is to be sent it; the very same object where that is right already.

    Raises BadImage where it cannot be decoded or has more than `most` pixels, and with the code `image_too_large` where
    no encoding of it is small enough.
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
    """An RGBA picture as RGB: below invisible areas the colours of what is visible beside them.

    Whatever blurs or enlarges such a picture finds no foreign colour behind an edge. Pyramids: each level has the mean
    colour of what is visible in four pixels of the one before, and fills its holes from the next one.
    """
    levels = [_solid(picture)]
    while max(levels[-1].size) > 1:
        last = levels[-1]
        size = ((last.width + 1) // 2, (last.height + 1) // 2)
        # In premultiplied form invisible pixels have no weight.
        levels.append(_solid(last.convert("RGBa").resize(size, Pillow.Resampling.BOX).convert("RGBA")))
    below = Pillow.new("RGB", levels[-1].size, WHITE)
    for level in reversed(levels):
        under = below.resize(level.size, Pillow.Resampling.BILINEAR)
        below = Pillow.composite(level.convert("RGB"), under, level.getchannel("A"))
    return below


def _solid(picture: Pillow.Image) -> Pillow.Image:
    """Whatever is visible at all, opaque."""
    solid = picture.copy()
    solid.putalpha(picture.getchannel("A").point([0] + [255] * 255))
    return solid


def _fits(image: Image, sending: Sending) -> bool:
    small = sending.max_bytes is None or len(image.data) <= sending.max_bytes
    return small and image.format in sending.formats


def _encoded(picture: Pillow.Image, sending: Sending) -> tuple[Image, tuple[str, ...]]:
    """A picture in the first form that the route takes and that is small enough: lossless, while that fits."""
    forms: list[tuple[Format, str]] = [("png", ""), ("jpeg", f"JPEG of quality {_JPEG_QUALITY}"), ("webp", "WebP")]
    smallest = 0
    for fmt, name in forms:
        if fmt not in sending.formats or not _holds(fmt, picture):
            continue
        image = _as(picture, fmt)
        if _fits(image, sending):
            note = f"The picture was sent as {name}: as PNG it has more than {sending.max_bytes or 0:,} bytes."
            return image, (note,) if smallest else ()
        smallest = min(smallest or len(image.data), len(image.data))
    raise BadImage(
        "image_too_large",
        f"The picture has {smallest:,} bytes in the smallest encoding that keeps its quality, and the provider takes "
        f"{sending.max_bytes or 0:,}. Send a smaller one.",
    )


def _holds(fmt: Format, picture: Pillow.Image) -> bool:
    transparent = picture.mode == "RGBA"
    return not (fmt == "jpeg" and transparent) and max(picture.size) <= MAX_SIDE.get(fmt, max(picture.size))


def _as(picture: Pillow.Image, fmt: Format) -> Image:
    data = encode_lossless_webp(picture) if fmt == "webp" else encode(picture, fmt, _quality(fmt))
    return Image(data=data, header=sniff(data))


def _quality(fmt: Format) -> int | None:
    return _JPEG_QUALITY if fmt == "jpeg" else None
