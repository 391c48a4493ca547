"""The outermost layer: request id, access, timing, metrics, log line, and the last resort for errors."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.doors import Doors
from gateway.access.grant import OPERATOR, Grant
from gateway.api import failures
from gateway.api.errors import ApiError
from gateway.api.handlers import internal, respond
from gateway.database.writer import LedgerDown
from gateway.telemetry import metrics
from gateway.telemetry.logs import event

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Served without a key: probes know none, and the address of a file, or of a webhook, is its own secret.
_OPEN = re.compile(r"/(healthz|readyz|files/.*|hooks/.*)?")
# What a key's limits count: the calls that may buy something.
_METERED = re.compile(r"(/openai)?/v1/images/edits")
# What tells of all keys, or makes them.
_ADMIN = re.compile(r"/metrics|(/openai)?/v1/keys(/.*)?")
_FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"})
# On every answer that does not say otherwise itself: none of ours is a page, and none belongs into a shared cache.
_HYGIENE: tuple[tuple[str, str], ...] = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Probes, and whoever has a file's address: they are let in, and nothing is theirs.
_NOBODY = Grant(id="")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class Edge:
    """Pure ASGI: a base class of middleware would copy every body and hide disconnects."""

    def __init__(self, app: ASGIApp, *, doors: Callable[[], Doors]) -> None:
        self._app = app
        self._doors = doors

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
                for name, value in _HYGIENE:
                    outgoing.setdefault(name, value)
                outgoing["x-request-id"] = request_id
                outgoing["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            await send(message)

        metrics.IN_FLIGHT.inc()
        try:
            await self._enter(scope, headers, receive, sending)
        except ApiError as refusal:
            await respond(refusal)(scope, receive, sending)
        except Exception:  # noqa: BLE001 - the last resort: whatever it was, the caller gets the envelope
            event("request.crashed", logging.ERROR, request_id=request_id, path=scope["path"], exc_info=True)
            if not started:
                await respond(internal())(scope, receive, sending)
        finally:
            metrics.IN_FLIGHT.dec()
            self._record(scope, status, time.perf_counter() - began, request_id)

    async def _enter(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Let a request in as far as its key may come. Raises ApiError before the application has seen anything."""
        grant = await self._admit(scope["path"], headers)
        scope["darkroom.grant"] = grant
        if _ADMIN.fullmatch(scope["path"]) and not grant.admin:
            message = "This takes the admin's key: DARKROOM_ADMIN_KEY, or one made with `darkroom keys create --admin`."
            raise ApiError(403, message, code="admin_key_required")
        if scope["method"] != "POST" or not _METERED.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        rates = self._doors().rates
        if grant.rpm is not None:
            rate = await rates.take(grant.id, grant.rpm)
            if not rate.allowed:
                metrics.REFUSED.labels("rate").inc()
                raise failures.too_many(f"{grant.rpm} requests a minute", rate.retry_after, rate.headers())
            send = _adding(send, rate.headers())
        if grant.concurrency is not None and not rates.enter(grant.id, grant.concurrency):
            metrics.REFUSED.labels("concurrency").inc()
            raise failures.too_many(f"{grant.concurrency} requests at once", 1)
        try:
            await self._app(scope, receive, send)
        finally:
            if grant.concurrency is not None:
                rates.leave(grant.id)

    async def _admit(self, path: str, headers: Headers) -> Grant:
        """Whose a request is. Raises ApiError 401, 403, and 503 where that cannot be told."""
        if _OPEN.fullmatch(path):
            return _NOBODY
        doors = self._doors()
        try:
            if (grant := await doors.admit(headers)) is not None:
                return grant
            closed = await doors.closed()
        except LedgerDown:
            raise failures.unreadable() from None
        if closed:
            message = "Incorrect API key provided. Send one of the server's keys as 'Authorization: Bearer …'."
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        # Without keys only this machine is served, and a web page open in its browser is a stranger all the same.
        # So is whoever stands behind a proxy on it.
        addresses = [f"//{headers.get('host', '')}", *filter(None, headers.getlist("origin"))]
        forwarded = any(name in _FORWARDED for name in headers)
        if forwarded or any(_host(address) not in _LOOPBACK for address in addresses):
            message = (
                "This server has no API keys and serves its own machine only: set DARKROOM_API_KEYS, or make one with "
                "`darkroom keys create`."
            )
            raise ApiError(403, message, code="loopback_only")
        return OPERATOR

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


def _adding(send: Send, headers: Mapping[str, str]) -> Send:
    """Send with headers added."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return adding


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _host(address: str) -> str | None:
    """The host in an address; None where it has none, or cannot be read."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
