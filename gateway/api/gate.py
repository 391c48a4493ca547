"""Who may come in: the host that was asked for, the key, and what its limits leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.doors import Doors
from gateway.access.grant import OPERATOR, Grant
from gateway.api import failures
from gateway.api.errors import ApiError
from gateway.api.handlers import respond
from gateway.api.loopback import check_local, host_in
from gateway.database.writer import LedgerDown
from gateway.telemetry import metrics

# Served without a key: probes know none, and the address of a file, or of a webhook, is its own secret.
_OPEN = re.compile(r"/(healthz|readyz|files/.*|hooks/.*)?")
# What a key's limits count: the calls that may buy something.
_METERED = re.compile(r"(/openai)?/v1/images/edits")
# What tells of all keys, or makes them.
_ADMIN = re.compile(r"/metrics|(/openai)?/v1/keys(/.*)?")
# Probes, and whoever has a file's address: they are let in, and nothing is theirs.
_NOBODY = Grant(id="")
# Probes come to a process by its own address, whatever names the server has.
_PROBES = frozenset({"/healthz", "/readyz"})


class Gate:
    """Pure ASGI, inside of what every answer gets."""

    def __init__(self, app: ASGIApp, *, doors: Callable[[], Doors], hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._doors = doors
        self._hosts = frozenset(host for host in hosts if not host.startswith("*."))
        self._suffixes = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer with why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._enter(scope, Headers(scope=scope), receive, send)
        except ApiError as refusal:
            await respond(refusal)(scope, receive, send)

    async def _enter(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Let a request in as far as its key may come. Raises ApiError before the application has seen anything."""
        self._check_host(scope["path"], headers)
        grant = await self._admit(scope, headers)
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

    async def _admit(self, scope: Scope, headers: Headers) -> Grant:
        """Whose a request is. Raises ApiError 401, 403, and 503 where that cannot be told."""
        if _OPEN.fullmatch(scope["path"]):
            return _NOBODY
        doors = self._doors()
        try:
            if (grant := await doors.admit(headers)) is not None:
                return grant
            closed = await doors.closed(headers)
        except LedgerDown:
            raise failures.unreadable() from None
        if closed:
            message = (
                "Incorrect API key provided. Send one of the server's keys as 'Authorization: Bearer …'; "
                "`darkroom serve` says where the first one is kept."
            )
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        check_local(scope, headers)
        return OPERATOR

    def _check_host(self, path: str, headers: Headers) -> None:
        if not (self._hosts or self._suffixes) or path in _PROBES:
            return
        host = (host_in(f"//{headers.get('host', '')}") or "").rstrip(".")
        if host not in self._hosts and not host.endswith(self._suffixes):
            message = "This server does not answer for the host in this address: `allowed_hosts` names its own."
            raise ApiError(421, message, code="host_not_allowed")


def _adding(send: Send, headers: Mapping[str, str]) -> Send:
    """Send with headers added."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return adding
