"""What the hosts of a simulated fal share: books, faults, a memory of what came, and a look at the key."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import override

from tests.simulators.base import Simulated
from tests.simulators.common import Books, Faults, Op, play

KEY = "0123abcd-key:0123456789abcdef"
_LOCKED = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as it came. `host` is queue, run, rest, api or media."""

    host: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    query: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Desk(Simulated):
    """Where every request is written down. `locked` is an account without credit."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._books = Books()
        self.locked = False
        self.seen: list[Seen] = []
        self.strangers: list[Seen] = []
        """Requests for a delivered file that brought a key."""

    @property
    @override
    def books(self) -> Books:
        return self._books

    @property
    @override
    def strays(self) -> Sequence[Seen]:
        return self.strangers

    def asked(self, method: str, part: str = "", host: str = "queue") -> list[Seen]:
        """Return the requests of a method to a host with this in their path."""
        return [seen for seen in self.seen if (seen.host, seen.method) == (host, method) and part in seen.path]

    async def meet(self, host: str, request: Request, op: Op, carry_out: Callable[[], Awaitable[Response]]) -> Response:
        """Answer as the next fault of this kind says. Whatever is fal's own answer has `x-fal-request-id`."""
        body = await request.body()
        self.books.requests.append((request.method, request.url.path))
        headers = dict(request.headers)
        path, query = request.url.path, request.url.query
        self.seen.append(Seen(host=host, method=request.method, path=path, headers=headers, body=body, query=query))
        own: dict[str, str] = {}

        async def noted() -> Response:
            response = await carry_out()
            own["x-fal-request-id"] = response.headers.get("x-fal-request-id", str(uuid.uuid4()))
            return response

        fault = self.faults.next(op, request.headers)
        response = await play(request, fault, noted)
        if host != "media" and (fault is None or fault.kind != "answer"):
            response.headers.update(own)
        return response

    def refused(self, request: Request, app: str) -> Response | None:
        given = request.headers.get("authorization")
        if given is None:
            text = "Authentication is required to access this application."
            return detail(401, f'Cannot access application "{app}". {text}')
        if given != f"Key {KEY}":
            return detail(401, "invalid key credentials")
        return detail(403, _LOCKED) if self.locked else None


def detail(status: int, text: str) -> Response:
    return JSONResponse({"detail": text}, status)
