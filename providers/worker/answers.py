"""Responses: JSON around an image that bypasses the JSON encoder, and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# The size of one write to the socket, so that a slow reader does not keep whole responses in socket buffers.
_CHUNK_BYTES = 256 * 1024


class WorkerError(Exception):
    """An error response instead of a prediction: a JSON object or plain text."""

    def __init__(self, status: int, body: Mapping[str, object] | str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body

    def response(self) -> Response:
        if isinstance(self.body, str):
            return Response(self.body, self.status, media_type="text/plain")
        return StreamedAnswer([to_json(self.body)], self.status)


def unprocessable(loc: Sequence[str], message: str) -> WorkerError:
    """Return a 422 error about one field of the body."""
    return WorkerError(422, {"detail": [{"loc": list(loc), "msg": message, "type": "value_error"}]})


def to_json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def around(body: Mapping[str, object], key: str, text: Sequence[bytes]) -> list[bytes]:
    """Return `body` (not empty) as JSON with one more member: a string, in pieces that need no escaping."""
    return [to_json(body)[:-1], f',"{key}":"'.encode(), *text, b'"}']


class StreamedAnswer(Response):
    """A JSON response whose pieces are sent one after another in slices, without being joined."""

    media_type = "application/json"

    def __init__(self, pieces: Sequence[bytes], status: int = 200) -> None:
        super().__init__(None, status, {"content-length": str(sum(map(len, pieces)))})
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for chunk in slices(self._pieces):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def slices(pieces: Sequence[bytes]) -> Iterator[memoryview | bytes]:
    """Yield the pieces in slices of one write, without copying."""
    for piece in pieces:
        if len(piece) <= _CHUNK_BYTES:
            yield piece
            continue
        view = memoryview(piece)
        for start in range(0, len(piece), _CHUNK_BYTES):
            yield view[start : start + _CHUNK_BYTES]
