"""Answers that come compressed, though they were asked for plain: inflated a little at a time, and not without end."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

import httpx
from typing_extensions import override

from providers.http.bodies import TooLarge

# What is inflated at once.
_PIECE_BYTES = 256 * 1024
# How often over an answer may grow, and how large it may be in any case: a picture is compressed already, and JSON with
# a long log becomes thirty times as large. A bomb grows a thousandfold.
_GROWTH, _SMALL_BYTES = 100, 1 << 20
# The bits of a window that zlib takes with a gzip header, with a zlib header, and with none.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS

ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})


class Inflated(httpx.AsyncByteStream):
    """A body in one of ENCODINGS, as what it was before. Raises TooLarge where it grows out of all proportion, and
    httpx.DecodingError where it is not in that encoding."""

    def __init__(self, stream: httpx.AsyncByteStream, encoding: str) -> None:
        self._stream = stream
        self._kinds = iter((_ZLIB, _RAW) if encoding == "deflate" else (_GZIP,))
        self._inflater = zlib.decompressobj(next(self._kinds))
        self._came = self._made = 0

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._came += len(piece)
            for made in self._inflated(piece):
                self._made += len(made)
                if self._made > max(_SMALL_BYTES, _GROWTH * self._came):
                    raise TooLarge(f"grows more than {_GROWTH} times as it is inflated")
                yield made
        if not self._inflater.eof and self._made:
            raise httpx.DecodingError("a compressed answer that breaks off")

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()

    def _inflated(self, piece: bytes) -> Iterator[bytes]:
        while piece and not self._inflater.eof:
            try:
                made = self._inflater.decompress(piece, _PIECE_BYTES)
            except zlib.error as exc:
                # Some servers mean by "deflate" the bare stream.
                kind = None if self._made else next(self._kinds, None)
                if kind is None:
                    raise httpx.DecodingError("an answer that is not compressed as it says") from exc
                self._inflater = zlib.decompressobj(kind)
                continue
            piece = self._inflater.unconsumed_tail
            if made:
                yield made
