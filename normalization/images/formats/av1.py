"""AV1: the frame sizes for which a decoder allocates memory, from the sequence headers of a stream."""

from __future__ import annotations

from collections.abc import Iterator

from normalization.images.formats.base import MAX_PARTS, corrupt, too_many_parts

_SEQUENCE_HEADER = 1
_MAX_HEADER_BYTES = 512


def frames(data: bytes | memoryview, name: str) -> Iterator[tuple[int, int]]:
    """Yield the largest width and height, in pixels, that each sequence header declares. Raises BadImage."""
    at = 0
    for _ in range(MAX_PARTS):
        if at >= len(data):
            return
        head = data[at]
        at += 1 + (head >> 2 & 1)
        size = len(data) - at
        if head & 2:
            size, at = _leb128(data, at, name)
        if size < 0 or at + size > len(data):
            raise corrupt(name, "a part of its picture is longer than the whole")
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            yield _size(_Bits(bytes(data[at : at + min(size, _MAX_HEADER_BYTES)]), name))
        at += size
    raise too_many_parts(name)


class _Bits:
    """Reads numbers bit by bit."""

    def __init__(self, data: bytes, name: str) -> None:
        self._number = int.from_bytes(data, "big")
        self._left = 8 * len(data)
        self._name = name

    def take(self, count: int) -> int:
        """Return the next unsigned number. Raises BadImage at the end of the data."""
        self._left -= count
        if self._left < 0:
            raise corrupt(self._name, "its sequence header is cut off")
        return self._number >> self._left & (1 << count) - 1


def _size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)  # the profile, and the flag of still images
    if bits.take(1):
        bits.take(5)  # the reduced header of a still image has only the level
    else:
        _pass_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1


def _pass_operating_points(bits: _Bits) -> None:
    """Skip everything between the kind of header and the size: section 5.5.1 of the AV1 specification."""
    delay_bits = 0
    if bits.take(1):
        bits.take(64)  # the durations of ticks
        if bits.take(1):
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):
            delay_bits = bits.take(5) + 1
            bits.take(42)  # the other lengths of the decoder model
    shows_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if shows_delay and bits.take(1):
            bits.take(4)


def _leb128(data: bytes | memoryview, at: int, name: str) -> tuple[int, int]:
    """Return a number of up to eight bytes with seven bits each, and the offset of its end."""
    found = 0
    for index, byte in enumerate(data[at : at + 8]):
        found |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return found, at + index + 1
    raise corrupt(name, "a part of its picture has no valid length")
