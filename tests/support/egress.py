"""An egress gateway: one origin, at which each provider is below a path of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.simulators.base import Simulated
from tests.simulators.common import serve

_HOP = frozenset({"host", "content-length", "transfer-encoding", "connection"})


@dataclass(slots=True)
class Egress:
    """Passes on what comes below `/out/<provider>/<setting>`; everything else is written down in `strayed`."""

    sims: Mapping[str, Simulated]
    url: str = ""
    passed: list[str] = field(default_factory=list)
    strayed: list[str] = field(default_factory=list)

    def environ(self) -> dict[str, str]:
        """The settings that lead a gateway to the providers through here."""
        return {
            f"DARKROOM_PROVIDERS__{name.upper()}__{setting.upper()}": f"{self.url}/out/{name}/{setting}/"
            for name, sim in self.sims.items()
            for setting in sim.addresses
        }

    async def detach(self, request: Request) -> Response:
        """Ask the provider, and give its answer."""
        name, setting, rest = (request.path_params[part] for part in ("name", "setting", "rest"))
        self.passed.append(name)
        headers = {key: value for key, value in request.headers.items() if key not in _HOP}
        target = httpx.URL(f"{self.sims[name].addresses[setting]}/{rest}", query=request.url.query.encode())
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.request(request.method, target, content=await request.body(), headers=headers)
        kept = {key: value for key, value in answer.headers.items() if key not in _HOP}
        return Response(answer.content, answer.status_code, kept)

    async def stray(self, request: Request) -> Response:
        """Nobody asked for this."""
        self.strayed.append(f"{request.method} {request.url} {dict(request.headers)}")
        return Response(status_code=404)

    @contextmanager
    def running(self) -> Iterator[Egress]:
        """Serve until the block ends."""
        methods = ["GET", "POST", "PUT", "DELETE"]
        routes = [
            Route("/out/{name}/{setting}/{rest:path}", self.detach, methods=methods),
            Route("/{rest:path}", self.stray, methods=methods),
        ]
        with serve(Starlette(routes=routes)) as served:
            self.url = served.url
            yield self
