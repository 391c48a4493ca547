"""Request bodies: read up to a limit, and decoded without passing images through the JSON decoder.

The JSON decoder holds the GIL for 100 ms on a body of 128 MiB; pybase64 releases it.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import NoReturn

import pybase64
from starlette.requests import Request

from providers.worker.answers import WorkerError, unprocessable

# How long a client may pause while sending a body.
_STALL_S = 30.0
# For smaller bodies, switching to a thread costs more than the work.
INLINE_BYTES = 200_000
_OPENING = re.compile(rb'"data:([\w.+-]{1,60}/[\w.+-]{1,60});base64,')
# A string before a colon is a key, never an image.
_COLON = re.compile(rb"\s*:")
_MAX_CUTS = 64


@dataclass(frozen=True, slots=True)
class DataUri:
    """A decoded base64 data URI from a JSON string."""

    mime: str
    data: bytes = field(repr=False)

    def text(self) -> str:
        """Return the original string."""
        return f"data:{self.mime};base64,{pybase64.b64encode_as_string(self.data)}"


async def read(request: Request, max_bytes: int) -> bytes:
    """Read a JSON body of up to `max_bytes` bytes.

    Raises WorkerError: 413 as soon as it is larger, 415 for another content type, 408 if the client stalls. Raises
    Starlette's ClientDisconnect if the client disconnects.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    # A BytesIO returns its bytes without copying; joining a list would copy.
    buffer = io.BytesIO()
    chunks = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(_STALL_S):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise WorkerError(408, f"The request body stalled for {_STALL_S:.0f} seconds") from None
        if chunk is None:
            break
        if buffer.tell() + len(chunk) > max_bytes:
            raise _too_large(max_bytes)
        buffer.write(chunk)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if buffer.tell() and kind != "application/json" and not (kind[:12] == "application/" and kind[-5:] == "+json"):
        raise WorkerError(415, "Expected request with `Content-Type: application/json`")
    return buffer.getvalue()


def parse(body: bytes) -> dict[str, object]:
    """Decode a JSON object; each string that is a base64 data URI becomes a DataUri. An empty body is an empty object.

    Slow for large bodies. Raises WorkerError: 400 if it is not JSON, 422 if it is not an object.
    """
    if not body:
        return {}
    mark = secrets.token_hex(16)
    rest, found = _cut(body, mark)
    try:
        value = json.loads(rest.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        # The decoder's message contains a position but no content.
        raise WorkerError(400, f"Failed to parse the request body as JSON: {error}") from None
    if not isinstance(value, dict):
        raise unprocessable(["body"], "the body must be an object")
    return {key: _put_back(item, mark, found) for key, item in value.items()}


def _too_large(max_bytes: int) -> WorkerError:
    return WorkerError(413, f"The body is larger than {max_bytes} bytes")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _cut(body: bytes, mark: str) -> tuple[bytes, list[DataUri]]:
    """Return the body with each data URI replaced by a mark, and the data URIs."""
    pieces: list[bytes] = []
    found: list[DataUri] = []
    kept = at = 0
    while len(found) < _MAX_CUTS and (at := body.find(b'"data:', at)) >= 0:
        end = -1
        # A quote after a backslash does not start a string.
        if body[at - 1 : at] != b"\\" and (opening := _OPENING.match(body, at)):
            end = body.find(b'"', opening.end())
        if end < 0 or opening is None or _COLON.match(body, end + 1):
            at += 1
            continue
        try:
            data = pybase64.b64decode(memoryview(body)[opening.end() : end], validate=True)
        except ValueError:
            at = end
            continue
        pieces += [body[kept:at], f'"{mark}{len(found)}"'.encode()]
        found.append(DataUri(opening[1].decode(), data))
        kept = at = end + 1
    return b"".join([*pieces, body[kept:]]), found


def _put_back(value: object, mark: str, found: list[DataUri]) -> object:
    if isinstance(value, str) and value.startswith(mark):
        return found[int(value[len(mark) :])]
    if isinstance(value, dict):
        return {key: _put_back(item, mark, found) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_back(item, mark, found) for item in value]
    return value
