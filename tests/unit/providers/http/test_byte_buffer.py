"""Pieces gathered into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.http.bodies import ByteBuffer

MB = 1 << 20


@given(st.lists(st.binary(max_size=300), max_size=200))
def test_all_of_it_in_order(pieces: list[bytes]) -> None:
    """However many pieces there are, and whether they are views."""
    gathered = ByteBuffer()
    for number, piece in enumerate(pieces):
        gathered.add(memoryview(piece) if number % 2 else piece)

    assert gathered.size == sum(map(len, pieces))
    assert gathered.bytes() == b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, MB - 1, MB, MB + 1, 5 * MB])
def test_large_ones(size: int) -> None:
    """Below and above the size from which on a buffer takes the pieces."""
    whole = bytes(range(256)) * (size // 256 + 1)
    whole = whole[:size]
    gathered = ByteBuffer()
    for at in range(0, size, 64 * 1024):
        gathered.add(memoryview(whole)[at : at + 64 * 1024])

    assert gathered.bytes() == whole


def test_nothing_is_left_behind() -> None:
    """Neither after all of it was given nor after it was forgotten."""
    gathered = ByteBuffer()
    gathered.add(b"one")
    assert gathered.bytes() == b"one"
    assert gathered.bytes() == b""
    gathered.add(bytes(2 * MB))
    gathered.clear()
    assert gathered.bytes() == b""
