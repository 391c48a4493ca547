"""Real worker processes, ours and Cog's own, and the client that talks to them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from providers.worker.schema import openapi
from tests.support.fake_cog import QuietServer
from tests.support.play_engines import Play
from tests.support.ports import listener

HERE = Path(__file__).parent
PLAY = ("--engine", "play_engines:Play")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE)}


@dataclass
class Running:
    """A worker process. `log` is what it writes to stderr."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=30)

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


@contextmanager
def worker(tmp_path: Path, *arguments: str, ready: str = "READY", patience: float = 60) -> Iterator[Running]:
    """Run our worker on a free port, from the moment on when its status is `ready`, and kill it in the end.

    `patience` is in seconds: engines that stand on large libraries take long to import them.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "providers.worker", f"--fd={listening.fileno()}", *arguments]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, pass_fds=[listening.fileno()], stderr=stderr, env=ENVIRONMENT)
    listening.close()
    with ended(process):
        await_status(url, ready, process, patience)
        yield Running(process, url, log)


COG = """
import time
from cog import BasePredictor

class Predictor(BasePredictor):
    def setup(self) -> None:
        time.sleep({loading})

    def predict(self, text: str, seconds: float = 0, mode: str = "a", loud: bool = False) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        if text == "fail":
            raise ValueError("asked to fail")
        return text
"""


@contextmanager
def cog(tmp_path: Path, *, ready: str = "READY", loading: float = 0) -> Iterator[Running]:
    """Run Cog's own server with a predictor like the engine Play, which it knows by *our* OpenAPI document."""
    (tmp_path / ".cog").mkdir()
    (tmp_path / ".cog" / "openapi_schema.json").write_text(json.dumps(openapi(Play())))
    (tmp_path / "predict.py").write_text(COG.format(loading=loading))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environ = {
        **os.environ,
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
        # It starts its predictor as `python`.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    assert shutil.which("python", path=environ["PATH"])
    command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
    log = tmp_path / "cog.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, env=environ)
    url = f"http://127.0.0.1:{port}"
    with ended(process):
        await_status(url, ready, process)
        yield Running(process, url, log)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill a process when the block ends, if it is still there."""
    try:
        yield
    finally:
        process.kill()
        process.wait()


def await_status(url: str, status: str, process: subprocess.Popen[bytes] | None = None, patience: float = 60) -> None:
    """Wait until a worker says that it is in this status, for `patience` seconds."""
    give_up = time.monotonic() + patience
    said: object = None
    while time.monotonic() < give_up:
        assert process is None or process.poll() is None, f"{process.args!r} ended"
        try:
            said = httpx.get(f"{url}/health-check", timeout=5).json()["status"]
        except httpx.TransportError as error:
            said = error
        if said == status:
            return
        time.sleep(0.02)
    raise AssertionError(f"{url} is {said}, not {status}")


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until a condition (or what it promises) is true."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0.02)


async def status(client: httpx.AsyncClient) -> str:
    return str((await client.get("/health-check")).json()["status"])


async def busy(client: httpx.AsyncClient) -> bool:
    return await status(client) == "BUSY"


async def free(client: httpx.AsyncClient) -> bool:
    return await status(client) == "READY"


def play(text: str = "hello", **inputs: object) -> dict[str, Any]:
    """The body of a request for the engine Play."""
    return {"input": {"text": text, **inputs}}


def data_uri(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def from_data_uri(text: str) -> bytes:
    return base64.b64decode(text.partition(";base64,")[2], validate=True)


@asynccontextmanager
async def receiver(*refusals: int) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Serve an address for webhooks, and write down what comes. The first last events are answered with `refusals`."""
    events: list[dict[str, Any]] = []
    codes = list(refusals)

    async def take(request: Request) -> Response:
        events.append(json.loads(await request.body()))
        return Response(status_code=codes.pop(0) if codes and "completed_at" in events[-1] else 200)

    listening = listener()
    app = Starlette(routes=[Route("/hook", take, methods=["POST"])])
    server = QuietServer(uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/hook", events
    finally:
        server.should_exit = True
        await serving
        listening.close()
