"""Bytes that come in pieces, to be had as one."""

from __future__ import annotations

import io

# Below this the pieces are kept as they came and joined at the end. From there on a buffer takes them: it gives its
# bytes away without a copy, but while it is small it moves them again and again as it grows.
_JOINED_BYTES = 1 << 20
# Pieces may be a byte each, and a piece by itself takes a hundred times that.
_JOINED_PIECES = 64

Piece = bytes | memoryview


class Gathered:
    """Takes pieces; each byte is copied about once. `bytes()` gives all, and leaves nothing behind."""

    __slots__ = ("_buffer", "_pieces", "size")

    def __init__(self) -> None:
        self.size = 0
        """How many bytes there are so far."""
        self._pieces: list[Piece] = []
        self._buffer: io.BytesIO | None = None

    def add(self, piece: Piece) -> None:
        """Take one more. A view's bytes must not change until they have been gathered."""
        self.size += len(piece)
        if self._buffer is not None:
            self._buffer.write(piece)
            return
        self._pieces.append(piece)
        if self.size >= _JOINED_BYTES or len(self._pieces) >= _JOINED_PIECES:
            self._buffer = io.BytesIO()
            self._buffer.writelines(self._pieces)
            self._pieces = []

    def clear(self) -> None:
        """Forget all: an error that is kept for a while, with its frames, must not keep the bytes."""
        self._pieces, self._buffer = [], None

    def bytes(self) -> bytes:
        """All of it, once: nothing is left behind."""
        pieces, buffer = self._pieces, self._buffer
        self.clear()
        if buffer is not None:
            with buffer:
                return buffer.getvalue()
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
