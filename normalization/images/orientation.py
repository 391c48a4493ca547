"""EXIF's eight orientations of a picture, for the gateway and the worker alike."""

from __future__ import annotations

from PIL import Image

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """A picture as it is stored, as a person sees it; the very same object for orientation 1."""
    return picture if orientation == 1 else picture.transpose(_TRANSPOSE[orientation])
