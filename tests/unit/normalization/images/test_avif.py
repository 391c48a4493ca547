"""AVIF: boxes within boxes, where a number too many can cost hours and a blanked byte too many the picture."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from PIL import Image

from normalization.images import icc
from normalization.images.formats import av1, base
from normalization.images.sniff import sniff
from normalization.images.transform import strip
from tests.support import pictures
from tests.support.pictures import SECRET, encoded, feature, opened, plain, refusal, taken

COLOUR_ITEM, EXIF_ITEM = 1, 2


def box(kind: bytes, *content: bytes) -> bytes:
    """A box around its content."""
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def entry(number: int, kind: bytes) -> bytes:
    """The declaration of an item."""
    return box(b"infe", struct.pack(">IHH4s", 2 << 24, number, 0, kind), b"\0")


def built(iloc: bytes, ipma: bytes = struct.pack(">IIHBB", 0, 1, COLOUR_ITEM, 1, 1), more: bytes = b"") -> bytes:
    """The smallest AVIF there is, with an EXIF item that no location has to name; its pixels are no AV1."""
    meta = box(
        b"meta",
        bytes(4),
        box(b"pitm", struct.pack(">IH", 0, COLOUR_ITEM)),
        box(b"iloc", iloc),
        box(b"iinf", struct.pack(">IH", 0, 2), entry(COLOUR_ITEM, b"av01"), entry(EXIF_ITEM, b"Exif")),
        box(b"iprp", box(b"ipco", box(b"ispe", struct.pack(">III", 0, 64, 48))), box(b"ipma", ipma)),
        more,
    )
    return box(b"ftyp", b"avif\0\0\0\0avif") + meta + box(b"mdat", bytes(16))


def location(number: int, method: int, start: int, length: int) -> bytes:
    """Where an item is: in the file (0) or in the idat box (1)."""
    return struct.pack(">HHHHII", number, method, 0, 1, start, length)


def locations(*each: bytes) -> bytes:
    """The item locations of version 1, with offsets and lengths of four bytes."""
    return struct.pack(">IHH", 1 << 24, 0x4400, len(each)) + b"".join(each)


ONE = locations(location(COLOUR_ITEM, 0, 30, 4))


def test_the_smallest() -> None:
    """The boxes that every AVIF has are enough to read its size."""
    found = sniff(built(ONE))

    assert (found.width, found.height, found.metadata) == (64, 48, True)


def test_a_sequence() -> None:
    """A sequence of pictures is refused for what it is."""
    assert refusal(lambda: sniff(pictures.animated("avif"))).code == "animated_image"


@pytest.mark.parametrize(
    ("code_points", "is_plain"), [((1, 13), True), ((2, 2), True), ((12, 13), False), ((9, 16), False)]
)
def test_code_points(code_points: tuple[int, int], is_plain: bool) -> None:
    """Colours other than sRGB are seen without a profile too."""
    data = plain("avif")
    at = data.index(b"colrnclx") + 8

    assert sniff(data[:at] + struct.pack(">HH", *code_points) + data[at + 4 :]).plain is is_plain


def test_a_profile_wins_over_code_points() -> None:
    """Where both are inside, the profile counts, in whichever order they come."""
    properties = [
        box(b"ispe", struct.pack(">III", 0, 64, 48)),
        box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 128)),
        box(b"colr", b"prof", icc.build(icc.PRIMARIES[12], icc.D65, None) or b""),
    ]
    data = built(ONE, struct.pack(">IIHBBBB", 0, 1, COLOUR_ITEM, 3, 1, 2, 3))
    only_size, old = box(b"ipco", properties[0]), struct.unpack(">I", data[data.index(b"iprp") - 4 :][:4])[0]
    added = len(properties[1]) + len(properties[2])
    data = data.replace(only_size, box(b"ipco", *properties))
    for kind, size in ((b"iprp", old), (b"meta", struct.unpack(">I", data[data.index(b"meta") - 4 :][:4])[0])):
        data = data.replace(struct.pack(">I4s", size, kind), struct.pack(">I4s", size + added, kind))

    assert not sniff(data).plain


def test_deep_samples() -> None:
    """More than 8 bits show in the codec's configuration and in the pixel property."""
    data = plain("avif")
    codec, pixi = data.index(b"av1C") + 6, data.index(b"pixi") + 9

    assert not sniff(data[:codec] + bytes((data[codec] | 0x40,)) + data[codec + 1 :]).plain
    assert not sniff(data[:pixi] + b"\x0a" + data[pixi + 1 :]).plain


@pytest.mark.parametrize(
    "data",
    [
        built(struct.pack(">IHI", 2 << 24, 0x4400, 2**32 - 1)),
        built(struct.pack(">IHH", 1 << 24, 0, 2) + struct.pack(">HHHH", 1, 0, 0, 65_535) * 2),
        built(ONE, struct.pack(">II", 0, 2**32 - 1)),
        plain("avif") + box(b"free") * base.MAX_PARTS,
    ],
    ids=["items", "extents without a size", "properties", "boxes"],
)
def test_numbers_that_would_take_hours(data: bytes) -> None:
    """A count of millions in a few bytes is refused before it is counted out."""
    assert "divided into more than" in refusal(lambda: sniff(data)).message


def test_locations_outside_of_the_file() -> None:
    """Bytes of an item that are not there mean that the file lost its end."""
    data = built(locations(location(COLOUR_ITEM, 0, 30, 4_000)))

    assert refusal(lambda: sniff(data)).code == "truncated_image"


@pytest.mark.parametrize("primary", [EXIF_ITEM, 9])
def test_a_primary_item_that_is_no_picture(primary: int) -> None:
    """A file whose picture is its metadata, or nothing, has no picture."""
    data = built(locations(location(COLOUR_ITEM, 0, 30, 4), location(EXIF_ITEM, 0, 40, 4), location(9, 0, 30, 4)))
    changed = data.replace(
        box(b"pitm", struct.pack(">IH", 0, COLOUR_ITEM)), box(b"pitm", struct.pack(">IH", 0, primary))
    )

    assert "nowhere" in refusal(lambda: sniff(changed)).message


def test_metadata_in_the_data_box_of_the_items() -> None:
    """EXIF may lie in a box beside the items instead of among the pixels, and is blanked there."""
    first = built(
        locations(location(COLOUR_ITEM, 0, 30, 4), location(EXIF_ITEM, 1, 4, 8)), more=box(b"idat", bytes(16))
    )
    data = first[: first.index(b"idat") + 4] + b"KEEP" + b"SECRETLY" + b"KEEP" + first[first.index(b"idat") + 20 :]
    stripped = strip(taken(data))

    assert len(stripped.data) == len(data)
    assert b"KEEP" + bytes(8) + b"KEEP" in stripped.data
    assert not sniff(stripped.data).metadata


def test_a_box_of_somebody_else() -> None:
    """A uuid box can hold anything, so it is blanked; the offsets of the picture stay true."""
    data = plain("avif")
    foreign = data + box(b"uuid", bytes(16), SECRET)
    stripped = strip(taken(foreign)).data

    assert sniff(foreign).metadata
    assert SECRET not in stripped
    assert len(stripped) == len(foreign)
    assert opened(stripped).tobytes() == opened(data).tobytes()


@pytest.mark.parametrize("place", ["picture", "boxes", "header of the data"])
def test_metadata_over_something_else(place: str) -> None:
    """Metadata that claims other bytes is refused: blanking it would blank the picture or the structure."""
    data = bytearray(feature("avif-metadata"))
    # Each entry of the item locations has 14 bytes and ends with offset and length: the colours come first, then EXIF.
    entries = data.index(b"iloc") + 12
    claimed = {
        "picture": bytes(data[entries + 6 : entries + 14]),
        "boxes": struct.pack(">II", data.index(b"iinf") + 4, 4),
        "header of the data": struct.pack(">II", data.index(b"mdat"), 4),
    }
    data[entries + 20 : entries + 28] = claimed[place]

    assert "overlap" in refusal(lambda: sniff(bytes(data))).message


def test_a_frame_larger_than_the_picture_says() -> None:
    """Decoders make room for what is coded and scale it down afterwards: it is refused before that."""
    bomb = bytearray(encoded(Image.new("RGB", (4000, 3000)), "avif", speed=10))
    at = bomb.find(b"ispe") + 8
    bomb[at : at + 8] = struct.pack(">II", 64, 48)

    found = refusal(lambda: sniff(bytes(bomb)))
    assert found.code == "corrupt_image"
    assert "4000x3000" in found.message


@pytest.mark.parametrize("options", [{}, {"quality": 100}, {"subsampling": "4:4:4"}, {"range": "limited"}])
@pytest.mark.parametrize("size", [(1, 1), (17, 9), (640, 480), (1023, 2049)])
def test_the_size_of_the_frames(options: dict[str, Any], size: tuple[int, int]) -> None:
    """It is read as the encoder wrote it."""
    data = encoded(Image.new("RGBA", size, (1, 2, 3, 4)), "avif", **options)
    mdat = data.find(b"mdat") + 4

    assert set(av1.frames(data[mdat:], "AVIF")) == {size}
