"""A Cog worker, played, that leaves what it made at an address of its own, as containers do whose output is a file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from tests.simulators.base import Run, Simulated
from tests.simulators.common import Books, Faults, enlarge, first_of, play

_INPUTS = (
    "image", "scale_factor", "creativity", "resemblance", "dynamic", "sd_model",
    "downscaling", "downscaling_resolution",
)  # fmt: skip


class CogWorker(Simulated):
    """A worker for the model that needs these inputs. Its jobs cost nothing; `books.taken` has them all the same."""

    name = "local"
    key = ""
    key_variable = "DARKROOM_NO_KEY"

    def __init__(self) -> None:
        self.faults = Faults()
        self.url = ""
        self.credits = 0.0
        self.run_s = 0.0
        self._books = Books()
        self._made: dict[str, bytes] = {}
        self._given: dict[str, Mapping[str, Any]] = {}

    @override
    def hosts(self, run: Run) -> None:
        self.url = run(self._app()).url

    @property
    @override
    def books(self) -> Books:
        return self._books

    @property
    @override
    def strays(self) -> Sequence[object]:
        return ()

    @property
    @override
    def origins(self) -> frozenset[str]:
        return frozenset()

    @property
    @override
    def addresses(self) -> Mapping[str, str]:
        return {"workers": json.dumps([self.url])}

    @override
    def given(self, job: str) -> Mapping[str, Any]:
        """What a job was asked to do."""
        return self._given[job]

    @override
    def timed(self, *, run_s: float, queue_s: float = 0.0) -> CogWorker:
        self.run_s = run_s
        return self

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health-check", self._health),
                Route("/openapi.json", self._schema),
                Route("/predictions/{id}", self._predict, methods=["PUT"]),
                Route("/predictions/{id}/cancel", self._cancel, methods=["POST"]),
                Route("/files/{id}", self._file),
            ]
        )

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "READY", "concurrency": {"max": 4}})

    async def _schema(self, request: Request) -> Response:
        properties: dict[str, Any] = {name: {} for name in _INPUTS}
        return JSONResponse(
            {"info": {"title": "Cog"}, "components": {"schemas": {"Input": {"properties": properties}}}}
        )

    async def _predict(self, request: Request) -> Response:
        async def carry_out() -> Response:
            job, given = request.path_params["id"], json.loads(await request.body())["input"]
            data = base64.b64decode(given["image"].partition(",")[2])
            self._given[job] = given
            self._made[job] = enlarge(data, float(given.get("scale_factor", 2)), first=first_of(given))
            self.books.taken.append(job)
            output = [f"{self.url}/files/{job}"]
            return JSONResponse({"status": "succeeded", "output": output, "metrics": {"predict_time": 0.1}})

        return await play(request, self.faults.next("submit"), carry_out)

    async def _cancel(self, request: Request) -> Response:
        return JSONResponse({}, 404)

    async def _file(self, request: Request) -> Response:
        self.books.requests.append((request.method, request.url.path))

        async def carry_out() -> Response:
            data = self._made.get(request.path_params["id"])
            return Response(status_code=404) if data is None else Response(data, media_type="image/png")

        return await play(request, self.faults.next("download"), carry_out)
