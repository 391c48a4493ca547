"""Damaged pictures over HTTP: damage beside the pixels is no reason to refuse; damage in them is told with advice."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from tests.support import world as weather
from tests.support.pictures import chunk, encoded, exif, feature, noise, opened, plain, raw_png, with_chunk
from tests.support.world import World

P3 = feature("png-p3")


def broken(kind: bytes, body: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    good = chunk(kind, body)
    return good[:-1] + bytes((good[-1] ^ 1,))


def _twice() -> bytes:
    return encoded(noise(), "jpeg", exif=exif(6))[:-2] + plain("jpeg")


WHOLE: dict[str, Callable[[], bytes]] = {
    "text": lambda: with_chunk(plain("png"), broken(b"tEXt", b"Comment\0hi")),
    "density": lambda: with_chunk(plain("png"), broken(b"pHYs", bytes(9))),
    "profile": lambda: P3.replace(P3[P3.index(b"iCCP") + 4 :][:3], b"???", 1),
    "exif": lambda: with_chunk(plain("png"), broken(b"eXIf", b"MM\0*")),
    "no end marker": lambda: plain("jpeg")[:-2],
    "a second picture in place of it": _twice,
    "a second picture behind": lambda: plain("jpeg") + plain("jpeg"),
    "a wrong length": lambda: plain("webp")[:4] + struct.pack("<I", 2**31) + plain("webp")[8:],
    "no trailer": lambda: plain("gif")[:-1],
}
PARTIAL: dict[str, tuple[Callable[[], bytes], str]] = {
    "checksum": (lambda: plain("png")[:-13] + b"\0" + plain("png")[-12:], "Save it again in an image editor."),
    "half a png": (lambda: plain("png")[:-200], "Send the whole file."),
    "half a jpeg": (lambda: plain("jpeg")[:-500], "Send the whole file."),
    "half a jpeg and a second": (lambda: plain("jpeg")[:-500] + plain("jpeg"), "Send the whole file."),
    "too few pixels": (lambda: raw_png((99, 99), 16, 2, b""), "Send the whole file."),
}


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    """A gateway before one provider."""
    with weather.world("fal") as made:
        yield made


@pytest.mark.parametrize("name", WHOLE)
def test_whole_pixels_are_enlarged(here: World, name: str) -> None:
    """The picture is made, in its right size."""
    answer = here.edit(WHOLE[name](), retries=0)

    assert answer.status == 200, answer.text
    size = opened(answer.images[0]).size
    assert size in ((128, 96), (96, 128))


@pytest.mark.parametrize("name", PARTIAL)
def test_damaged_pixels_are_refused(here: World, name: str) -> None:
    """The caller hears what is wrong, and what would work."""
    data, advice = PARTIAL[name]
    answer = here.edit(data(), retries=0)

    assert (answer.status, answer.code) == (400, "invalid_image_file")
    assert answer.body["error"]["message"].endswith(advice)
