"""fal's storage and the host that delivers, played."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.simulators.fal_desk import Desk, detail


class Files:
    """Both of fal's ways into the storage, and the way out of it. `url` is where files are put and delivered."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.url = ""
        self.stored: dict[str, bytes] = {}
        self.gone: set[str] = set()

    def fetch(self, address: str) -> bytes | None:
        """Return what lies at an address here; the web is not there."""
        return self.stored.get(address.removeprefix(f"{self.url}/files/"))

    def add(self, data: bytes, kind: str) -> str:
        """Store a result and return its name."""
        name = f"{uuid.uuid4().hex}.{kind}"
        self.stored[name] = data
        return name

    @property
    def rest(self) -> list[Route]:
        return [
            Route("/storage/upload/initiate", self._initiate, methods=["POST"]),
            Route("/storage/auth/token", self._token, methods=["POST"]),
        ]

    @property
    def media(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/upload/{name}", self._put, methods=["PUT"]),
                Route("/files/upload", self._post, methods=["POST"]),
                Route("/files/{name}", self._file),
            ]
        )

    async def _initiate(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := self._desk.refused(request, "storage"):
                return refused
            given = json.loads(await request.body())
            if not {"file_name", "content_type"} <= set(given):
                return detail(422, "file_name and content_type are required")
            name = f"{uuid.uuid4().hex}-{given['file_name']}"
            return JSONResponse(
                {"upload_url": f"{self.url}/upload/{name}?signature=s3cret", "file_url": f"{self.url}/files/{name}"}
            )

        return await self._desk.meet("rest", request, "upload", carry_out)

    async def _token(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := self._desk.refused(request, "storage"):
                return refused
            expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            return JSONResponse(
                {"token": "cdn-token", "token_type": "Bearer", "base_url": self.url, "expires_at": expires}
            )

        return await self._desk.meet("rest", request, "upload", carry_out)

    async def _put(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if request.query_params.get("signature") != "s3cret":
                return Response(status_code=403)
            self.stored[request.path_params["name"]] = await request.body()
            return Response()

        return await self._desk.meet("media", request, "upload", carry_out)

    async def _post(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if request.headers.get("authorization") != "Bearer cdn-token":
                return Response(status_code=401)
            name = f"{uuid.uuid4().hex}-{request.headers.get('x-fal-file-name', 'upload.bin')}"
            self.stored[name] = await request.body()
            return JSONResponse({"access_url": f"{self.url}/files/{name}"})

        return await self._desk.meet("media", request, "upload", carry_out)

    async def _file(self, request: Request) -> Response:
        async def carry_out() -> Response:
            name = request.path_params["name"]
            if "authorization" in request.headers:
                self._desk.strangers.append(self._desk.seen[-1])
                return Response(status_code=400)
            if name in self.gone or name not in self.stored:
                return Response(status_code=404)
            return Response(self.stored[name], media_type=f"image/{name.rpartition('.')[2]}")

        return await self._desk.meet("media", request, "download", carry_out)
