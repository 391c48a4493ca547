"""A fast upstream: fal's synchronous host, Replicate and a Cog worker, as far as a submit that succeeds needs them.

`python -m tests.bench.upstream PORT PICTURE [SECONDS]`: PICTURE is the file that every job gives, SECONDS how long a
job takes. `tests/simulators` are true to the providers; this one costs next to nothing, and so is not what is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path

import pybase64
import uvicorn
from starlette.types import Receive, Scope, Send

_PROMPT = re.compile(rb'"prompt":"([^"]*)"')
_INPUTS = ("image", "prompt", "scale_factor", "creativity", "resemblance", "dynamic", "sd_model")


class Upstream:
    """An ASGI application that answers for all of them. `seconds` is how long a job takes."""

    def __init__(self, port: int, picture: bytes, seconds: float) -> None:
        self._seconds = seconds
        self._picture = picture
        self._root = f"http://127.0.0.1:{port}"
        self._done: dict[str, float] = {}
        """When each Replicate job is done, by its id and by its prompt, in seconds of the wall clock."""
        file = {"url": f"{self._root}/files/a.png", "content_type": "image/png"}
        self._going = 0
        self._fal = json.dumps({"image": file, "seed": 1}).encode()
        self._uri = b'"data:image/png;base64,' + pybase64.b64encode(picture) + b'"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        pieces = [b""]
        while True:
            message = await receive()
            pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        status, kind = 200, b"application/json"
        if path.startswith("/files/"):
            body, kind = self._picture, b"image/png"
        elif path == "/storage/upload/initiate":
            where = f"{self._root}/files/in.png"
            body = json.dumps({"upload_url": where, "file_url": where}).encode()
        elif path == "/v1/files":
            status, body = 201, json.dumps({"urls": {"get": f"{self._root}/files/in.png"}}).encode()
        elif path.startswith("/v1/predictions"):
            status, body = self._replicate(scope["method"], path, b"".join(pieces))
        elif path.startswith("/predictions/"):
            await asyncio.sleep(self._seconds)
            body = b'{"status":"succeeded","metrics":{"predict_time":1},"output":' + self._uri + b"}"
        elif path == "/health-check":
            body = b'{"status":"READY","concurrency":{"max":64,"current":0}}'
        elif path == "/openapi.json":
            schemas = {"Input": {"properties": dict.fromkeys(_INPUTS, True)}}
            body = json.dumps({"info": {"title": "bench"}, "components": {"schemas": schemas}}).encode()
        elif path == "/done":
            body = json.dumps(self._done).encode()
        elif path == "/going":
            body = str(self._going).encode()
        else:
            self._going += 1
            await asyncio.sleep(self._seconds)
            self._going -= 1
            body = self._fal
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"x-fal-request-id", b"bench"),
            (b"x-fal-billable-units", b"1"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _replicate(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        now = time.time()
        if method == "POST":
            name = f"p{len(self._done)}"
            prompt = _PROMPT.search(body)
            self._done[name] = now + self._seconds
            if prompt is not None:
                self._done[prompt[1].decode()] = now + self._seconds
        else:
            name = path.rpartition("/")[2]
        told = {"id": name, "status": "starting", "created_at": "2026-11-01T00:00:00Z"}
        if now >= self._done[name]:
            metrics = {"predict_time": self._seconds}
            told |= {"status": "succeeded", "output": f"{self._root}/files/{name}.png"}
            return 201 if method == "POST" else 200, json.dumps(told | {"metrics": metrics}).encode()
        return 201 if method == "POST" else 200, json.dumps(told).encode()


def main() -> None:
    """Serve until it is stopped."""
    port, picture = int(sys.argv[1]), Path(sys.argv[2]).read_bytes()
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    app = Upstream(port, picture, seconds)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
