"""What the same path costs without a gateway in it: a form in, a data URI out to fal, its picture back as base64.

`python -m tests.bench.floors raw|plain PORT UPSTREAM`. `raw` is as little as it can be: ASGI, a push parser, aiohttp.
`plain` is what one would write first: the framework's own form, httpx, the standard library's base64 and JSON. Neither
checks, writes down or repeats anything.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import aiohttp
import httpx
import pybase64
import uvicorn
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

_PATH = "/fal-ai/clarity-upscaler"
_KEY = {"authorization": "Key a:b"}


class _Form:
    """The parts of a form by their names."""

    def __init__(self) -> None:
        self.parts: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._field = self._value = self._name = b""

    def begin(self) -> None:
        self._pieces = []

    def field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1][b"name"]
        self._field = self._value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def end(self) -> None:
        self.parts[self._name] = b"".join(self._pieces)


def raw(upstream: str) -> ASGIApp:
    """The least that does it."""
    sessions: list[aiohttp.ClientSession] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not sessions:
            connector = aiohttp.TCPConnector(limit=0)
            sessions.append(aiohttp.ClientSession(connector=connector, auto_decompress=False))
        session = sessions[0]
        form = _Form()
        boundary = parse_options_header(dict(scope["headers"])[b"content-type"])[1][b"boundary"]
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin,
                "on_header_field": form.field,
                "on_header_value": form.value,
                "on_header_end": form.header,
                "on_part_data": form.data,
                "on_part_end": form.end,
            },
        )
        while True:
            message = await receive()
            parser.write(message.get("body", b""))
            if not message.get("more_body"):
                break
        picture, prompt = form.parts[b"image"], form.parts[b"prompt"]
        uri = b'{"image_url":"data:image/png;base64,' + pybase64.b64encode(picture)
        body = uri + b'","prompt":' + json.dumps(prompt.decode()).encode() + b"}"
        headers = {"content-type": "application/json", **_KEY}
        async with session.post(upstream + _PATH, data=body, headers=headers) as response:
            told = await response.json()
        async with session.get(told["image"]["url"]) as response:
            made = await response.read()
        answer = b'{"created":1,"data":[{"b64_json":"' + pybase64.b64encode(made) + b'"}]}'
        length = str(len(answer)).encode()
        start = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": answer})

    return app


def plain(upstream: str) -> ASGIApp:
    """What one would write first."""
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=None)

    async def edit(request: Request) -> JSONResponse:
        form = await request.form()
        image = form["image"]
        assert isinstance(image, UploadFile)
        text = base64.b64encode(await image.read()).decode()
        body: dict[str, Any] = {"image_url": f"data:image/png;base64,{text}", "prompt": form["prompt"]}
        told = (await client.post(upstream + _PATH, json=body, headers=_KEY)).json()
        made = (await client.get(told["image"]["url"])).content
        return JSONResponse({"created": 1, "data": [{"b64_json": base64.b64encode(made).decode()}]})

    return Starlette(routes=[Route("/openai/v1/images/edits", edit, methods=["POST"])])


def main() -> None:
    """Serve until it is stopped."""
    app = {"raw": raw, "plain": plain}[sys.argv[1]](sys.argv[3])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
