"""fal, played: queue, synchronous host, storage, and the host that delivers.

True to fal's documentation (queue, errors, common parameters) and to what fal-client 1.0.3 needs, which is shown by
running that client against it. What the documents leave open is a switch here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.simulators.common import Books, Faults, Op, play, serve
from tests.simulators.fal_models import MODELS, Made, Model, Shape, run

KEY = "0123abcd-key:0123456789abcdef"
_LOCKED = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
_POLICY = {
    "detail": [
        {
            "loc": ["body", "prompt"],
            "msg": "The content could not be processed because it contained material flagged by a content checker.",
            "type": "content_policy_violation",
            "url": "https://docs.fal.ai/errors/#content_policy_violation",
            "input": "the prompt that nobody may see",
        }
    ]
}
_INTERNAL = {"detail": [{"loc": ["body"], "msg": "Internal server error", "type": "internal_server_error"}]}
# What a job's word lets its result be: status and body. Those in capitals at the end of the table are infrastructure.
ENDS: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "FAILED": (500, _INTERNAL),
    "POLICY": (422, _POLICY),
    "POLICY_TEXT": (422, {"detail": "Content policy violation: the prompt that nobody may see"}),
    "NO_MEDIA": (422, {"detail": [{"loc": ["body"], "msg": "No media generated", "type": "no_media_generated"}]}),
    "DOWNSTREAM": (400, {"detail": [{"loc": ["body"], "msg": "Downstream", "type": "downstream_service_error"}]}),
    "GPU": (503, {"detail": "GPU error"}),
    "SLOW_START": (504, {"detail": "Request timed out", "error_type": "request_timeout"}),
    "RUNNER": (503, {"detail": "Runner disconnected", "error_type": "runner_disconnected"}),
}
_CANCELLED = (499, {"detail": "Request cancelled by the client", "error_type": "client_cancelled"})
# What changes a job in other ways than its end: see `FalAi`.
_WAYS = frozenset({"STUCK", "VANISHED", "EMPTY", "EMPTY_ONCE", "MOVED", "LOST", "REGRESS", "UNSTOPPABLE", "STUBBORN"})


@dataclass(slots=True, kw_only=True)
class Task:
    """One request in the queue. `asked_s` is the time to start that it was given, None where it was given none."""

    id: str
    app: str
    begun: float
    run_s: float
    made: Made
    given: Any = field(repr=False)
    shape: Shape
    word: str = ""
    quiet: bool = False
    asked_s: float | None = None
    cancelled: bool = False
    looks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as it came. `host` is queue, run, rest or media."""

    host: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FalAi:
    """fal behind four hosts: `queue_url`, `run_url`, `rest_url`, and `media_url`, where files are put and delivered.

    A job is IN_QUEUE for `queue_s`, IN_PROGRESS for `run_s`, then COMPLETED. `faults` has `job` words besides: those of
    ENDS, which fail it (with `quiet` its status says nothing of that); STUCK; VANISHED (404); EMPTY and EMPTY_ONCE
    (no picture); MOVED (its first address is gone), LOST (each address is); REGRESS (back from IN_PROGRESS to IN_QUEUE
    once); UNSTOPPABLE (a cancel is taken, and it completes), STUBBORN (a cancel is taken, and it goes on for good); and
    any other word, which is its status once and means nothing.
    """

    def __init__(self, *, queue_s: float = 0.0, run_s: float = 0.0) -> None:
        self.queue_s = queue_s
        self.run_s = run_s
        self.faults = Faults()
        self.books = Books()
        self.locked = False
        self.quiet = False
        self.shape: Shape | None = None
        """What the output looks like, where it is not what the model has."""
        self.inline = False
        """Whether the output is a data URI, whatever was asked for."""
        self.announce: Callable[[str], str] = lambda address: address
        """What becomes of the addresses in answers about a job."""
        self.seen: list[Seen] = []
        self.strangers: list[Seen] = []
        """Requests for a delivered file that brought a key."""
        self.queue_url = self.run_url = self.rest_url = self.media_url = ""
        self._tasks: dict[str, Task] = {}
        self._files: dict[str, bytes] = {}
        self._gone: set[str] = set()

    @contextmanager
    def running(self) -> Iterator[FalAi]:
        """Serve the four hosts until the block ends."""
        with ExitStack() as stack:
            self.queue_url = stack.enter_context(serve(self.queue)).url
            self.run_url = stack.enter_context(serve(self.sync)).url
            self.rest_url = stack.enter_context(serve(self.rest)).url
            self.media_url = stack.enter_context(serve(self.media)).url
            yield self

    @property
    def allow(self) -> frozenset[str]:
        """The origin of the delivery host, for a guard's list."""
        return frozenset({self.media_url.removeprefix("http://")})

    def asked(self, method: str, part: str = "", host: str = "queue") -> list[Seen]:
        """The requests of a method to a host with this in their path."""
        return [seen for seen in self.seen if (seen.host, seen.method) == (host, method) and part in seen.path]

    @property
    def queue(self) -> Starlette:
        # Only owner and app are in a job's address: with a sub-path nothing is found there.
        job = "/{owner}/{alias}/requests/{id}"
        return Starlette(
            routes=[
                Route(f"{job}/status", self._status),
                Route(f"{job}/cancel", self._cancel, methods=["PUT"]),
                Route(f"{job}/response", self._response),
                Route(job, self._response),
                Route("/{model:path}", self._submit, methods=["POST"]),
            ]
        )

    @property
    def sync(self) -> Starlette:
        return Starlette(routes=[Route("/{model:path}", self._run, methods=["POST"])])

    @property
    def rest(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/storage/upload/initiate", self._initiate, methods=["POST"]),
                Route("/storage/auth/token", self._token, methods=["POST"]),
            ]
        )

    @property
    def media(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/upload/{name}", self._put, methods=["PUT"]),
                Route("/files/upload", self._post, methods=["POST"]),
                Route("/files/{name}", self._file),
            ]
        )

    async def _meet(
        self, host: str, request: Request, op: Op, carry_out: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Answer as the next fault of this kind says. Whatever is fal's own answer has `x-fal-request-id`."""
        body = await request.body()
        self.books.requests.append((request.method, request.url.path))
        headers = dict(request.headers)
        self.seen.append(Seen(host=host, method=request.method, path=request.url.path, headers=headers, body=body))
        own: dict[str, str] = {}

        async def noted() -> Response:
            response = await carry_out()
            own["x-fal-request-id"] = response.headers.get("x-fal-request-id", str(uuid.uuid4()))
            return response

        fault = self.faults.next(op)
        response = await play(request, fault, noted)
        if host != "media" and (fault is None or fault.kind != "answer"):
            response.headers.update(own)
        return response

    async def _submit(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = await self._take(request)
            if isinstance(task, Response):
                return task
            first = {"status": "IN_QUEUE", "request_id": task.id, "gateway_request_id": task.id, "queue_position": 0}
            return JSONResponse({**first, **self._addresses(task)}, headers={"x-fal-request-id": task.id})

        return await self._meet("queue", request, "submit", carry_out)

    async def _run(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = await self._take(request)
            if isinstance(task, Response):
                return task
            await asyncio.sleep(self.queue_s + task.run_s)
            return self._result(task)

        return await self._meet("run", request, "submit", carry_out)

    async def _take(self, request: Request) -> Task | Response:
        """Take a job, or say why not. The input is not looked at here: that is the runner's."""
        name = request.path_params["model"]
        if refused := self._refused(request, name):
            return refused
        model = MODELS.get(name)
        if model is None:
            return _detail(404, f'Application "{name}" not found')
        try:
            given = json.loads(await request.body())
            asked = request.headers.get("x-fal-request-timeout")
            asked_s = float(asked) if asked is not None else None
        except ValueError:
            return _detail(400, "Malformed request")
        fault = self.faults.next("job")
        word = fault.word if fault else ""
        return self._taken(request, name, model, given, word, asked_s)

    def _taken(self, request: Request, name: str, model: Model, given: Any, word: str, asked_s: float | None) -> Task:
        task = Task(
            id=str(uuid.uuid4()),
            app="/".join(name.split("/")[:2]),
            begun=time.monotonic(),
            run_s=self.run_s,
            made=run(model, given, lambda address: self._files.get(address.removeprefix(f"{self.media_url}/files/"))),
            given=given,
            shape=self.shape or model.shape,
            word=word,
            quiet=self.quiet,
            asked_s=asked_s,
        )
        if word in ENDS:
            status, body = ENDS[word]
            task.made = Made(status=status, body=body)
        elif asked_s is not None and self.queue_s > asked_s:
            status, body = ENDS["SLOW_START"]
            task.made = Made(status=status, body=body)
        # A 503 is tried again by the queue, ten times, unless it is told not to.
        if task.made.status == 503 and request.headers.get("x-fal-no-retry") not in {"1", "true", "yes"}:
            task.run_s *= 10
        if task.made.status == 200 and word != "STUCK":
            self.books.bills[task.id] = round(task.made.units * model.price, 8)
        if model.sync_mode and isinstance(given, dict) and given.get("sync_mode"):
            task.given = {**given, "inline": True}
        self._tasks[task.id] = task
        self.books.taken.append(task.id)
        return task

    async def _status(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = self._found(request)
            return task if isinstance(task, Response) else self._tell(task)

        return await self._meet("queue", request, "poll", carry_out)

    def _tell(self, task: Task) -> Response:
        word = self._state(task)
        body: dict[str, Any] = {"status": word, "request_id": task.id, **self._addresses(task)}
        if word == "IN_QUEUE":
            body["queue_position"] = 0
        else:
            body["logs"] = None
        if word == "COMPLETED":
            body["metrics"] = {"inference_time": task.run_s}
            status, error = self._end(task)
            if status != 200 and not task.quiet:
                body["error"] = f"Invalid status code: {status}"
                body["error_type"] = error.get("error_type", "invalid_status_code")
        return JSONResponse(body, 200 if word == "COMPLETED" else 202, {"x-fal-request-id": task.id})

    def _state(self, task: Task) -> str:
        task.looks += 1
        if task.word == "REGRESS" and task.looks <= 2:
            return ("IN_PROGRESS", "IN_QUEUE")[task.looks - 1]
        if task.word and task.word not in ENDS and task.word not in _WAYS and task.looks == 1:
            return task.word
        if self._done(task):
            return "COMPLETED"
        return "IN_QUEUE" if time.monotonic() - task.begun < self.queue_s else "IN_PROGRESS"

    def _done(self, task: Task) -> bool:
        if task.word == "STUBBORN" or (task.word == "STUCK" and not task.cancelled):
            return False
        return task.cancelled or time.monotonic() - task.begun >= self.queue_s + task.run_s

    def _end(self, task: Task) -> tuple[int, Mapping[str, Any]]:
        return _CANCELLED if task.cancelled else (task.made.status, task.made.body)

    async def _response(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = self._found(request)
            if isinstance(task, Response):
                return task
            return self._result(task) if self._done(task) else _detail(400, "Request is still in progress")

        return await self._meet("queue", request, "result", carry_out)

    def _result(self, task: Task) -> Response:
        status, body = self._end(task)
        headers = {"x-fal-request-id": task.id}
        if status != 200:
            if kind := body.get("error_type"):
                headers["x-fal-error-type"] = kind
                headers["x-fal-request-timeout-type"] = "user"
            else:
                headers["x-fal-billable-units"] = "0"
                headers["x-fal-needs-retry"] = "true" if status >= 500 else "false"
            return JSONResponse(body, status, headers)
        headers["x-fal-billable-units"] = f"{task.made.units:.8f}"
        return JSONResponse(self._output(task), headers=headers)

    def _output(self, task: Task) -> Any:
        """The picture in the shape of the model, at a new address each time."""
        if task.word.startswith("EMPTY"):
            task.word = task.word.removesuffix("EMPTY_ONCE")
            return {"images": [], "timings": {}} if task.shape == "images" else {"image": None, "seed": 1}
        kind = "jpeg" if task.made.kind == "jpg" else task.made.kind
        name = f"{uuid.uuid4().hex}.{kind}"
        url = f"{self.media_url}/files/{name}"
        if self.inline or (isinstance(task.given, dict) and task.given.get("inline")):
            url = f"data:image/{kind};base64,{base64.b64encode(task.made.picture).decode()}"
        self._files[name] = task.made.picture
        if task.word in {"MOVED", "LOST"}:
            self._gone.add(name)
            task.word = task.word.removesuffix("MOVED")
        file = {"url": url, "content_type": f"image/{kind}", "file_name": name, "file_size": len(task.made.picture)}
        output: Mapping[Shape, Any] = {
            "image": {"image": file, "seed": task.given.get("seed", 42), "timings": {"inference": task.run_s}},
            "images": {"images": [file], "seed": 42, "has_nsfw_concepts": [False], "prompt": "", "timings": {}},
            "string": {"image": url},
            "url": url,
        }
        return output[task.shape]

    async def _cancel(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = self._found(request)
            if isinstance(task, Response):
                missing = task.status_code == 404
                return JSONResponse({"status": "NOT_FOUND"}, 404) if missing else task
            if self._done(task):
                return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
            if task.word not in {"UNSTOPPABLE", "STUBBORN"}:
                task.cancelled = True
                self.books.bills.pop(task.id, None)
            return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)

        return await self._meet("queue", request, "cancel", carry_out)

    def _found(self, request: Request) -> Task | Response:
        app = "{owner}/{alias}".format(**request.path_params)
        if refused := self._refused(request, app):
            return refused
        task = self._tasks.get(request.path_params["id"])
        if task is None or task.app != app or task.word == "VANISHED":
            return _detail(404, "Request not found")
        return task

    def _addresses(self, task: Task) -> dict[str, str]:
        base = f"{self.queue_url}/{task.app}/requests/{task.id}"
        made = {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
        return {name: self.announce(address) for name, address in made.items()}

    def _refused(self, request: Request, app: str) -> Response | None:
        given = request.headers.get("authorization")
        if given is None:
            text = "Authentication is required to access this application."
            return _detail(401, f'Cannot access application "{app}". {text}')
        if given != f"Key {KEY}":
            return _detail(401, "invalid key credentials")
        return _detail(403, _LOCKED) if self.locked else None

    async def _initiate(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := self._refused(request, "storage"):
                return refused
            given = json.loads(await request.body())
            if not {"file_name", "content_type"} <= set(given):
                return _detail(422, "file_name and content_type are required")
            name = f"{uuid.uuid4().hex}-{given['file_name']}"
            return JSONResponse(
                {"upload_url": self.announce(f"{self.media_url}/upload/{name}?signature=s3cret"),
                 "file_url": f"{self.media_url}/files/{name}"}
            )  # fmt: skip

        return await self._meet("rest", request, "upload", carry_out)

    async def _token(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := self._refused(request, "storage"):
                return refused
            expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            return JSONResponse(
                {"token": "cdn-token", "token_type": "Bearer", "base_url": self.media_url, "expires_at": expires}
            )

        return await self._meet("rest", request, "upload", carry_out)

    async def _put(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if request.query_params.get("signature") != "s3cret":
                return Response(status_code=403)
            self._files[request.path_params["name"]] = await request.body()
            return Response()

        return await self._meet("media", request, "upload", carry_out)

    async def _post(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if request.headers.get("authorization") != "Bearer cdn-token":
                return Response(status_code=401)
            name = f"{uuid.uuid4().hex}-{request.headers.get('x-fal-file-name', 'upload.bin')}"
            self._files[name] = await request.body()
            return JSONResponse({"access_url": f"{self.media_url}/files/{name}"})

        return await self._meet("media", request, "upload", carry_out)

    async def _file(self, request: Request) -> Response:
        async def carry_out() -> Response:
            name = request.path_params["name"]
            if "authorization" in request.headers:
                self.strangers.append(self.seen[-1])
                return Response(status_code=400)
            if name in self._gone or name not in self._files:
                return Response(status_code=404)
            return Response(self._files[name], media_type=f"image/{name.rpartition('.')[2]}")

        return await self._meet("media", request, "download", carry_out)


def _detail(status: int, text: str) -> Response:
    return JSONResponse({"detail": text}, status)
