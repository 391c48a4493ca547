"""HTTP/1.1 for untrusted clients: uvicorn's protocol, with limits on all that a client may delay or accumulate."""

from __future__ import annotations

import asyncio
import json
import select
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.http.backpressure import ClientReader, CountingTransport, hold_little
from gateway.http.errors import ApiError, envelope
from gateway.http.host import normalize_host_header
from gateway.telemetry import metrics

# What is still coming in when its answer is out is thrown away for so long, as nginx does: a connection that is closed
# over unread bytes is reset, and its client may never see the answer.
_LINGER_S = 30.0
# A client that was turned away at the door gets less: it costs a place.
_SHORT_LINGER_S = 1.0
# A client that takes less than this of an answer in `send_timeout_s` counts as one that takes nothing, in any case.
_LEAST_TAKEN_BYTES = 64 << 10
# So often in that time it is looked at.
_LOOKS = 8
# Where all places are taken, a connection that has asked for nothing for so long makes room for another one.
_IDLE_S = 1.0
# The name, the colon, the space and the end of the line.
_LINE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What a connection may take. Times in seconds; `max_header_bytes` is for a request's line and all its headers.

    `min_answer_bytes_per_s` is how fast an answer has to be taken on average: who is behind by what that makes in
    `send_timeout_s` is cut off.

    `max_connections_per_address` counts the connections of one peer, 0 for no limit: behind a proxy it is the proxy.
    """

    header_timeout_s: float = 10
    send_timeout_s: float = 60
    min_answer_bytes_per_s: int = 0
    max_header_bytes: int = 64 << 10
    max_headers: int = 100
    max_connections: int = 2000
    max_connections_per_address: int = 0


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection.

    uvicorn itself waits for ever for the rest of a request's head, for a client that does not read, and closes over
    what it has not read. `patience` is given by a `functools.partial`.
    """

    def __init__(self, *args: Any, patience: ConnectionLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience = patience
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._reader = ClientReader(
            max(patience.min_answer_bytes_per_s, _LEAST_TAKEN_BYTES / patience.send_timeout_s), patience.send_timeout_s
        )
        self._quiet_since = 0.0
        self._in_head = False
        self._head_bytes = 0
        self._idle_bytes = 0
        self._refusal: ApiError | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        hold_little(transport)
        self._counting = CountingTransport(transport)
        super().connection_made(self._counting)  # type: ignore[arg-type]  # all of a transport but its class
        self._quiet_since = self.loop.time()
        if len(self.connections) > self._patience.max_connections:
            self._make_room()
        limit, own_limit = self._patience.max_connections, self._patience.max_connections_per_address
        if len(self.connections) > 2 * limit:
            transport.abort()
        elif len(self.connections) > limit or (own_limit and self._neighbours() > own_limit):
            metrics.SHED.labels("connections").inc()
            self._refuse(_too_many_connections(), linger_s=_SHORT_LINGER_S)
        else:
            self._arm_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._send_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._linger_timer is not None or self.transport.is_closing():
            return
        if not self._answering and self._head_timer is None:
            self._arm_head()
        before = self._idle_bytes
        self._idle_bytes += len(data)
        super().data_received(data)
        # The parser keeps an unfinished line however long it is, and says nothing of it. What came with a line's end or
        # with a piece of a body has been counted, or handed on.
        if before + len(data) == self._idle_bytes > self._patience.max_header_bytes and not self.transport.is_closing():
            self._refuse(_head_too_large(self._patience))

    @override
    def send_400_response(self, msg: str) -> None:
        error = self._refusal or ApiError(400, "This is not valid HTTP/1.1.", code="invalid_http")
        if self._answering and self.cycle.response_started:
            self.transport.abort()  # another answer is half out: nothing may be written into it
        else:
            self._refuse(error)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._idle_bytes = 0

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + _LINE_BYTES)
        # What comes behind a chunked body would become a header of a request that was let in without it.
        if self._in_head:
            super().on_header(name, value)
            if len(self.headers) > self._patience.max_headers:
                self._stop(ApiError(431, f"The request has more than {self._patience.max_headers} headers.",
                                    code="headers_too_large"))  # fmt: skip

    @override
    def on_headers_complete(self) -> None:
        self._in_head = False
        self._idle_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        try:
            normalize_host_header(self.url, self.parser.get_http_version(), self.headers)
        except ApiError as error:
            self._stop(error)
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        super().on_message_complete()

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        super()._start_asgi_task(cycle, self._closing_early(cycle, app))  # type: ignore[arg-type]

    def _closing_early(self, cycle: RequestResponseCycle, app: ASGIApp) -> ASGIApp:
        """An application whose answers end the connection where they come before the request's body has."""

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            early = False

            async def sending(message: Message) -> None:
                nonlocal early
                if message["type"] == "http.response.start" and cycle.more_body:
                    early = True
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
                last = message["type"] == "http.response.body" and not message.get("more_body", False)
                if early and last:
                    # Not closed by the cycle, which would do it at once; see on_response_complete.
                    cycle.keep_alive = True
                await send(message)
                if early and last and not cycle.disconnected:
                    self._linger(_LINGER_S)

            await app(scope, receive, sending)

        return call

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._quiet_since = self.loop.time()
        self._watch_sending()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    @override
    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_sending()

    @property
    def _answering(self) -> bool:
        """Whether a request is under way whose answer is not out yet."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _make_room(self) -> None:
        """End the connection that has been without a request for longest, among those of the peer with the most.

        One whose bytes have come and were not read yet, as this process was busy, is not without a request.
        """
        limit = self.loop.time() - _IDLE_S
        every = [one for one in self.connections if isinstance(one, LimitedHttpProtocol)]
        idle = [(since, one) for one in every if (since := one.idle_since) is not None and since <= limit]
        peers = Counter(one.client and one.client[0] for _, one in idle)
        for _, oldest in sorted(idle, key=lambda pair: (-peers[pair[1].client and pair[1].client[0]], pair[0])):
            if not _has_unread(oldest.transport):
                metrics.CUT.labels("idle").inc()
                self.connections.discard(oldest)
                oldest.transport.abort()
                return

    @property
    def idle_since(self) -> float | None:
        """Since when there is no request here, whole; None while one is answered, and where the connection ends."""
        return None if self._answering or self.transport.is_closing() else self._quiet_since

    def _count(self, size: int) -> None:
        self._idle_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._patience.max_header_bytes:
            self._stop(_head_too_large(self._patience))

    def _stop(self, error: ApiError) -> None:
        """Out of the parser's callbacks, which turns into `send_400_response`."""
        self._refusal = error
        raise ValueError(error.message)

    def _neighbours(self) -> int:
        """The connections of this one's peer, itself included."""
        own = self.client and self.client[0]
        return sum(isinstance(one, HttpToolsProtocol) and (one.client and one.client[0]) == own
                   for one in self.connections)  # fmt: skip

    def _arm_head(self) -> None:
        self._head_timer = self.loop.call_later(self._patience.header_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        metrics.CUT.labels("head").inc()
        if self._in_head:
            message = f"The request's headers did not arrive within {self._patience.header_timeout_s:g} seconds."
            self._refuse(ApiError(408, message, code="request_timeout"))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError, *, linger_s: float = _LINGER_S) -> None:
        """Answer without the application, and close the connection."""
        body = json.dumps(envelope(error)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in {**headers, **error.headers}.items()]
        self.transport.write("\r\n".join((*lines, "", "")).encode() + body)
        if self._answering:
            # The application is told that its client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._linger(linger_s)

    def _linger(self, seconds: float) -> None:
        """Nothing more is answered; what comes is thrown away until the client ends it, or for some seconds."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.pipeline.clear()
        self.flow.resume_reading()
        self._linger_timer = self.loop.call_later(seconds, self._linger_no_more)

    def _linger_no_more(self) -> None:
        self.transport.close()
        self._watch_sending()

    def _watch_sending(self) -> None:
        """See to it that what is written is taken, also where the connection is closing."""
        if self._send_timer is None and self._is_slow() is not None:
            self._send_timer = self.loop.call_later(self._patience.send_timeout_s / _LOOKS, self._look_at_sending)

    def _look_at_sending(self) -> None:
        self._send_timer = None
        if self._is_slow():
            metrics.CUT.labels("answer").inc()
            self.transport.abort()
            return
        self._watch_sending()

    def _is_slow(self) -> bool | None:
        """Whether the client takes too little of what is written; None where nothing is."""
        unsent = self.transport.get_write_buffer_size()
        late = self._reader.is_late(self.loop.time(), self._counting.written - unsent, unsent)
        return late if unsent else None


def _has_unread(transport: asyncio.Transport) -> bool:
    """Whether a connection has unread bytes."""
    connection = transport.get_extra_info("socket")
    looking = select.poll()
    looking.register(connection.fileno(), select.POLLIN)
    return any(event & select.POLLIN for _, event in looking.poll(0))


def _head_too_large(patience: ConnectionLimits) -> ApiError:
    message = f"The request's line and headers are larger than {patience.max_header_bytes} bytes."
    return ApiError(431, message, code="headers_too_large")


def _too_many_connections() -> ApiError:
    message = "The server has reached its connection limit. Try again in a few seconds."
    return ApiError(503, message, type="server_error", code="overloaded", headers={"retry-after": "5"})
