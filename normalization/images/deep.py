"""16-bit PNGs beyond what Pillow gives of them: the high bytes of RGB samples alone, and their key as it stands."""

from __future__ import annotations

import functools
from typing import IO

from PIL import Image, ImageChops


def low_bytes(file: IO[bytes]) -> Image.Image | None:
    """The low bytes of a 16-bit PNG, of which Pillow gives the high ones; None where it cannot give the others.

    It knows samples of both byte orders, and takes those of a PNG for the other one here. PQ spends its codes so
    sparingly that eight bits are too few.
    """
    picture = Image.open(file, formats=("PNG",))
    if picture.mode.startswith("I"):
        return picture.convert("I").point([value & 0xFF for value in range(65536)], "L")
    if picture.mode not in ("RGB", "RGBA"):
        return None
    tile = picture.tile[0]
    picture.tile = [tile._replace(args=str(tile.args).replace("16B", "16L"))]
    return picture.convert("RGB")


def has_deep_key(picture: Image.Image) -> bool:
    """Whether a decoded 16-bit picture has a colour that means transparent, of which the high bytes are but a half."""
    return picture.mode == "RGB" and picture.info.get("transparency") is not None


def keyed(high: Image.Image, low: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """RGB samples of 16 bits, by their bytes, as RGBA: transparent where all of a sample is the key's.

    By the high bytes alone whatever is nearly of that colour would be a hole.
    """
    samples = [(band, value >> 8) for band, value in zip(high.split(), key, strict=True)]
    samples += [(band, value & 0xFF) for band, value in zip(low.split(), key, strict=True)]
    differ = [band.point([0 if byte == part else 255 for byte in range(256)]) for band, part in samples]
    picture = high.convert("RGB")
    picture.putalpha(functools.reduce(ImageChops.lighter, differ))
    return picture
