"""A simulated Replicate over real HTTP: the API on one port, the delivery of results on another.

After https://replicate.com/docs/reference/http and the answers recorded in the tests of its Python client.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from tests.simulators.base import Run, Simulated
from tests.simulators.common import Books, Faults, enlarge, first_of, play
from tests.simulators.replicate_hooks import USUAL, Hooks
from tests.simulators.replicate_job import Prediction, file_object
from tests.simulators.replicate_models import (
    CLARITY,
    MODELS,
    NO_VERSION,
    NOT_FOUND,
    Model,
    Shape,
    duration,
    problem,
    shaped,
    version_object,
    wrong,
)

TOKEN = "r8_simulated"
USD_PER_SECOND = 0.000975

_CREATE_KEYS = {"version", "input", "webhook", "webhook_completed", "webhook_events_filter", "stream"}


@dataclass
class Simulator(Simulated):
    """The state of one simulated account. Set `boot_s` and `run_s` (seconds), script `faults`, read `books`."""

    name = "replicate"
    key = TOKEN
    key_variable = "REPLICATE_API_TOKEN"

    boot_s: float = 0.02
    run_s: float = 0.1
    shape: Shape | None = None
    """What outputs look like, whatever the model says."""
    page: int = 100
    """How many predictions a page of the list has."""
    lag_s: float = 0.0
    """How old a prediction is before the list has it."""
    shows_webhook: bool = True
    """Whether a prediction tells its webhook, as older answers do."""
    clock_s: float = 0.0
    """By how much its clock is ahead of ours."""
    hooks: Hooks = field(default_factory=Hooks)
    faults: Faults = field(default_factory=Faults)
    jobs: dict[str, Prediction] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """What was submitted."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """The headers of the submits."""
    keys_at_delivery: list[str] = field(default_factory=list)
    """Credentials and cookies that were sent where none belong."""
    files: dict[str, tuple[dict[str, Any], bytes]] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    _requests: list[tuple[str, str]] = field(default_factory=list)
    _delivery: str = ""

    @property
    @override
    def books(self) -> Books:
        """What was taken and what it costs: the seconds that ran, whether they led to anything or not."""
        seconds = {job.id: job.predict_time for job in list(self.jobs.values())}
        bills = {name: ran * USD_PER_SECOND for name, ran in seconds.items() if ran > 0}
        return Books(taken=list(self.jobs), bills=bills, requests=list(self._requests))

    @override
    def given(self, job: str) -> Mapping[str, Any]:
        """What a job was asked to do."""
        return self.jobs[job].input

    @override
    def hosts(self, run: Run) -> None:
        self._delivery = run(self._deliveries()).url
        self.url = run(self._api()).url

    @property
    @override
    def strays(self) -> Sequence[str]:
        return self.keys_at_delivery

    @property
    @override
    def origins(self) -> frozenset[str]:
        return frozenset(url.removeprefix("http://") for url in (self._delivery, self.url))

    @property
    @override
    def addresses(self) -> Mapping[str, str]:
        return {"base_url": self.url}

    @override
    def timed(self, *, run_s: float, queue_s: float = 0.0) -> Simulator:
        self.run_s, self.boot_s = run_s, queue_s
        return self

    def _api(self) -> Starlette:
        one = "/v1/predictions/{job}"
        return Starlette(
            routes=[
                Route("/v1/predictions", self._guarded("submit", self._create), methods=["POST"]),
                Route("/v1/models/{owner}/{name}/predictions", self._guarded("submit", self._create), methods=["POST"]),
                Route("/v1/predictions", self._guarded("list", self._list)),
                Route(one, self._guarded("poll", self._get)),
                Route(one + "/cancel", self._guarded("cancel", self._cancel), methods=["POST"]),
                # Faults for the secret are scripted as those of a result, of which this API has none.
                Route("/v1/webhooks/default/secret", self._guarded("result", self._secret)),
                Route("/v1/files", self._guarded("upload", self._upload), methods=["POST"]),
                Route("/v1/files/{key}", self._guarded("upload", self._file), methods=["GET", "DELETE"]),
                Route("/v1/models/{owner}/{name}", self._guarded("list", self._model)),
                Route("/v1/models/{owner}/{name}/versions/{version}", self._guarded("list", self._version)),
            ]
        )

    def _deliveries(self) -> Starlette:
        async def endpoint(request: Request) -> Response:
            return await play(request, self.faults.next("download"), lambda: self._deliver(request))

        return Starlette(routes=[Route("/pbxt/{key}/{name}", endpoint)])

    async def _deliver(self, request: Request) -> Response:
        secrets_sent = [request.headers[name] for name in ("authorization", "cookie") if name in request.headers]
        self.keys_at_delivery += secrets_sent
        data = self.results.get(request.path_params["key"])
        if secrets_sent or data is None:
            return Response("<Error><Code>NoSuchKey</Code></Error>", 400 if secrets_sent else 404)
        return Response(data, media_type="image/png")

    def _guarded(
        self, op: Any, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[..., Awaitable[Response]]:
        """An endpoint behind the key, with the faults that the test has scripted for it."""

        async def endpoint(request: Request) -> Response:
            self._requests.append((request.method, request.url.path))
            if op == "submit":
                self.headers.append(dict(request.headers))
            response = await play(
                request, self.faults.next(op, request.headers), lambda: self._authorised(request, handler)
            )
            response.headers["ratelimit-remaining"] = "599" if op == "submit" else "2999"
            response.headers["ratelimit-reset"] = "1"
            response.headers["date"] = formatdate(time.time() + self.clock_s, usegmt=True)
            return response

        return endpoint

    async def _authorised(self, request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "")
        if not given:
            return problem(401, "You did not pass an authentication token", "Unauthenticated")
        if given not in {f"Bearer {TOKEN}", f"Token {TOKEN}"}:
            return problem(401, "You did not pass a valid authentication token", "Unauthenticated")
        return await handler(request)

    async def _create(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        if unknown := sorted(set(body) - _CREATE_KEYS):
            return problem(422, f"- Additional property {unknown[0]} is not allowed\n", "Input validation failed")
        name, refused = self._called(request, body)
        if refused:
            return refused
        model, given = MODELS[name], body.get("input", {})
        if refused := wrong(model, given):
            return refused
        if reason := self.hooks.refused(body):
            return problem(422, reason, "Input validation failed")
        job = Prediction(
            model=name,
            version=model.version or "hidden",
            input=given,
            boot_s=self.boot_s,
            run_s=self.run_s,
            cancel_after_s=duration(request.headers.get("cancel-after")),
            webhook=body.get("webhook"),
            events=tuple(body.get("webhook_events_filter", USUAL)),
        )
        if (fault := self.faults.next("job")) is not None:
            job.word = fault.word
        await self._work(job, model)
        self.jobs[job.id] = job
        self.hooks.follow(job, self.url)
        return await self._first_answer(request, job)

    def _called(self, request: Request, body: dict[str, Any]) -> tuple[str, Response | None]:
        """The model that a submit means, or why it means none."""
        if "owner" in request.path_params:
            name = "{owner}/{name}".format(**request.path_params)
            official = name in MODELS and MODELS[name].version is None
            return name, None if official else problem(404, NOT_FOUND)
        version = str(body.get("version", "")).rpartition(":")[2]
        names = [name for name, model in MODELS.items() if model.version == version]
        return (names[0], None) if names else ("", problem(422, NO_VERSION, "Invalid version or not permitted"))

    async def _first_answer(self, request: Request, job: Prediction) -> Response:
        """Hold the answer open as long as the client prefers."""
        prefer = re.fullmatch(r"wait(?:=(\d+))?", request.headers.get("prefer", ""))
        headers = {"location": f"{self.url}/v1/predictions/{job.id}"}
        if prefer is None:
            return JSONResponse(self._shown(job), 201, headers)
        limit = time.monotonic() + min(60, int(prefer[1] or 60))
        await asyncio.sleep(max(0.0, min(job.ended + 0.005, limit) - time.monotonic()))
        headers["preference-applied"] = prefer[0]
        return JSONResponse(job.shown_in_time(self.url), 201, headers)

    async def _work(self, job: Prediction, model: Model) -> None:
        """Make the larger picture, and put it where it is fetched."""
        data = self._input_picture(job.input[model.image])
        told = re.search(r"[\d.]+", str(job.input.get(model.factor, model.default)))
        kind = job.input.get("output_format", "png")
        first = first_of(job.input) if model.version == CLARITY else None
        made = await asyncio.to_thread(enlarge, data, float(told[0]) if told else 1.0, kind, first=first)
        key = secrets.token_urlsafe(16)
        self.results[key] = made
        name = f"{job.input.get('seed', 1337)}-{secrets.token_hex(8)}.{kind}"
        shape = self.shape or model.output
        job.output = shaped(shape, f"{self._delivery}/pbxt/{key}/{name}")
        job.inline = shaped(shape, f"data:image/{kind};base64,{base64.b64encode(made).decode()}")

    def _input_picture(self, value: str) -> bytes:
        if value.startswith("data:"):
            return base64.b64decode(value.partition(",")[2])
        return self.files[value.rpartition("/")[2]][1]

    async def _get(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["job"])
        if job is None or job.vanished:
            return problem(404, NOT_FOUND)
        return JSONResponse(self._shown(job))

    async def _cancel(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["job"])
        if job is None or job.vanished:
            return problem(404, NOT_FOUND)
        if time.monotonic() < job.ended:
            job.cancelled = time.monotonic()
        return JSONResponse(self._shown(job))

    async def _list(self, request: Request) -> Response:
        given = request.query_params
        first, last = (
            given.get("created_after", "1970-01-01T00:00:00Z"),
            given.get("created_before", "9999-01-01T00:00:00Z"),
        )
        oldest, newest = datetime.fromisoformat(first), datetime.fromisoformat(last)
        shown = [job for job in self.jobs.values() if oldest <= job.created_at < newest and job.age >= self.lag_s]
        begin = int(given.get("cursor", 0))
        results = [{**self._shown(job), "source": "api"} for job in reversed(shown)]
        end = begin + self.page
        following = urlencode({**given, "cursor": end})
        address = f"{self.url}/v1/predictions?{following}" if end < len(results) else None
        return JSONResponse({"previous": None, "next": address, "results": results[begin:end]})

    async def _secret(self, request: Request) -> Response:
        return JSONResponse({"key": self.hooks.secret})

    def _shown(self, job: Prediction) -> dict[str, Any]:
        made = job.shown(self.url)
        return made if self.shows_webhook else {name: value for name, value in made.items() if name != "webhook"}

    async def _upload(self, request: Request) -> Response:
        async with request.form() as form:
            part = form["content"]
            assert not isinstance(part, str)
            data = await part.read()
            made = file_object(part.filename or "file", part.content_type or "", data, self.url)
        self.files[made["id"]] = (made, data)
        return JSONResponse(made, 201)

    async def _file(self, request: Request) -> Response:
        key = request.path_params["key"]
        if key not in self.files:
            return problem(404, NOT_FOUND)
        if request.method == "DELETE":
            del self.files[key]
            return Response(status_code=204)
        return JSONResponse(self.files[key][0])

    async def _model(self, request: Request) -> Response:
        owner, name = request.path_params["owner"], request.path_params["name"]
        if (model := MODELS.get(f"{owner}/{name}")) is None:
            return problem(404, NOT_FOUND)
        latest = version_object(model.version) if model.version else None
        url = f"https://replicate.com/{owner}/{name}"
        about = {"url": url, "owner": owner, "name": name, "visibility": "public", "run_count": 1}
        return JSONResponse({**about, "latest_version": latest, "default_example": None})

    async def _version(self, request: Request) -> Response:
        model = MODELS.get("{owner}/{name}".format(**request.path_params))
        if model is None or model.version != request.path_params["version"]:
            return problem(404, NOT_FOUND)
        return JSONResponse(version_object(request.path_params["version"]))
