"""fal, played: queue, synchronous host, storage, webhooks, platform API, and the host that delivers.

True to fal's documentation (queue, errors, common parameters) and to what fal-client 1.0.3 needs, which is shown by
running that client against it. What the documents leave open is a switch here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from tests.simulators.base import Run
from tests.simulators.fal_desk import KEY, Desk, detail
from tests.simulators.fal_files import Files
from tests.simulators.fal_history import History
from tests.simulators.fal_hooks import Hooks
from tests.simulators.fal_jobs import ENDS, Task
from tests.simulators.fal_models import MODELS, Made, Model, Shape, run

__all__ = ["KEY", "FalAi"]


class FalAi(Desk):
    """fal behind five hosts: `queue_url`, `run_url`, `rest_url`, `api_url`, and `media_url`, where files are put and
    delivered.

    A job is IN_QUEUE for `queue_s`, IN_PROGRESS for `run_s`, then COMPLETED. `faults` has `job` words besides: those of
    ENDS, which fail it (with `quiet` its status says nothing of that); STUCK; VANISHED (404); EMPTY and EMPTY_ONCE
    (no picture); MOVED (its first address is gone), LOST (each address is); REGRESS (back from IN_PROGRESS to IN_QUEUE
    once); UNSTOPPABLE (a cancel is taken, and it completes), STUBBORN (a cancel is taken, and it goes on for good); and
    any other word, which is its status once and means nothing. With `removes` a cancel takes a job that waits out of
    the queue, and it is not found any more.
    """

    name = "fal"
    key = KEY
    key_variable = "FAL_KEY"

    def __init__(self, *, queue_s: float = 0.0, run_s: float = 0.0) -> None:
        super().__init__()
        self.files = Files(self)
        self.removes = False
        self.queue_s = queue_s
        self.run_s = run_s
        self.quiet = False
        self.shape: Shape | None = None
        """What the output looks like, where it is not what the model has."""
        self.inline = False
        """Whether the output is a data URI, whatever was asked for."""
        self.announce: Callable[[str], str] = lambda address: address
        """What becomes of the addresses in answers about a job."""
        self.queue_url = self.run_url = self.rest_url = self.media_url = self.api_url = ""
        self._tasks: dict[str, Task] = {}
        self.hooks = Hooks(self, self._output)
        self.history = History(self, self._tasks)

    @override
    def hosts(self, run: Run) -> None:
        self.queue_url = run(self.queue).url
        self.run_url = run(self.sync).url
        self.rest_url = run(self.rest).url
        self.api_url = run(self.history.app).url
        self.media_url = self.files.url = run(self.files.media).url

    @property
    @override
    def origins(self) -> frozenset[str]:
        return frozenset({self.media_url.removeprefix("http://")})

    @property
    @override
    def addresses(self) -> Mapping[str, str]:
        return {
            "queue_url": self.queue_url,
            "run_url": self.run_url,
            "rest_url": self.rest_url,
            "api_url": self.api_url,
        }

    def finish_runs(self) -> None:
        """End the run of every job now, whatever its `run_s`."""
        for task in self._tasks.values():
            task.run_s = time.monotonic() - task.begun - task.queue_s

    @override
    def timed(self, *, run_s: float, queue_s: float = 0.0) -> FalAi:
        self.run_s, self.queue_s = run_s, queue_s
        return self

    @override
    def given(self, job: str) -> Mapping[str, Any]:
        """What a job was asked to do."""
        given: Mapping[str, Any] = self._tasks[job].given
        return given

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
    def rest(self) -> Starlette:
        return Starlette(routes=[*self.files.rest, Route("/.well-known/jwks.json", self.hooks.jwks)])

    @property
    def sync(self) -> Starlette:
        return Starlette(routes=[Route("/{model:path}", self._run, methods=["POST"])])

    async def _submit(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = await self._take(request)
            if isinstance(task, Response):
                return task
            if hook := request.query_params.get("fal_webhook"):
                self.hooks.follow(task, hook)
            first = {"status": "IN_QUEUE", "request_id": task.id, "gateway_request_id": task.id, "queue_position": 0}
            return JSONResponse({**first, **self._addresses(task)}, headers={"x-fal-request-id": task.id})

        return await self.meet("queue", request, "submit", carry_out)

    async def _run(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = await self._take(request)
            if isinstance(task, Response):
                return task
            await asyncio.sleep(self.queue_s + task.run_s)
            return self._result(task)

        return await self.meet("run", request, "submit", carry_out)

    async def _take(self, request: Request) -> Task | Response:
        """Take a job, or say why not. The input is not looked at here: that is the runner's."""
        name = request.path_params["model"]
        if refused := self.refused(request, name):
            return refused
        model = MODELS.get(name)
        if model is None:
            return detail(404, f'Application "{name}" not found')
        try:
            given = json.loads(await request.body())
            asked = request.headers.get("x-fal-request-timeout")
            asked_s = float(asked) if asked is not None else None
        except ValueError:
            return detail(400, "Malformed request")
        fault = self.faults.next("job")
        word = fault.word if fault else ""
        return self._taken(request, name, model, given, word, asked_s)

    def _taken(self, request: Request, name: str, model: Model, given: Any, word: str, asked_s: float | None) -> Task:
        task = Task(
            id=str(uuid.uuid4()),
            app="/".join(name.split("/")[:2]),
            model=name,
            begun=time.monotonic(),
            queue_s=self.queue_s,
            run_s=self.run_s,
            made=run(model, given, self.files.fetch),
            given=given,
            shape=self.shape or model.shape,
            word=word,
            quiet=self.quiet,
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
            logs = request.query_params.get("logs") in {"1", "true"}
            return task if isinstance(task, Response) else self._tell(task, logs)

        return await self.meet("queue", request, "poll", carry_out)

    def _tell(self, task: Task, logs: bool) -> Response:
        word = task.state()
        body: dict[str, Any] = {"status": word, "request_id": task.id, **self._addresses(task)}
        if word == "IN_QUEUE":
            body["queue_position"] = 0
        else:
            body["logs"] = task.logs() if logs else None
        if word == "COMPLETED":
            body["metrics"] = {"inference_time": task.run_s}
            status, error = task.end()
            if status != 200 and not task.quiet:
                body["error"] = f"Invalid status code: {status}"
                body["error_type"] = error.get("error_type", "invalid_status_code")
        return JSONResponse(body, 200 if word == "COMPLETED" else 202, {"x-fal-request-id": task.id})

    async def _response(self, request: Request) -> Response:
        async def carry_out() -> Response:
            task = self._found(request)
            if isinstance(task, Response):
                return task
            return self._result(task) if task.done() else detail(400, "Request is still in progress")

        return await self.meet("queue", request, "result", carry_out)

    def _result(self, task: Task) -> Response:
        status, body = task.end()
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
        name = self.files.add(task.made.image, kind)
        url = f"{self.media_url}/files/{name}"
        if self.inline or (isinstance(task.given, dict) and task.given.get("inline")):
            url = f"data:image/{kind};base64,{base64.b64encode(task.made.image).decode()}"
        if task.word in {"MOVED", "LOST"}:
            self.files.gone.add(name)
            task.word = task.word.removesuffix("MOVED")
        file = {"url": url, "content_type": f"image/{kind}", "file_name": name, "file_size": len(task.made.image)}
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
            if task.done():
                return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
            if self.removes and task.state() == "IN_QUEUE":
                task.cancelled = task.removed = True
                self.books.bills.pop(task.id, None)
                return JSONResponse({"status": "OK"})
            if task.word not in {"UNSTOPPABLE", "STUBBORN"}:
                task.cancelled = True
                self.books.bills.pop(task.id, None)
            return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)

        return await self.meet("queue", request, "cancel", carry_out)

    def _found(self, request: Request) -> Task | Response:
        app = "{owner}/{alias}".format(**request.path_params)
        if refused := self.refused(request, app):
            return refused
        task = self._tasks.get(request.path_params["id"])
        if task is None or task.app != app or task.removed or task.word == "VANISHED":
            return detail(404, "Request not found")
        return task

    def _addresses(self, task: Task) -> dict[str, str]:
        base = f"{self.queue_url}/{task.app}/requests/{task.id}"
        made = {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
        return {name: self.announce(address) for name, address in made.items()}
