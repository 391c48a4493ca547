"""Segmind, played: v1 and v2 inference, storage, and the host that delivers pictures.

True to the pages named in `providers/segmind/adapter.py` and to the third-party notes on errors that go with them.
What is not published is a switch here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from tests.simulators.base import Run, Simulated
from tests.simulators.common import Books, Faults, Op, enlarge, first_of, play

KEY = "SG_0123456789abcdef"
_RETENTION_S = 3600.0
_NO_KEY = {"error": "Missing Authorization or x-api-key in header"}
_BAD_KEY = {"error": "Unauthorized. API key is invalid or may have expired. Please check your API key."}

Shape = Literal["string", "list", "object", "images", "base64"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What one slug takes, how it enlarges and what it costs in US dollars."""

    scale: str
    default_scale: float
    formats: tuple[str, ...]
    enums: Mapping[str, tuple[object, ...]]
    ranges: Mapping[str, tuple[float, float]]
    price: float


MODELS: Mapping[str, Model] = {
    "clarity-upscaler": Model(
        scale="scale_factor",
        default_scale=1,
        formats=("png", "webp", "jpg"),
        enums={"handfix": ("disabled", "hands_only", "image_and_hands")},
        ranges={"creativity": (0, 1), "resemblance": (0, 3), "dynamic": (1, 50), "num_inference_steps": (1, 100)},
        price=0.0193,
    ),
    "esrgan": Model(
        scale="scale",
        default_scale=2,
        formats=("jpeg", "png", "webp"),
        enums={"scale": (2, 4, 8)},
        ranges={"quality": (10, 100)},
        price=0.0047,
    ),
}


@dataclass(slots=True, kw_only=True)
class Task:
    """One inference. `error` is why it fails; `word` what a scripted fault makes of it: see `Segmind`."""

    id: str
    begun: float
    given: Mapping[str, Any]
    price: float
    image: bytes = field(repr=False, default=b"")
    kind: str = "png"
    error: str | None = None
    word: str = ""
    looks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Segmind(Simulated):
    """Segmind behind three hosts: `url` for inference, `upload_url` for storage, `images_url` for what is delivered.

    A job is QUEUED for `queue_s`, PROCESSING for `run_s`, then COMPLETED or FAILED. `faults` has `job` words besides:
    FAILED (`fails` is the text), STUCK, VANISHED (404), EMPTY and EMPTY_ONCE (completed without output), MOVED (its
    first address is gone), LOST (each address is), and any other word, which is its status once and means nothing.
    """

    name = "segmind"
    key = KEY
    key_variable = "SEGMIND_API_KEY"

    def __init__(self, *, queue_s: float = 0.0, run_s: float = 0.0, per_minute: int = 6000) -> None:
        self.queue_s = queue_s
        self.run_s = run_s
        self.per_minute = per_minute
        self.faults = Faults()
        self._books = Books()
        self.credits = 10.0
        self.fails = "CUDA out of memory"
        self.shape: Shape = "string"
        self.v1_json = False
        """Whether v1 answers with base64 in JSON, as models do that take `base64`."""
        self.upload_key = "file_urls"
        self.seen: list[Seen] = []
        self.strangers: list[Seen] = []
        """Requests at the delivery host that brought a key."""
        self.url = self.upload_url = self.images_url = ""
        self._ahead_s = 0.0
        self._tasks: dict[str, Task] = {}
        self._assets: dict[str, bytes] = {}
        self._gone: set[str] = set()
        self._window = (0, 0)

    @override
    def hosts(self, run: Run) -> None:
        self.url = run(self.app).url
        self.upload_url = run(self.storage).url
        self.images_url = run(self.images).url

    @property
    @override
    def books(self) -> Books:
        return self._books

    @property
    @override
    def strays(self) -> Sequence[Seen]:
        return self.strangers

    @property
    @override
    def origins(self) -> frozenset[str]:
        return frozenset({self.images_url.removeprefix("http://")})

    @property
    @override
    def addresses(self) -> Mapping[str, str]:
        return {"base_url": self.url, "upload_url": self.upload_url}

    @override
    def timed(self, *, run_s: float, queue_s: float = 0.0) -> Segmind:
        self.run_s, self.queue_s = run_s, queue_s
        return self

    def later(self, seconds: float) -> None:
        """Let time pass: a job's record is kept for an hour."""
        self._ahead_s += seconds

    def stored(self, address: str) -> bytes:
        """What lies at an address of ours."""
        return self._assets[address.rpartition("/")[2]]

    @override
    def given(self, job: str) -> Mapping[str, Any]:
        """What a job was asked to do."""
        return self._tasks[job].given

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/get-user-credits", self._credits),
                Route("/v1/requests/{id}", self._result),
                Route("/v1/{slug}", self._v1, methods=["POST"]),
                Route("/v2/requests/{id}/status", self._status),
                Route("/v2/requests/{id}", self._result),
                Route("/v2/{slug}", self._v2, methods=["POST"]),
            ],
            exception_handlers={405: _not_allowed},
        )

    @property
    def storage(self) -> Starlette:
        return Starlette(routes=[Route("/upload-asset", self._upload, methods=["POST"])])

    @property
    def images(self) -> Starlette:
        return Starlette(routes=[Route("/{kind}/{name}", self._image)])

    async def _meet(self, request: Request, op: Op, carry_out: Callable[[], Awaitable[Response]]) -> Response:
        body = await request.body()
        self.books.requests.append((request.method, request.url.path))
        headers = dict(request.headers)
        self.seen.append(Seen(method=request.method, path=request.url.path, headers=headers, body=body))
        return await play(request, self.faults.next(op, request.headers), carry_out)

    async def _v2(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = await self._take(request)
            if isinstance(task, Response):
                return task
            base = f"{request.url.scheme}://{request.url.netloc}"
            return JSONResponse(
                {
                    "request_id": task.id,
                    "status": "QUEUED",
                    "poll_url": f"{base}/v1/requests/{task.id}",
                    "status_url": f"{base}/v2/requests/{task.id}/status",
                    "response_url": f"{base}/v2/requests/{task.id}",
                }
            )

        return await self._meet(request, "submit", carry_out)

    async def _v1(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = await self._take(request)
            if isinstance(task, Response):
                return task
            await asyncio.sleep(self.queue_s + self.run_s)
            if task.error is not None:
                # What v2 tells as FAILED is a plain server error here.
                return JSONResponse({"error": task.error}, 500)
            headers = {
                "x-cost": f"{task.price}",
                "x-generation-time": f"{self.run_s}",
                "x-remaining-credits": f"{self.credits}",
                "x-request-id": task.id,
                "x-seed-value": str(task.given.get("seed", 1337)),
            }
            if self.v1_json:
                return JSONResponse({"image": base64.b64encode(task.image).decode()}, headers=headers)
            return Response(task.image, headers=headers, media_type=_media_type(task.kind))

        return await self._meet(request, "submit", carry_out)

    async def _take(self, request: Request) -> Task | Response:
        """Take a job, or say why not, in the order in which Segmind's gateway looks."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _error(406, "Invalid content type. Use application/json.")
        if refused := self._locked(request):
            return refused
        if limited := self._limited():
            return limited
        model = MODELS.get(request.path_params["slug"])
        if model is None:
            return _error(404, "Model not found")
        try:
            given = json.loads(await request.body())
        except ValueError:
            return _error(400, "Malformed JSON body")
        if not isinstance(given, dict) or not isinstance(given.get("image"), str):
            return _error(400, "image is required")
        for name, choices in {**model.enums, "output_format": model.formats}.items():
            if name in given and given[name] not in choices:
                return _error(406, f"{name} must be one of {list(choices)}, got '{given[name]}'")
        if self.credits < model.price:
            return _error(406, f"Insufficient credits. Available: {self.credits:.4f}, required: {model.price}")
        return self._taken(model, given)

    def _taken(self, model: Model, given: Mapping[str, Any]) -> Task:
        fault = self.faults.next("job")
        task = Task(id=str(uuid.uuid4()), begun=self._now(), given=given, price=model.price)
        task.word = fault.word if fault else ""
        task.kind = str(given.get("output_format", model.formats[0]))
        data = self._fetched(given["image"])
        if task.word == "FAILED":
            task.error = self.fails
        elif data is None:
            task.error = "Could not fetch the input"
        elif wrong := [name for name, (low, high) in model.ranges.items() if not low <= given.get(name, low) <= high]:
            task.error = f"{wrong[0]} must be within its range"
        else:
            factor = float(given.get(model.scale, model.default_scale))
            task.image = enlarge(data, factor, task.kind, first=first_of(given))
            if task.word != "STUCK":
                self.credits -= task.price
                self.books.bills[task.id] = task.price
        self._tasks[task.id] = task
        self.books.taken.append(task.id)
        return task

    def _fetched(self, address: str) -> bytes | None:
        """What lies at an address of our own storage, or in a data URI, or in bare base64; the web is not there."""
        if address.startswith(self.images_url):
            return self._assets.get(address.rpartition("/")[2])
        try:
            return base64.b64decode(address.rpartition(",")[2], validate=True)
        except binascii.Error:
            return None

    async def _status(self, request: Request) -> Response:
        return await self._meet(request, "poll", lambda: self._tell(request, whole=False))

    async def _result(self, request: Request) -> Response:
        return await self._meet(request, "result", lambda: self._tell(request, whole=True))

    async def _tell(self, request: Request, *, whole: bool) -> Response:
        if refused := self._locked(request):
            return refused
        task = self._tasks.get(request.path_params["id"])
        if task is None or task.word == "VANISHED" or self._now() - task.begun > _RETENTION_S:
            return _error(404, f"Request {request.path_params['id']} not found")
        state = self._state(task)
        base = f"{request.url.scheme}://{request.url.netloc}/v2/requests/{task.id}"
        body: dict[str, Any] = {"status": state, "request_id": task.id, "metrics": {}}
        if state == "FAILED":
            metrics = {"inference_time": 0.007, "queue_time": 0.23, "total_time": 0.24}
            return JSONResponse({"status": state, "error": task.error, "metrics": metrics}, 422)
        if state != "COMPLETED":
            return JSONResponse({**body, "status_url": f"{base}/status", "response_url": base})
        if not whole:
            return JSONResponse({**body, "metrics": {"inference_time": self.run_s}})
        return JSONResponse({**body, **self._output(task), "metrics": self._metrics(task)})

    def _state(self, task: Task) -> str:
        task.looks += 1
        if (
            task.word
            and task.word not in {"FAILED", "EMPTY", "EMPTY_ONCE", "MOVED", "LOST", "STUCK"}
            and task.looks == 1
        ):
            return task.word
        age = self._now() - task.begun
        if age < self.queue_s:
            return "QUEUED"
        if age < self.queue_s + self.run_s or task.word == "STUCK":
            return "PROCESSING"
        return "COMPLETED" if task.error is None else "FAILED"

    def _metrics(self, task: Task) -> dict[str, float]:
        total = self.queue_s + self.run_s
        return {
            "cost": task.price,
            "remaining_credits": round(self.credits, 4),
            "inference_time": self.run_s,
            "queue_time": self.queue_s,
            "total_time": total,
        }

    def _output(self, task: Task) -> dict[str, Any]:
        """The picture in the shape that is switched on, at a new address each time."""
        if task.word.startswith("EMPTY"):
            task.word = task.word.removesuffix("EMPTY_ONCE")
            return {"output": None, "images": [], "seed": "1337"}
        name = f"{uuid.uuid4().hex}.{task.kind}"
        url = f"{self.images_url}/generations/{name}"
        self._assets[name] = task.image
        if task.word in {"MOVED", "LOST"}:
            self._gone.add(name)
            task.word = task.word.removesuffix("MOVED")
        entry = {
            "url": url,
            "content_type": _media_type(task.kind),
            "file_name": name,
            "file_size": str(len(task.image)),
        }
        output: dict[Shape, object] = {
            "string": url,
            "list": [url],
            "object": {"url": url},
            "images": None,
            "base64": base64.b64encode(task.image).decode(),
        }
        images = [entry] if self.shape in {"string", "images"} else []
        return {
            "output": output[self.shape],
            "images": images,
            "seed": str(task.given.get("seed", 1337)),
            "timings": {},
        }

    async def _upload(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := self._locked(request):
                return refused
            addresses = []
            for data in json.loads(await request.body())["data_urls"]:
                head, _, text = data.partition(";base64,")
                name = f"{uuid.uuid4().hex}.{head.rpartition('/')[2]}"
                self._assets[name] = base64.b64decode(text)
                addresses.append(f"{self.images_url}/assets/{name}")
            return JSONResponse({self.upload_key: addresses, "message": "Files uploaded successfully"})

        return await self._meet(request, "upload", carry_out)

    async def _image(self, request: Request) -> Response:
        async def carry_out() -> Response:
            name = request.path_params["name"]
            if {"x-api-key", "authorization"} & set(request.headers):
                self.strangers.append(self.seen[-1])
                return Response(status_code=400)
            if name in self._gone or name not in self._assets:
                return Response(status_code=404)
            return Response(self._assets[name], media_type=_media_type(name.rpartition(".")[2]))

        return await self._meet(request, "download", carry_out)

    async def _credits(self, request: Request) -> Response:
        return self._locked(request) or JSONResponse({"credits": round(self.credits, 4), "free-credits": 0})

    def _locked(self, request: Request) -> Response | None:
        given = request.headers.get("x-api-key")
        if given is None:
            return JSONResponse(_NO_KEY, 401)
        return None if given == KEY or given in self.faults.keys else JSONResponse(_BAD_KEY, 401)

    def _limited(self) -> Response | None:
        minute = int(time.time() // 60)
        self._window = (minute, self._window[1] + 1 if self._window[0] == minute else 1)
        if self._window[1] <= self.per_minute:
            return None
        reset = datetime.fromtimestamp((minute + 1) * 60, UTC).isoformat()
        return JSONResponse({"error": "Rate limit exceeded"}, 429, {"x-rate-limit-reset-at-utc": reset})

    def _now(self) -> float:
        return time.monotonic() + self._ahead_s


def _media_type(kind: str) -> str:
    return f"image/{'jpeg' if kind == 'jpg' else kind}"


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


async def _not_allowed(request: Request, exc: Exception) -> Response:
    return HTMLResponse("<html><body><h1>405 Method Not Allowed</h1></body></html>", 405)
