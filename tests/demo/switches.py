"""Switches to break the simulated providers with, over HTTP: `POST /fal/down`, `POST /fal/up`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.simulators.base import Simulated
from tests.simulators.common import Fault, Op


class Switches:
    """A word for a provider breaks it in one way, until another word; `up` mends it."""

    WORDS: ClassVar[Mapping[str, tuple[Op, Fault] | None]] = {
        "up": None,
        "down": ("submit", Fault(status=503, body={"error": "out of order"})),
        "broke": ("submit", Fault(status=402, body={"error": "Insufficient credits"})),
        "busy": ("submit", Fault(status=429, body={"error": "Too many requests"}, headers={"retry-after": "20"})),
        "mute": ("submit", Fault(kind="hang", after=True)),
        "garbled": ("download", Fault(kind="truncate")),
    }

    def __init__(self, sims: Mapping[str, Simulated]) -> None:
        self._sims = sims
        self._words = dict.fromkeys(sims, "up")

    @property
    def app(self) -> Starlette:
        """The switches as an application."""
        return Starlette(routes=[Route("/", self._tell), Route("/{provider}/{word}", self._switch, methods=["POST"])])

    async def _switch(self, request: Request) -> Response:
        name, word = request.path_params["provider"], request.path_params["word"]
        if name not in self._sims or word not in self.WORDS:
            return JSONResponse({"providers": list(self._sims), "words": list(self.WORDS)}, 404)
        faults = self._sims[name].faults
        faults.clear()
        if found := self.WORDS[word]:
            faults.always(*found)
        self._words[name] = word
        return await self._tell(request)

    async def _tell(self, request: Request) -> Response:
        return JSONResponse({name: self._state(name) for name in self._sims})

    def _state(self, name: str) -> dict[str, object]:
        books = self._sims[name].books
        return {
            "is": self._words[name],
            "requests": len(books.requests),
            "jobs": len(books.taken),
            "billed": books.billed,
            "usd": round(sum(books.bills.values()), 6),
        }
