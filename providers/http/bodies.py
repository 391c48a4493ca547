"""JSON bodies with images in them, out and in, without an image ever passing through a JSON codec.

A JSON codec holds the interpreter lock while it copies a string; pybase64 releases it. So images are put between the
pieces of encoded JSON, and cut out of an answer before it is decoded. A request that waits to be sent, or for its
answer, holds no second copy of an image: each is encoded a little at a time.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast

import anyio.to_thread
import httpx
import pybase64

from normalization.values import Image, Value
from providers.errors import Rejected, Undecodable
from providers.http.ids import token_hex
from providers.memory import Reading

# Below this the pieces are kept as they came and joined at the end. From there on a buffer takes them: it gives its
# bytes away without a copy, but while it is small it moves them again and again as it grows.
_JOINED_BYTES = 1 << 20
# Pieces may be a byte each, and a piece by itself takes a hundred times that.
_JOINED_PIECES = 64

_Piece = bytes | memoryview


class ByteBuffer:
    """Takes pieces; each byte is copied about once. `bytes()` gives all, and leaves nothing behind."""

    __slots__ = ("_buffer", "_pieces", "size")

    def __init__(self) -> None:
        self.size = 0
        """How many bytes there are so far."""
        self._pieces: list[_Piece] = []
        self._buffer: io.BytesIO | None = None

    def add(self, piece: _Piece) -> None:
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


# A picture stands for its base64.
BodyPart: TypeAlias = "bytes | Image"

# What one write hands to the socket: large enough to be few, small enough that the transport need not copy the rest.
CHUNK_BYTES = 256 * 1024
# Whole groups of three bytes, so that the parts of what is encoded can stand side by side.
_STEP_BYTES = CHUNK_BYTES // 4 * 3


def encoded_length(pieces: Iterable[BodyPart]) -> int:
    """The bytes that are sent."""
    return sum(base64_length(piece) if isinstance(piece, Image) else len(piece) for piece in pieces)


def base64_length(image: Image) -> int:
    """The bytes of a picture's base64."""
    return 4 * math.ceil(len(image.data) / 3)


def encode_chunks(pieces: Iterable[BodyPart]) -> Iterator[bytes]:
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


# JSON as it came, with decoded data URIs as leaves.
Json: TypeAlias = "bool | int | float | str | bytes | list[Json] | dict[str, Json] | None"

# Below this, a hop to a thread costs more than the work.
_INLINE_BYTES = 1_000_000
# An answer has a few pictures; one that opens more data URIs than this is left to the ordinary decoder.
_MAX_CUTS = 64
# The longest `data:<mime>;base64,` that is looked for.
_MAX_PREFIX = 128
# A message or a picture stands a few levels in; a thousand are an attack.
_DEEPEST = 8
# After a string that is a key, which is never a picture.
_COLON = re.compile(rb"\s*:")


@dataclass(frozen=True, slots=True)
class Body:
    """A request's JSON body, to be sent more than once if need be. httpx takes it as `content=`.

    Its pictures are encoded as they are sent.
    """

    pieces: tuple[BodyPart, ...] = field(repr=False)

    @property
    def length(self) -> int:
        """Length in bytes."""
        return encoded_length(self.pieces)

    @property
    def headers(self) -> dict[str, str]:
        """The length is told so that the body is not sent chunked, which some servers refuse."""
        return {"content-type": "application/json", "content-length": str(self.length)}

    def whole(self) -> bytes:
        """All of it at once: for small ones."""
        return b"".join(encode_chunks(self.pieces))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in encode_chunks(self.pieces):
            yield chunk


def json_body(payload: Mapping[str, Value]) -> Body:
    """Encode `payload` as JSON in which each picture is a `data:` URI.

    Raises Rejected for what JSON cannot say, such as an infinite number.
    """
    images: list[Image] = []
    # Drawn anew each time, so that no text of a caller can hold it.
    mark = token_hex(16)

    def leaf(value: object) -> str:
        if isinstance(value, Image):
            images.append(value)
            return mark
        raise TypeError(f"{type(value).__name__} is not JSON")

    try:
        text = json.dumps(dict(payload), default=leaf, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise Rejected("the parameters cannot be written as JSON") from exc
    first, *others = text.encode().split(f'"{mark}"'.encode())
    pieces: list[BodyPart] = [first]
    for image, following in zip(images, others, strict=True):
        pieces[-1] = b"".join([cast("bytes", pieces[-1]), f'"data:{image.media_type};base64,'.encode()])
        pieces += [image, b'"' + following]
    return Body(tuple(pieces))


def encoded_size(payload: Mapping[str, Value]) -> int:
    """Return the bytes that the pictures of `payload` take as base64, without encoding them."""
    return encoded_length(_images(dict(payload)))


def _images(value: Value) -> Iterator[Image]:
    if isinstance(value, Image):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _images(item)
    elif isinstance(value, list):
        for item in value:
            yield from _images(item)


class TooLarge(Exception):
    """More bytes than are taken."""


async def read_body(response: httpx.Response, cap: int) -> bytes:
    """Read a streamed answer of at most `cap` bytes (after decompression). Raises Undecodable above that."""
    try:
        return await read_capped(response, cap)
    except TooLarge as exc:
        raise Undecodable(f"the answer {exc}") from exc


async def read_capped(response: httpx.Response, cap: int, took: Callable[[int], object] | None = None) -> bytes:
    """Do the work of `read_body`, and raise TooLarge. `took` hears of each piece, in bytes, before it is kept.

    What is large waits for room in memory, where other attempts' answers fill it: see `providers/memory.py`.
    """
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > cap:
        raise TooLarge(f"is larger than {cap} bytes")
    gathered, reading = ByteBuffer(), Reading()
    try:
        async for chunk in response.aiter_bytes():
            if gathered.size + len(chunk) > cap:
                raise TooLarge(f"is larger than {cap} bytes")
            if took is not None:
                took(len(chunk))
            await reading.take(len(chunk))
            gathered.add(chunk)
    except BaseException:
        gathered.clear()
        reading.drop()
        raise
    return gathered.bytes()


async def read_json(body: bytes) -> Json:
    """Do the work of `parse_json`, beside the event loop where it takes long."""
    if len(body) < _INLINE_BYTES:
        return parse_json(body)
    return await anyio.to_thread.run_sync(partial(parse_json, body))


def parse_json(body: bytes) -> Json:
    """Decode JSON; each string that is a base64 data URI becomes its bytes. Raises Undecodable if it is not JSON.

    A data URI that is not valid base64 stays a string: what must be a picture is for the caller to say.
    """
    mark = token_hex(16)
    rest, images = _cut(body, mark)
    try:
        value: Json = json.loads(rest)
        return _restore(value, mark, images)
    except (ValueError, RecursionError) as exc:
        raise Undecodable("the answer is not JSON") from exc


def _cut(body: bytes, mark: str) -> tuple[bytes, dict[str, bytes]]:
    """Cut the data URIs out of the raw JSON, with a placeholder in the place of each."""
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    images: dict[str, bytes] = {}
    done = at = 0
    for _ in range(_MAX_CUTS):
        at = body.find(b'"data:', at)
        if at < 0:
            break
        comma = body.find(b";base64,", at, at + _MAX_PREFIX)
        start = comma + len(b";base64,")
        end = body.find(b'"', at + 1)
        # A quote after a backslash is text inside of a string, and does not open one.
        if (at and body[at - 1 : at] == b"\\") or comma < 0 or end < start or _COLON.match(body, end + 1):
            at += 1
            continue
        try:
            image = pybase64.b64decode(view[start:end], validate=True)
        except ValueError:
            # Escaped slashes, for one: the ordinary way below takes those.
            at = start
            continue
        token = f"{mark}{len(images)}"
        images[token] = image
        pieces += [view[done : at + 1], token.encode()]
        done = at = end
    return (b"".join([*pieces, view[done:]]) if pieces else body), images


def _restore(value: Json, mark: str, images: Mapping[str, bytes]) -> Json:
    if isinstance(value, str):
        if value.startswith(mark):
            return images.get(value, value)
        return _decoded(value) if value.startswith("data:") else value
    if isinstance(value, list):
        return [_restore(item, mark, images) for item in value]
    if isinstance(value, dict):
        return {key: _restore(item, mark, images) for key, item in value.items()}
    return value


def _decoded(text: str) -> Json:
    _, found, data = text.partition(";base64,")
    if not found:
        return text
    try:
        return pybase64.b64decode("".join(data.split()), validate=True)
    except ValueError:
        return text


_DATA_URI = re.compile(r"data:[\w.+/-]*[;,][^\s\"'<>]*")
_QUERY = re.compile(r"(https?://[^\s?\"'<>]*)\?[^\s\"'<>]*")
# Keys, tokens and pictures without their prefix; no word of a sentence is this long.
_KEY = re.compile(r"\b(?:(?:Bearer|Key|Token)\s+(?=\S*[0-9])[^\s\"'<>,;]{6,}|(?:r8_|SG_|sk-|afk_|whsec_)[\w+/=-]{6,})")
_BLOB = re.compile(r"[\w+/=:-]{40,}")


def excerpt(text: str, limit: int = 200) -> str:
    """Return what may be shown of a foreign message: printable, one line, `limit` characters, no picture, no key."""
    # The expressions only ever see a beginning: a message may be a megabyte of anything.
    text = text[: limit * 20]
    text = _BLOB.sub("…", _KEY.sub("…", _QUERY.sub(r"\1?…", _DATA_URI.sub("data:…", text))))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def detail(body: bytes) -> str:
    """Return the message of a JSON error body as an excerpt, "" where it has none.

    Read are the documented places alone (`detail`, `error`, `message`, `title`; in a validation error `loc` and
    `msg`): everything else may echo the input.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return excerpt(_message(value))


def leaves(
    value: Json, keys: Sequence[str], counts: Callable[[str | bytes], bool] = bool, depth: int = 0
) -> list[str | bytes]:
    """The texts and bytes in a part of an answer that `counts` accepts: of a list all, of an object those under the
    first key that has any. What lies deeper than any provider's answer is none.
    """
    if isinstance(value, str | bytes):
        return [value] if counts(value) else []
    if depth > _DEEPEST:
        return []
    if isinstance(value, list):
        return [found for item in value for found in leaves(item, keys, counts, depth + 1)]
    if isinstance(value, dict):
        return next(filter(None, (leaves(value.get(key), keys, counts, depth + 1) for key in keys)), [])
    return []


def _message(value: object, depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_message(item, depth + 1) for item in value[:8])))
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("msg"), str):
        loc = value.get("loc")
        where = ".".join(str(part) for part in loc if part != "body") if isinstance(loc, list) else ""
        return f"{where}: {value['msg']}" if where else value["msg"]
    for key in ("detail", "error", "message", "title"):
        if found := _message(value.get(key), depth + 1):
            return found
    return ""
