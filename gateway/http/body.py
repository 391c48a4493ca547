"""A request's body as it comes in: its limits, its charsets, and how long the event loop may be held by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from starlette.datastructures import Headers

from gateway.http.errors import ApiError, invalid, too_large
from gateway.telemetry import metrics
from normalization.parameters.nesting import excerpt

P = ParamSpec("P")
T = TypeVar("T")

SLICE_BYTES = 64 << 10
"""The most that is parsed at once: what a server hands over as one chunk, and a millisecond's work."""

# Over how long a sender's speed is averaged.
_WINDOW_S = 8.0

INLINE_BYTES = 256 << 10
"""Work on more than this goes to a thread: at its slowest it takes a few milliseconds for as much."""

# Decoders that are linear and cannot be made to import anything: the name comes from a stranger.
_UNICODE = (
    "utf-8",
    "utf8",
    "us-ascii",
    "ascii",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-le",
    "utf-32-be",
)
_ASIAN = ("shift_jis", "euc-jp", "iso-2022-jp", "euc-kr", "gb2312", "gbk", "gb18030", "big5")
_CHARSETS = frozenset(
    (
        *(*_UNICODE, *_ASIAN, "latin1", "koi8-r", "koi8-u", "macintosh"),
        *(f"iso-8859-{number}" for number in (*range(1, 12), 13, 14, 15, 16)),
        *(f"{prefix}{number}" for prefix in ("windows-", "cp") for number in range(1250, 1259)),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormLimits:
    """How much of a body is taken, all enforced while it is read.

    `max_file_bytes` is for one picture or other file, as the file is and not as it was encoded; `max_text_bytes` for
    one text, and in JSON for all that is not a long text; `max_header_bytes` for one header line of a part.
    `min_bytes_per_s` is what a sender has to send on average while it is waited for, 0 for no floor.
    """

    max_body_bytes: int = 128 << 20
    max_file_bytes: int = 50 << 20
    max_text_bytes: int = 1 << 20
    max_files: int = 32
    max_parts: int = 256
    max_header_bytes: int = 4096
    min_bytes_per_s: int = 0


class _Pace:
    """The floor under a sender's speed, over windows of `_WINDOW_S` that we spent waiting for it and for nothing else.

    The first window is a grace too: a connection takes its time to get going.
    """

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._waited = 0.0
        self._came = 0

    @property
    def left_s(self) -> float:
        """How long the next bytes may take: what came fast buys as much as one more window."""
        return max(_WINDOW_S, min(self._came / self._floor, 2 * _WINDOW_S)) - self._waited

    def came(self, size: int, waited_s: float) -> None:
        """Bytes came, after a while."""
        if self._waited >= _WINDOW_S:
            self._waited, self._came = 0.0, 0
        self._waited += waited_s
        self._came += size


async def feed(
    chunks: AsyncIterator[bytes], content_length: int | None, limits: FormLimits, write: Callable[[bytes], object]
) -> None:
    """Give the body to `write` in slices. Raises ApiError 413 before the first byte over the limit is written."""
    if content_length is not None and content_length > limits.max_body_bytes:
        raise _too_large(limits)
    size = 0
    async for chunk in _paced(chunks, limits.min_bytes_per_s) if limits.min_bytes_per_s else chunks:
        size += len(chunk)
        if size > limits.max_body_bytes:
            raise _too_large(limits)
        if len(chunk) <= SLICE_BYTES:
            write(chunk)
            continue
        for start in range(0, len(chunk), SLICE_BYTES):
            write(chunk[start : start + SLICE_BYTES])
            await asyncio.sleep(0)


async def _paced(chunks: AsyncIterator[bytes], floor: int) -> AsyncIterator[bytes]:
    """The chunks as they come. Raises ApiError 408 for a sender that is slower than the floor."""
    pace = _Pace(floor)
    now = asyncio.get_running_loop().time
    try:
        # One timeout, moved on: a new one for each chunk costs more than reading it.
        async with asyncio.timeout(None) as limit:
            while True:
                began = now()
                limit.reschedule(began + pace.left_s)
                chunk = await anext(chunks, None)
                # What is done with it is not waiting for the sender.
                limit.reschedule(None)
                if chunk is None:
                    return
                pace.came(len(chunk), now() - began)
                yield chunk
    except TimeoutError:
        metrics.CUT.labels("body").inc()
        message = f"The request's body came at less than {floor} bytes per second."
        raise ApiError(408, message, code="request_timeout") from None


async def off_loop(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do work on `size` bytes: here when they are few, in a thread when they would hold the event loop."""
    if size <= INLINE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def decoded(data: bytes, charset: str, param: str | None) -> str:
    """Bytes as text. Raises ApiError 400 for an unsupported charset, or bytes that are invalid in it."""
    if charset.lower() not in _CHARSETS:
        place = "the Content-Type" if param is None else f"the Content-Type of '{param}'"
        message = f"Unsupported charset '{excerpt(charset)}' in {place}; use UTF-8."
        raise invalid(param, message, "unsupported_charset")
    try:
        return data.decode(charset)
    except UnicodeDecodeError as error:
        subject = "The request body" if param is None else f"Invalid '{param}': the text"
        raise invalid(
            param, f"{subject} is not valid {charset.upper()}, at byte {error.start}.", "invalid_encoding"
        ) from error


def check_encoding(headers: Headers) -> None:
    """Raise ApiError 415 for a body that is compressed: unpacked here it might have any size."""
    named = [name.strip() for line in headers.getlist("content-encoding") for name in line.split(",")]
    if packed := [name for name in named if name.lower() not in ("", "identity")]:
        message = (
            f"The Content-Encoding '{excerpt(', '.join(packed))}' is not taken for a request's body. "
            "Send the body as it is, without a Content-Encoding: pictures are compressed already."
        )
        # What is taken instead (RFC 9110, 12.5.3).
        raise ApiError(415, message, code="unsupported_media_type", headers={"accept-encoding": "identity"})


def _too_large(limits: FormLimits) -> ApiError:
    return too_large(f"The request body is too large: at most {limits.max_body_bytes} bytes are accepted.")
