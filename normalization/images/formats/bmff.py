"""Boxes of the ISO base media file format, as far as an image item (AVIF) needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from normalization.images.formats.base import MAX_PARTS, corrupt, too_many_parts

NAME = "AVIF"


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its type, its offset, and the start and end of its content, in bytes of the file."""

    kind: bytes
    at: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Item:
    """An item's type, the offset of that type in the file, and the box that declares the item."""

    kind: bytes
    kind_at: int
    box: Box


# An item's number, and the start and end of one of its pieces, in bytes of the file.
Extent: TypeAlias = tuple[int, int, int]

# The kind of a reference, the item that refers and the item referred to.
Reference: TypeAlias = tuple[bytes, int, int]


class BoxReader:
    """Reads consecutive numbers inside a box. A read beyond its end raises BadImage."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data = data
        self.at = start
        self._end = end

    def take(self, size: int) -> int:
        """Return the next unsigned number of `size` bytes; 0 for size 0."""
        self.skip(size)
        return int.from_bytes(self._data[self.at - size : self.at], "big")

    def skip(self, size: int) -> None:
        """Skip `size` bytes."""
        if self.at + size > self._end:
            raise corrupt(NAME, "a box ends in the middle of a value")
        self.at += size


def boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two offsets, up to the first data that is not a box."""
    at = start
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        size, kind, header = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = end - at
        if size < header or at + size > end:
            return
        yield Box(kind, at, at + header, at + size)
        at += size
    raise too_many_parts(NAME)


def children(data: bytes, box: Box, skip: int = 0) -> list[Box]:
    """Return the boxes inside a box, after `skip` bytes. Raises BadImage if they do not fill it."""
    found = list(boxes(data, box.start + skip, box.end))
    if (found[-1].end if found else box.start + skip) != box.end:
        raise corrupt(NAME, f"its {_name(box.kind)} box does not hold whole boxes")
    return found


def items(data: bytes, iinf: Box) -> dict[int, Item]:
    """Return the items by number."""
    version = data[iinf.start]
    found: dict[int, Item] = {}
    for box in children(data, iinf, 6 if version == 0 else 8):
        version = BoxReader(data, box.start, box.end).take(1)
        if box.kind != b"infe" or version < 2:
            continue
        reader = BoxReader(data, box.start + 4, box.end)
        number = reader.take(2 if version == 2 else 4)
        reader.take(2)
        place = reader.at
        reader.take(4)
        found[number] = Item(data[place : place + 4], place, box)
    return found


def extents(data: bytes, iloc: Box, idat: Box | None) -> list[Extent]:
    """Return all pieces of all items. Raises BadImage if there are too many."""
    reader = BoxReader(data, iloc.start, iloc.end)
    version = reader.take(4) >> 24
    sizes = reader.take(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    index_size = index_size if version else 0
    found: list[Extent] = []
    entries = reader.take(2 if version < 2 else 4)
    if entries > MAX_PARTS:
        raise too_many_parts(NAME)
    for _ in range(entries):
        item = reader.take(2 if version < 2 else 4)
        method = reader.take(2) & 15 if version else 0
        reader.take(2)
        base = reader.take(base_size)
        count = reader.take(2)
        if len(found) + count > MAX_PARTS:
            raise too_many_parts(NAME)
        for _ in range(count):
            reader.take(index_size)
            start = base + reader.take(offset_size)
            length = reader.take(length_size)
            if method == 1 and idat is not None:
                start += idat.start
            found.append((item, start, start + length))
    return found


def references(data: bytes, iref: Box) -> list[Reference]:
    """Return all references between items. Raises BadImage if there are too many."""
    size = 2 if data[iref.start] == 0 else 4
    found: list[Reference] = []
    for box in children(data, iref, 4):
        reader = BoxReader(data, box.start, box.end)
        item = reader.take(size)
        count = reader.take(2)
        if len(found) + count > MAX_PARTS:
            raise too_many_parts(NAME)
        found += ((box.kind, item, reader.take(size)) for _ in range(count))
    return found


def properties_of(data: bytes, ipma: Box, item: int) -> list[int]:
    """Return the one-based numbers of an item's properties, without duplicates."""
    reader = BoxReader(data, ipma.start, ipma.end)
    head = reader.take(4)
    version, wide = head >> 24, head & 1
    found: dict[int, None] = {}
    entries = reader.take(4)
    if entries > MAX_PARTS:
        raise too_many_parts(NAME)
    for _ in range(entries):
        number = reader.take(2 if version == 0 else 4)
        count = reader.take(1)
        if number != item:
            reader.skip(count * (2 if wide else 1))
            continue
        for _ in range(count):
            found[reader.take(2) & 0x7FFF if wide else reader.take(1) & 0x7F] = None
    return list(found)


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "replace")
