"""What a picture carries beside its pixels never reaches a provider: searched for in all that any of them was sent."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Iterator

import pytest

from normalization.images.sniff import BadImage, sniff
from tests.simulators.clouds import CLOUDS
from tests.simulators.common import overheard
from tests.support import world as weather
from tests.support.pictures import ALL, SECRET, chunk, with_chunk, with_metadata, with_segment
from tests.support.world import World

# What is also a picture's file: an archive, a page, a program, a second picture.
TAILS = {
    "zip": b"PK\3\4" + SECRET,
    "page": b"<html><script>" + SECRET + b"</script></html>",
    "jar": b"PK\3\4META-INF/MANIFEST.MF" + SECRET + b"PK\5\6",
    "picture": b"\xff\xd8\xff\xfe\0\x10" + SECRET + b"\xff\xd9",
}
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{64,}={0,2}")


def laden(fmt: str) -> bytes:
    """A picture with EXIF, GPS, XMP, IPTC, comments, text, thumbnails, content credentials and stray frames."""
    data = with_metadata(fmt)
    if fmt == "png":
        hidden = (chunk(b"caBX", SECRET), chunk(b"fdAT", b"\0\0\0\0" + SECRET), chunk(b"pHYs", bytes(9) + SECRET))
        extra = b"".join((*hidden, chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(SECRET)), chunk(b"prVt", SECRET)))
        return with_chunk(data, extra)
    if fmt == "jpeg":
        for marker, body in (
            (0xEB, b"JP\0\1\0\0\0\1" + SECRET),
            (0xE0, b"JFXX\0\x10" + SECRET),
            (0xE0, b"JFIF\0\1\2\0\0\1\0\1\1\5" + SECRET + b"\0"),
            (0xEE, b"Adobe\0d\0\0\0\0\1" + SECRET),
        ):
            data = with_segment(data, marker, body)
        return data
    if fmt == "gif":
        return data[:-1] + b"\x21\x01\x01x" + bytes((len(SECRET),)) + SECRET + b"\0\x3b"
    if fmt == "webp":
        data += b"C2PA" + struct.pack("<I", len(SECRET)) + SECRET
        return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    return data + struct.pack(">I4s16s", 24 + len(SECRET), b"uuid", bytes(16)) + SECRET


@pytest.fixture(scope="module", params=CLOUDS)
def here(request: pytest.FixtureRequest) -> Iterator[World]:
    """A gateway before one provider."""
    with weather.world(request.param) as made:
        yield made


def pictures(bodies: list[bytes]) -> list[bytes]:
    """All that was sent: the bodies, and what stands in them as base64."""
    return [*bodies, *(_decoded(found) for body in bodies for found in _BASE64.findall(body))]


def _decoded(text: bytes) -> bytes:
    return base64.b64decode(text[: len(text) // 4 * 4])


@pytest.mark.parametrize("fmt", ALL)
@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
def test_nothing_but_the_pixels(here: World, fmt: str, tail: bytes) -> None:
    """The provider gets a picture, and not a word of the secret that lay in and behind it."""
    sent = laden(fmt) + tail
    assert SECRET in sent
    with overheard() as heard:
        answer = here.edit(sent, retries=0)
    assert answer.status == 200, answer.text
    found = pictures(heard)
    assert any(_is_picture(data) for data in found), [body[:80] for body in heard]
    assert not [data[:80] for data in found if SECRET in data]


def _is_picture(data: bytes) -> bool:
    for signature in (b"\x89PNG", b"\xff\xd8\xff", b"RIFF"):
        if (at := data.find(signature)) >= 0:
            try:
                return sniff(data[at:]).width == 64
            except BadImage:
                continue
    return False
