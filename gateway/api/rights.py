"""Who may call what: stated for each method of each route, and decided by nothing but the route that matched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.auth.grant import Grant
from gateway.http.errors import ApiError

Endpoint = Callable[[Request], Awaitable[Response]]


class Access(IntEnum):
    """What a call needs; each asks for more than the one before it."""

    PUBLIC = 0
    """Nothing: for probes, and where the address is a secret of its own. A key is not looked at."""
    OPTIONAL = 1
    """Nothing, and an admin's key is told more."""
    KEY = 2
    """A good key; a server without keys takes calls from its own machine."""
    METERED = 3
    """A good key, whose limits on calls count: the call may buy something."""
    ADMIN = 4
    """An admin's key."""


DEFAULT = Access.KEY
"""For a path that no route has: a stranger is not told which those are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One method of a route: who answers, who may call, and which parameters the query may have.

    None for `query` leaves them unread: what others put behind such an address changes nothing. `any_host` exempts the
    row from `allowed_hosts`.
    """

    endpoint: Endpoint
    access: Access
    query: frozenset[str] | None = frozenset()
    any_host: bool = False


class GuardedRoute(Route):
    """A path with the rights of each of its methods. There is one route a path, so that 405 tells of all methods."""

    def __init__(self, path: str, rows: Mapping[str, Row]) -> None:
        self.rows = dict(rows)
        super().__init__(path, self._answer, methods=list(rows))

    def row(self, method: str) -> Row | None:
        """The row of a method, HEAD being answered wherever GET is; None for a method that is not allowed."""
        return self.rows.get("GET" if method == "HEAD" else method)

    def access(self, method: str) -> Access:
        """What a call with this method needs. For a method that is not allowed it is what the strictest row needs."""
        row = self.row(method)
        return max(one.access for one in self.rows.values()) if row is None else row.access

    @property
    def any_host(self) -> bool:
        """Whether the path is answered under every host name."""
        return all(row.any_host for row in self.rows.values())

    async def _answer(self, request: Request) -> Response:
        row = self.row(request.method)
        assert row is not None  # the router has checked the method
        return await row.endpoint(request)


def check_admin(grant: Grant) -> None:
    """Raise ApiError 403 unless these are an admin's rights."""
    if not grant.admin:
        message = "This takes the admin's key: DARKROOM_ADMIN_KEY, or one made with `darkroom keys create --admin`."
        raise ApiError(403, message, code="admin_key_required")


def admins_only(endpoint: Endpoint) -> Endpoint:
    """An endpoint that refuses everybody but an admin by itself, whatever its row in the table says."""

    @wraps(endpoint)
    async def guarded(request: Request) -> Response:
        check_admin(request.scope["darkroom.grant"])
        return await endpoint(request)

    return guarded
