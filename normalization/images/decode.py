"""Decoding: from a file's bytes to upright pixels in sRGB. The gateway decodes here alone."""

from __future__ import annotations

from PIL import Image as Pillow

from normalization.images.formats.base import BadImage, Scan
from normalization.images.orientation import upright
from normalization.images.pixels import pixels_of

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
