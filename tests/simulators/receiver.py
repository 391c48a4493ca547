"""A caller's server that is told of jobs, and what it may do with that."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.simulators.common import serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as it came, and the status that it was answered with."""

    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    status: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def verified(self, secret: str) -> Any:
        """What it says. Raises WebhookVerificationError where it is not signed with the secret."""
        return Webhook(secret).verify(self.body, dict(self.headers))


class Receiver:
    """Answers with `answers`, one after another, and then with `usual`.

    A path with `slow` in it is answered after `slow_s` seconds; one with `endless` with a body that does not end. Where
    a status is 307 it leads to `elsewhere`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.origin = ""
        self.usual = 200
        self.answers: deque[int] = deque()
        self.slow_s = 0.5
        self.elsewhere = ""
        self.messages: list[Message] = []
        self.at_once = 0
        """How many slow ones were under way at most."""
        self._slow = 0
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        """Listen until the block ends."""
        methods = ["GET", "HEAD", "POST", "PUT", "DELETE"]
        with serve(Starlette(routes=[Route("/{path:path}", self._take, methods=methods)])) as served:
            self.url, self.origin = served.url, served.origin
            yield self

    def at(self, path: str) -> list[Message]:
        """What came to a path."""
        return [message for message in list(self.messages) if message.path == path]

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        path = request.url.path
        status = self.answers.popleft() if self.answers else self.usual
        with self._lock:
            self.messages.append(Message(path=path, headers=dict(request.headers), body=body, status=status))
        if "slow" in path:
            self._slow += 1
            self.at_once = max(self.at_once, self._slow)
            await asyncio.sleep(self.slow_s)
            self._slow -= 1
        if "endless" in path:
            return StreamingResponse(_endless(), status)
        return Response(b"ok", status, {"location": self.elsewhere} if status == 307 else None)


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(1024)
        await asyncio.sleep(0.01)
