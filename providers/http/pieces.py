"""JSON with pictures in it, as it is sent: the text in pieces, the pictures encoded a little at a time between them.

What waits for its turn to be sent, or for its answer, so holds no second copy of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TypeAlias, cast

import pybase64

from normalization.values import Image

# A picture stands for its base64.
Piece: TypeAlias = "bytes | Image"

# What one write hands to the socket: large enough to be few, small enough that the transport need not copy the rest.
CHUNK_BYTES = 256 * 1024
# Whole groups of three bytes, so that the parts of what is encoded can stand side by side.
_STEP_BYTES = CHUNK_BYTES // 4 * 3


def length(pieces: Iterable[Piece]) -> int:
    """The bytes that are sent."""
    return sum(base64_length(piece) if isinstance(piece, Image) else len(piece) for piece in pieces)


def base64_length(image: Image) -> int:
    """The bytes of a picture's base64."""
    return 4 * math.ceil(len(image.data) / 3)


def chunks(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """The bytes to send, in parts of `CHUNK_BYTES` at most. Those of a large text are views of it."""
    for piece in pieces:
        if isinstance(piece, Image):
            view = memoryview(piece.data)
            for start in range(0, len(view), _STEP_BYTES):
                yield pybase64.b64encode(view[start : start + _STEP_BYTES])
        elif len(piece) <= CHUNK_BYTES:
            yield piece
        else:
            view = memoryview(piece)
            for start in range(0, len(view), CHUNK_BYTES):
                # Every transport takes any buffer; a view saves the copy that a slice of bytes would be.
                yield cast("bytes", view[start : start + CHUNK_BYTES])
