"""Who may come in: the host that was asked for, the key, and what its limits leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send
from typing_extensions import override

from gateway.api import problems, rate_limit
from gateway.api.loopback import check_local, host_in
from gateway.api.rights import DEFAULT, Access, GuardedRoute, check_admin
from gateway.auth.authenticator import Doors
from gateway.auth.grant import OPERATOR, Grant
from gateway.database.writer import LedgerDown
from gateway.http.errors import ApiError
from gateway.http.headers import check_headers, check_query
from gateway.telemetry import metrics

# Probes, and whoever has a file's address: they are let in, and nothing is theirs.
_NOBODY = Grant(id="")
# A probe is answered whatever the ledger does: it waits no longer to learn whose it is.
_GLANCE_S = 0.5


class Gate(Router):
    """The router, which hands a request to the route that it matched as far as that route's rights let its key."""

    def __init__(
        self,
        routes: Iterable[GuardedRoute],
        *,
        lifespan: Lifespan[Any],
        doors: Callable[[], Doors],
        hosts: Sequence[str] = (),
    ) -> None:
        super().__init__(lifespan=lifespan, redirect_slashes=False)
        self.table = tuple(routes)
        self._doors = doors
        self._hosts = frozenset(host for host in hosts if not host.startswith("*."))
        self._suffixes = tuple(host[1:] for host in hosts if host.startswith("*."))

    @override
    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or raise ApiError, and HTTPException for no such path or method."""
        if scope["type"] != "http":
            await super().app(scope, receive, send)
            return
        route = self._matched(scope)
        access = DEFAULT if route is None else route.access(scope["method"])
        headers = Headers(scope=scope)
        if route is None or not route.any_host:
            self._check_host(headers)
        if access is not Access.PUBLIC:
            check_headers(headers)
        grant = await self._admit(access, scope, headers)
        scope["darkroom.grant"] = grant
        if access is Access.ADMIN:
            check_admin(grant)
        app = self.default if route is None else route.handle
        row = None if route is None else route.row(scope["method"])
        if row is not None and row.query is not None:
            check_query(QueryParams(scope["query_string"]), row.query)
        if row is not None and access is Access.METERED:
            await self._metered(app, grant, scope, receive, send)
        else:
            await app(scope, receive, send)

    def _matched(self, scope: Scope) -> GuardedRoute | None:
        """The route of a request: the only place where its path is looked at. A path is that of one route at most."""
        for route in self.table:
            match, found = route.matches(scope)
            if match is not Match.NONE:
                scope.update(found, route=route)
                return route
        return None

    async def _metered(self, app: ASGIApp, grant: Grant, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application as far as a key's limits let. Raises ApiError before it has seen anything."""
        rates = self._doors().rates
        if stands := await rate_limit.count(rates, grant):
            send = _adding(send, stands)
        if grant.concurrency is not None and not rates.enter(grant.id, grant.concurrency):
            metrics.REFUSED.labels("concurrency").inc()
            raise problems.too_many(f"{grant.concurrency} requests at once", 1)
        try:
            await app(scope, receive, send)
        finally:
            if grant.concurrency is not None:
                rates.leave(grant.id)

    async def _admit(self, access: Access, scope: Scope, headers: Headers) -> Grant:
        """Whose a request is. Raises ApiError 401, 403, and 503 where that cannot be told."""
        if access is Access.PUBLIC:
            return _NOBODY
        if access is Access.OPTIONAL:
            try:
                async with asyncio.timeout(_GLANCE_S):
                    return await self._known(scope, headers)
            except (ApiError, TimeoutError):
                return _NOBODY
        return await self._known(scope, headers)

    async def _known(self, scope: Scope, headers: Headers) -> Grant:
        """Whose the key of a request is. Raises ApiError 401, 403, and 503 where that cannot be told."""
        doors = self._doors()
        try:
            if (grant := await doors.admit(headers)) is not None:
                return grant
            closed = await doors.closed(headers)
        except LedgerDown:
            raise problems.unreadable() from None
        if closed:
            message = (
                "Incorrect API key provided. Send one of the server's keys as 'Authorization: Bearer …'; "
                "`darkroom serve` says where the first one is kept."
            )
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        check_local(scope, headers)
        return OPERATOR

    def _check_host(self, headers: Headers) -> None:
        if not (self._hosts or self._suffixes):
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
