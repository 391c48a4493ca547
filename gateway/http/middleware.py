"""The outermost middleware: request id, timing, metrics, log line, headers, CORS, and errors of last resort."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from gateway.http.errors import ApiError, internal, respond
from gateway.http.host import check_path, networks, plain_path, seen_through
from gateway.settings import GatewaySettings
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from providers.http.ids import token_hex

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# On every answer that does not say otherwise itself: none of ours is a page, and none belongs into a shared cache.
_HYGIENE: tuple[tuple[str, str], ...] = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class RequestMiddleware:
    """Pure ASGI: a base class of middleware would copy every body and hide disconnects."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._trusted = networks(settings.trusted_proxies)
        self._hsts = f"max-age={settings.hsts_s}" if settings.hsts_s else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        scope = _plain(seen_through(scope, self._trusted))
        request_id = _request_id(Headers(scope=scope))
        scope["darkroom.request_id"] = request_id
        scope["darkroom.arrived_at"] = time.time()
        status = 500
        started = False

        async def sending(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                outgoing = MutableHeaders(scope=message)
                for name, value in _HYGIENE:
                    outgoing.setdefault(name, value)
                if self._hsts is not None and scope["scheme"] == "https":
                    outgoing["strict-transport-security"] = self._hsts
                outgoing["x-request-id"] = request_id
                outgoing["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            await send(message)

        metrics.IN_FLIGHT.inc()
        try:
            await self._answering(scope)(scope, receive, sending)
        except Exception:  # noqa: BLE001 - the last resort: whatever it was, the caller gets the envelope
            event("request.crashed", logging.ERROR, request_id=request_id, path=scope["path"], exc_info=True)
            if not started:
                await respond(internal())(scope, receive, sending)
        finally:
            metrics.IN_FLIGHT.dec()
            self._record(scope, status, time.perf_counter() - began, request_id)

    def _answering(self, scope: Scope) -> ASGIApp:
        """What answers: the application, or the error for an invalid path."""
        try:
            check_path(scope["path"])
        except ApiError as refusal:
            return respond(refusal)
        return self._app

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


def _plain(scope: Scope) -> Scope:
    """A request with the normalized path that everything behind this middleware sees: router, rights, errors, log."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None or (plain := plain_path(raw)) == raw:
        return scope
    return {**scope, "raw_path": plain, "path": unquote(plain.decode("latin-1"))}


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{token_hex(12)}"


# What a script may read of an answer's headers.
_EXPOSED = (
    *("x-request-id", "retry-after", "x-should-retry", "idempotent-replayed", "location"),
    *(f"x-darkroom-{name}" for name in ("job", "provider", "model", "cost", "attempts", "degraded")),
    *(f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset")),
)


class CorsMiddleware(CORSMiddleware):
    """Outside authentication: a preflight has no API key, and scripts must be able to read errors too."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
            max_age=600,
        )

    @override
    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        message = "Scripts of this page may not make this request: add its origin to `cors_origins`."
        refusal = respond(ApiError(403, message, code="origin_not_allowed"))
        refusal.headers["vary"] = answer.headers["vary"]
        return refusal
