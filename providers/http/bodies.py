"""JSON with pictures in it, out and in, without a picture ever passing through a JSON codec.

A JSON codec holds the interpreter while it copies a string; pybase64 lets go of it. So pictures are put between the
pieces of encoded JSON, and cut out of an answer before it is decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast

import anyio.to_thread
import httpx
import pybase64

from normalization.values import Image, Value
from providers.base import Rejected, Undecodable
from providers.http.gather import Gathered
from providers.http.ids import token_hex
from providers.http.pieces import Piece, chunks, length
from providers.memory import Reading

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

    pieces: tuple[Piece, ...] = field(repr=False)

    @property
    def length(self) -> int:
        """Length in bytes."""
        return length(self.pieces)

    @property
    def headers(self) -> dict[str, str]:
        """The length is told so that the body is not sent chunked, which some servers refuse."""
        return {"content-type": "application/json", "content-length": str(self.length)}

    def whole(self) -> bytes:
        """All of it at once: for small ones."""
        return b"".join(chunks(self.pieces))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in chunks(self.pieces):
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
    pieces: list[Piece] = [first]
    for image, following in zip(images, others, strict=True):
        pieces[-1] = b"".join([cast("bytes", pieces[-1]), f'"data:{image.media_type};base64,'.encode()])
        pieces += [image, b'"' + following]
    return Body(tuple(pieces))


def encoded_size(payload: Mapping[str, Value]) -> int:
    """Return the bytes that the pictures of `payload` take as base64, without encoding them."""
    return length(_images(dict(payload)))


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
    gathered, reading = Gathered(), Reading()
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
    rest, pictures = _cut(body, mark)
    try:
        value: Json = json.loads(rest)
        return _restore(value, mark, pictures)
    except (ValueError, RecursionError) as exc:
        raise Undecodable("the answer is not JSON") from exc


def _cut(body: bytes, mark: str) -> tuple[bytes, dict[str, bytes]]:
    """Cut the data URIs out of the raw JSON, with a placeholder in the place of each."""
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    pictures: dict[str, bytes] = {}
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
            picture = pybase64.b64decode(view[start:end], validate=True)
        except ValueError:
            # Escaped slashes, for one: the ordinary way below takes those.
            at = start
            continue
        token = f"{mark}{len(pictures)}"
        pictures[token] = picture
        pieces += [view[done : at + 1], token.encode()]
        done = at = end
    return (b"".join([*pieces, view[done:]]) if pieces else body), pictures


def _restore(value: Json, mark: str, pictures: Mapping[str, bytes]) -> Json:
    if isinstance(value, str):
        if value.startswith(mark):
            return pictures.get(value, value)
        return _decoded(value) if value.startswith("data:") else value
    if isinstance(value, list):
        return [_restore(item, mark, pictures) for item in value]
    if isinstance(value, dict):
        return {key: _restore(item, mark, pictures) for key, item in value.items()}
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
