"""Authentication and authorization of requests.

The rights are stated for each method of each route, and decided by the route that matched. What no
route states is denied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIRouter
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send
from typing_extensions import override

from gateway.auth.authenticator import Authenticator
from gateway.auth.keys import OPERATOR, ApiKey
from gateway.auth.rate_limits import RateLimiter
from gateway.database.writer import LedgerDown
from gateway.http import errors
from gateway.http.errors import ApiError
from gateway.http.headers import check_headers, check_query
from gateway.http.host import check_local, host_in
from gateway.telemetry import metrics

P = ParamSpec("P")
Endpoint = Callable[..., Awaitable[Response]]


class Permission(IntEnum):
    """What a request needs; each level asks for more than the one before it."""

    PUBLIC = 0
    """Nothing: for probes, and where the address is a secret of its own. An API key is not looked at."""
    OPTIONAL = 1
    """Nothing; an admin's API key gets a more detailed answer."""
    KEY = 2
    """A valid API key; a server without API keys accepts requests from its own machine."""
    METERED = 3
    """A valid API key, whose request limits count: the request may buy something."""
    ADMIN = 4
    """An admin's API key."""


DEFAULT = Permission.KEY
"""For a path that no route has: without an API key a client cannot find out which those are."""


@dataclass(frozen=True, slots=True)
class RouteRights:
    """Who may call one method of a path.

    `query` are parameters that the endpoint reads by itself, beside those that it declares. `any_query` leaves the
    query unchecked: what others append to such an address changes nothing. `any_host` exempts the row from
    `allowed_hosts`.
    """

    access: Permission
    query: tuple[str, ...] = ()
    any_query: bool = False
    any_host: bool = False


class GuardedRoute(APIRoute):
    """One method of one path, with its rights. A route without rights cannot be built."""

    def __init__(self, path: str, endpoint: Endpoint, *, rights: RouteRights, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.rights = rights

    @property
    def access(self) -> Permission:
        """What a request needs."""
        return self.rights.access

    @cached_property
    def query(self) -> frozenset[str] | None:
        """The query parameters that the endpoint takes; None where any are accepted."""
        if self.rights.any_query:
            return None
        return frozenset((*_query_of(self.dependant), *self.rights.query))


def _query_of(dependant: Dependant) -> Iterator[str]:
    """The query parameters of an endpoint, and of what it depends on."""
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_of(inner)


class GuardedRouter(APIRouter):
    """FastAPI's router, whose routes state their rights; they are served below each of `prefixes`."""

    def __init__(self, *prefixes: str) -> None:
        super().__init__(route_class=GuardedRoute, default_response_class=Response)
        self.prefixes = prefixes or ("",)

    def serve(
        self,
        method: str,
        path: str,
        access: Permission,
        *,
        query: tuple[str, ...] = (),
        any_query: bool = False,
        any_host: bool = False,
        **options: Any,
    ) -> Callable[[Callable[P, Awaitable[Response]]], Callable[P, Awaitable[Response]]]:
        """Register an endpoint with its rights. `options` are those of FastAPI's `APIRoute`."""
        rights = RouteRights(access, query, any_query, any_host)
        options = {"response_class": Response, **options}

        def register(endpoint: Callable[P, Awaitable[Response]]) -> Callable[P, Awaitable[Response]]:
            self.routes.append(GuardedRoute(path, endpoint, rights=rights, methods=[method], **options))
            return endpoint

        return register

    @property
    def guarded(self) -> Iterator[GuardedRoute]:
        """The routes, without a prefix."""
        return (route for route in self.routes if isinstance(route, GuardedRoute))


class GuardedPath(Route):
    """A path with a route for each of its methods. There is one entry a path, so that a 405 lists all methods."""

    def __init__(self, path: str, rows: Mapping[str, GuardedRoute]) -> None:
        self.rows = dict(rows)
        super().__init__(path, _unreachable, methods=list(rows))

    def row(self, method: str) -> GuardedRoute | None:
        """The route of a method, HEAD being answered wherever GET is; None for a method that is not allowed."""
        return self.rows.get("GET" if method == "HEAD" else method)

    def access(self, method: str) -> Permission:
        """What a request with this method needs; for a method that is not allowed, what the strictest route needs."""
        row = self.row(method)
        return max(one.access for one in self.rows.values()) if row is None else row.access

    @property
    def any_host(self) -> bool:
        """Whether the path is answered under every host name."""
        return all(row.rights.any_host for row in self.rows.values())

    @override
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the route of the method. Raises HTTPException 405 for a method that is not allowed."""
        row = self.row(scope["method"])
        if row is None:
            await super().handle(scope, receive, send)
        else:
            await row.app(scope, receive, send)


async def _unreachable(request: Request) -> Response:
    raise AssertionError("the routes of a path answer, and not the path")


def guarded_paths(routers: Iterable[GuardedRouter]) -> Iterator[GuardedPath]:
    """The paths of routers, below each of their prefixes."""
    rows: dict[str, dict[str, GuardedRoute]] = {}
    for router in routers:
        for prefix in router.prefixes:
            for route in router.guarded:
                for method in route.methods or ():
                    rows.setdefault(prefix + route.path, {})[method] = route
    return (GuardedPath(path, found) for path, found in rows.items())


def check_admin(api_key: ApiKey) -> None:
    """Raise ApiError 403 unless these are an admin's rights."""
    if not api_key.admin:
        message = (
            "This request needs an admin's API key: DARKROOM_ADMIN_KEY, or one created with "
            "`darkroom keys create --admin`."
        )
        raise ApiError(403, message, code="admin_key_required")


def admins_only(
    endpoint: Callable[Concatenate[Request, P], Awaitable[Response]],
) -> Callable[Concatenate[Request, P], Awaitable[Response]]:
    """An endpoint that refuses everybody but an admin by itself, whatever its route states."""

    @wraps(endpoint)
    async def guarded(request: Request, *args: P.args, **kwargs: P.kwargs) -> Response:
        check_admin(request.scope["darkroom.grant"])
        return await endpoint(request, *args, **kwargs)

    return guarded  # type: ignore[return-value]  # FastAPI passes the request by its name


async def count(rates: RateLimiter, api_key: ApiKey) -> dict[str, str]:
    """Count a request against its API key's limit; returns the headers that report it, none for a key without a limit.

    Raises ApiError 429.
    """
    if api_key.rpm is None:
        return {}
    rate = await rates.take(api_key.id, api_key.rpm)
    if not rate.allowed:
        metrics.REFUSED.labels("rate").inc()
        raise errors.too_many(f"{api_key.rpm} requests a minute", rate.retry_after, rate.headers())
    return rate.headers()


# For probes, and clients that have a file's URL: they are let in, and own nothing.
_NOBODY = ApiKey(id="")
# A probe is answered whatever the ledger does: it waits no longer for its API key to be looked up.
_GLANCE_S = 0.5


class AuthenticationMiddleware(Router):
    """The router: passes a request to the route that it matches if the route's rights allow its API key."""

    def __init__(
        self,
        routes: Iterable[GuardedPath],
        *,
        lifespan: Lifespan[Any],
        authenticator: Callable[[], Authenticator],
        hosts: Sequence[str] = (),
    ) -> None:
        super().__init__(lifespan=lifespan, redirect_slashes=False)
        self.table = tuple(routes)
        self._doors = authenticator
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
        if access is not Permission.PUBLIC:
            check_headers(headers)
        api_key = await self._admit(access, scope, headers)
        scope["darkroom.grant"] = api_key
        if access is Permission.ADMIN:
            check_admin(api_key)
        app = self.default if route is None else route.handle
        row = None if route is None else route.row(scope["method"])
        if row is not None and row.query is not None:
            check_query(QueryParams(scope["query_string"]), row.query)
        if row is not None and access is Permission.METERED:
            await self._metered(app, api_key, scope, receive, send)
        else:
            await app(scope, receive, send)

    def _matched(self, scope: Scope) -> GuardedPath | None:
        """The path entry of a request: the only place that reads its path. A path matches one entry at most."""
        for route in self.table:
            match, found = route.matches(scope)
            if match is not Match.NONE:
                scope.update(found, route=route)
                return route
        return None

    async def _metered(self, app: ASGIApp, api_key: ApiKey, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application within an API key's limits. Raises ApiError before the application sees the request."""
        rates = self._doors().rates
        if stands := await count(rates, api_key):
            send = _adding(send, stands)
        if api_key.concurrency is not None and not rates.enter(api_key.id, api_key.concurrency):
            metrics.REFUSED.labels("concurrency").inc()
            raise errors.too_many(f"{api_key.concurrency} requests at once", 1)
        try:
            await app(scope, receive, send)
        finally:
            if api_key.concurrency is not None:
                rates.leave(api_key.id)

    async def _admit(self, access: Permission, scope: Scope, headers: Headers) -> ApiKey:
        """The API key of a request. Raises ApiError 401, 403, and 503 if the ledger cannot be read."""
        if access is Permission.PUBLIC:
            return _NOBODY
        if access is Permission.OPTIONAL:
            try:
                async with asyncio.timeout(_GLANCE_S):
                    return await self._known(scope, headers)
            except (ApiError, TimeoutError):
                return _NOBODY
        return await self._known(scope, headers)

    async def _known(self, scope: Scope, headers: Headers) -> ApiKey:
        """The API key that a request sent. Raises ApiError 401, 403, and 503 if the ledger cannot be read."""
        authenticator = self._doors()
        try:
            if (api_key := await authenticator.admit(headers)) is not None:
                return api_key
            closed = await authenticator.closed(headers)
        except LedgerDown:
            raise errors.unreadable() from None
        if closed:
            message = (
                "Incorrect API key provided. Send one of the server's keys as 'Authorization: Bearer …'; "
                "`darkroom serve` prints where the first one is stored."
            )
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        check_local(scope, headers)
        return OPERATOR

    def _check_host(self, headers: Headers) -> None:
        if not (self._hosts or self._suffixes):
            return
        host = (host_in(f"//{headers.get('host', '')}") or "").rstrip(".")
        if host not in self._hosts and not host.endswith(self._suffixes):
            message = "This server does not serve the host in this URL: see `allowed_hosts`."
            raise ApiError(421, message, code="host_not_allowed")


def _adding(send: Send, headers: Mapping[str, str]) -> Send:
    """Send with headers added."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return adding
