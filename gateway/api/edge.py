"""The outermost layer: request id, access, timing, metrics, log line, and the last resort for errors."""

from __future__ import annotations

import logging
import re
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.keys import Keys
from gateway.api.errors import ApiError
from gateway.api.handlers import internal, respond
from gateway.telemetry import metrics
from gateway.telemetry.logs import event

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Served without a key: probes know none, and the address of a file, or of a webhook, is its own secret.
_OPEN = re.compile(r"/(healthz|readyz|files/.*|hooks/.*)?")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class Edge:
    """Pure ASGI: a base class of middleware would copy every body and hide disconnects."""

    def __init__(self, app: ASGIApp, *, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope["darkroom.request_id"] = request_id
        status = 500
        started = False

        async def sending(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                outgoing = MutableHeaders(scope=message)
                outgoing["x-request-id"] = request_id
                outgoing["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            await send(message)

        metrics.IN_FLIGHT.inc()
        try:
            if (refusal := self._refuse(scope, headers)) is not None:
                await respond(refusal)(scope, receive, sending)
                return
            await self._app(scope, receive, sending)
        except Exception:  # noqa: BLE001 - the last resort: whatever it was, the caller gets the envelope
            event("request.crashed", logging.ERROR, request_id=request_id, path=scope["path"], exc_info=True)
            if not started:
                await respond(internal())(scope, receive, sending)
        finally:
            metrics.IN_FLIGHT.dec()
            self._record(scope, status, time.perf_counter() - began, request_id)

    def _refuse(self, scope: Scope, headers: Headers) -> ApiError | None:
        if self._keys:
            if _OPEN.fullmatch(scope["path"]):
                return None
            if (key := self._keys.admits(headers)) is not None:
                scope["darkroom.key"] = key
                return None
            message = "Incorrect API key provided. Send one of the server's keys as 'Authorization: Bearer …'."
            return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        # Without keys only this machine is served, and a web page open in its browser is a stranger all the same.
        addresses = [f"//{headers.get('host', '')}", *filter(None, headers.getlist("origin"))]
        for address in addresses:
            if _host(address) not in _LOOPBACK:
                message = "This server has no API keys and serves its own machine only: set DARKROOM_API_KEYS."
                return ApiError(403, message, code="loopback_only")
        return None

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics.REQUESTS.labels(route, method, str(status)).inc()
        metrics.REQUEST_SECONDS.labels(route).observe(seconds)
        quiet = route in ("/healthz", "/readyz", "/metrics")
        event(
            "request",
            logging.DEBUG if quiet else logging.INFO,
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            model=scope.get("darkroom.model"),
        )


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _host(address: str) -> str | None:
    """The host in an address; None where it has none, or cannot be read."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
