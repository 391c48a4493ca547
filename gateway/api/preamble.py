"""What stands before a multipart body's first boundary, which nobody reads (RFC 2046, 5.1.1)."""

from __future__ import annotations

import re
from collections.abc import Callable

# What may follow a boundary on its line: the line's end, the dashes of a body without parts, padding.
_BEHIND = rb"(?=[\r\- \t])"


class Preamble:
    """Passes a body on from its first boundary, and throws away what comes before it, as it comes.

    `skipped` says that there was something, `passed` that the boundary has been found.
    """

    def __init__(self, boundary: bytes, write: Callable[[bytes], object]) -> None:
        self.skipped = self.passed = False
        self._line = b"\r\n--" + boundary
        self._whole = re.compile(re.escape(self._line) + _BEHIND)
        self._write = write
        # A boundary begins a line, and the body is the beginning of one.
        self._tail = b"\r\n"

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.passed:
            self._write(data)
            return
        data = self._tail + data
        if (found := self._whole.search(data)) is not None:
            self.passed = True
            self._write(data[found.start() + 2 :])
            return
        kept = self._begun_at(data)
        self.skipped = self.skipped or kept > 0
        self._tail = data[kept:]

    def _begun_at(self, data: bytes) -> int:
        """Where the line of a boundary begins that is not all there; the end of the data where none does."""
        start = data.rfind(b"\r", max(0, len(data) - len(self._line)))
        return start if start >= 0 and self._line.startswith(data[start:]) else len(data)
