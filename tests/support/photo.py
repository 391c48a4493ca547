"""Small pictures to send, and what came back."""

from __future__ import annotations

import base64
import io

from openai.types import ImagesResponse
from PIL import Image as Pillow
from PIL.Image import Image

from tests.support.paths import COFFEE

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (30, 40, 220)


def flat(width: int, height: int, colour: tuple[int, ...] = RED, form: str = "PNG") -> bytes:
    """A picture of one colour: with transparency where the colour has four numbers."""
    return saved(Pillow.new("RGBA" if len(colour) == 4 else "RGB", (width, height), colour), form)


def striped() -> bytes:
    """90 x 60 pixels: a third red, a third green, a third blue, from left to right."""
    picture = Pillow.new("RGB", (90, 60))
    for number, colour in enumerate((RED, GREEN, BLUE)):
        picture.paste(colour, (30 * number, 0, 30 * number + 30, 60))
    return saved(picture)


def half_transparent() -> bytes:
    """60 x 40 pixels: the left half nothing at all, the right half green."""
    picture = Pillow.new("RGBA", (60, 40), (0, 0, 0, 0))
    picture.paste((*GREEN, 255), (30, 0, 60, 40))
    return saved(picture)


def coffee(width: int, height: int, form: str = "PNG") -> bytes:
    """The photograph, at another size."""
    with Pillow.open(COFFEE) as photo:
        return saved(photo.convert("RGB").resize((width, height), Pillow.Resampling.BICUBIC), form)


def saved(picture: Image, form: str = "PNG") -> bytes:
    """A picture's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def opened(data: bytes) -> Image:
    """A picture, decoded to its last pixel."""
    with Pillow.open(io.BytesIO(data)) as picture:
        picture.load()
        return picture


def delivered(response: ImagesResponse, number: int = 0) -> bytes:
    """The bytes of one of the answer's pictures, from its base64."""
    assert response.data
    encoded = response.data[number].b64_json
    assert encoded
    return base64.b64decode(encoded, validate=True)


def picture(response: ImagesResponse, number: int = 0) -> Image:
    """One of the answer's pictures, decoded."""
    return opened(delivered(response, number))


def near(found: object, wanted: tuple[int, ...], most: int = 12) -> bool:
    """Whether a pixel has this colour, but for what an encoder loses."""
    assert isinstance(found, tuple)
    return len(found) == len(wanted) and all(abs(a - b) <= most for a, b in zip(found, wanted, strict=True))
