"""Server-sent events: OpenAI's event stream, kept open by comments, with errors in the envelope."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.http.errors import ApiError, envelope
from gateway.telemetry.logs import event
from providers.http.bodies import BodyPart, encode_chunks

_COMMENT = b": the image is being generated\n\n"


class EventStream(Response):
    """Sends events as they come, each in pieces, and a comment whenever `keep_alive` seconds were silent."""

    def __init__(
        self,
        events: AsyncIterator[Sequence[BodyPart]],
        *,
        keep_alive: float,
        headers: Mapping[str, str],
        gone: Callable[[], bool],
        closed: Callable[[bool], None],
    ) -> None:
        super().__init__(headers=dict(headers), media_type="text/event-stream")
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"
        self._events = events
        self._keep_alive = keep_alive
        self._gone = gone
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until its events end or the client disconnects, and report whether all of it was sent."""
        whole = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send(_body(_COMMENT))
            try:
                whole = await self._pump(send)
            except ApiError as error:
                await send(_body(_error(error)))
            self._closed(whole)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            event("stream.left")  # the client is gone; what that means for the job is the caller's
        finally:
            self._closed(False)

    async def _pump(self, send: Send) -> bool:
        """Send all events; false if the client disconnected before."""
        while not self._gone():
            following = asyncio.ensure_future(anext(self._events, None))
            try:
                while not (await asyncio.wait({following}, timeout=self._keep_alive))[0]:
                    await send(_body(_COMMENT))
            finally:
                if not following.done():
                    following.cancel()
            pieces = following.result()
            if pieces is None:
                return True
            for chunk in encode_chunks(pieces):
                await send(_body(chunk))
        return False


def _error(error: ApiError) -> bytes:
    return b"event: error\ndata: " + json.dumps(envelope(error), separators=(",", ":")).encode() + b"\n\n"


def _body(piece: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": piece, "more_body": True}
