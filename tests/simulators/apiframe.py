"""Apiframe, played: version 2 of its API and the host that delivers pictures.

True to the pages named in `providers/apiframe/adapter.py`. What is not published, or told in two ways, is
a switch here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from tests.simulators.apiframe_models import MODELS, validated
from tests.simulators.base import Run, Simulated
from tests.simulators.common import Books, Faults, Op, enlarge, play
from tests.simulators.postman import Letter, Postman

KEY = "afk_0123456789abcdef"
USD_PER_CREDIT = 0.01
_HOUR_S = 3600.0
_MOST_BYTES = 25 * 1024 * 1024
_MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(slots=True, kw_only=True)
class Work:
    """One job. `word` is what a scripted fault makes of it: see `Apiframe`."""

    id: str
    begun: float
    model: str
    given: Mapping[str, Any]
    credits: int
    image: bytes = field(repr=False)
    kind: str
    word: str = ""
    looks: int = 0
    refunded: bool = False
    webhook: str | None = None
    events: tuple[str, ...] = ()


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


class Apiframe(Simulated):
    """Apiframe behind two hosts: `url` for the API and `cdn_url` for uploads and results.

    A job is QUEUED for `queue_s`, PROCESSING for `run_s`, then COMPLETED. Credits are taken at the submit and given
    back when it ends otherwise. `faults` has `job` words besides: FAILED (`fails` is the text), CANCELLED, STUCK,
    VANISHED (404), EMPTY and EMPTY_ONCE (completed without result), MOVED (its first address is gone), LOST (each
    address is), and any other word, which is its status once and means nothing.
    """

    name = "apiframe"
    key = KEY
    key_variable = "APIFRAME_API_KEY"

    def __init__(self, *, queue_s: float = 0.0, run_s: float = 0.0) -> None:
        self.queue_s = queue_s
        self.run_s = run_s
        self.faults = Faults()
        self._books = Books()
        self.credits = 100
        self.fails = "Provider returned an error: out of memory"
        self.shape: Literal["object", "string"] = "object"
        self.conflict = True
        """Whether a key that comes again with another body is a 409; else the first job is told again."""
        self.postman = Postman()
        self.hook_key: Literal["raw", "hex"] = "raw"
        """What webhooks are signed with: the bytes of the secret, or its hex digits."""
        self.refunds: list[str] = []
        self.seen: list[Seen] = []
        self.strangers: list[Seen] = []
        """Requests at the delivery host that brought a key."""
        self.url = self.cdn_url = ""
        self._ahead_s = 0.0
        self._jobs: dict[str, Work] = {}
        self._keys: dict[str, tuple[str, str, float]] = {}
        self._files: dict[str, tuple[bytes, float]] = {}

    @override
    def hosts(self, run: Run) -> None:
        self.url = run(self.app).url
        self.cdn_url = run(self.cdn).url

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
        return frozenset({self.cdn_url.removeprefix("http://")})

    @property
    @override
    def addresses(self) -> Mapping[str, str]:
        return {"base_url": self.url}

    @override
    def timed(self, *, run_s: float, queue_s: float = 0.0) -> Apiframe:
        self.run_s, self.queue_s = run_s, queue_s
        return self

    def later(self, seconds: float) -> None:
        """Let time pass: uploads live for an hour or two, results and keys for a day."""
        self._ahead_s += seconds

    def stored(self, address: str) -> bytes:
        """What lies at an address of ours."""
        return self._files[address.rpartition("/")[2]][0]

    @override
    def given(self, job: str) -> Mapping[str, Any]:
        """What a job was asked to do."""
        return self._jobs[job].given

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v2/uploads", self._upload, methods=["POST"]),
                Route("/v2/images/upscale", self._upscale, methods=["POST"]),
                Route("/v2/jobs/{id}", self._job),
            ]
        )

    @property
    def cdn(self) -> Starlette:
        return Starlette(routes=[Route("/{kind}/{name}", self._file)])

    async def _meet(self, request: Request, op: Op, carry_out: Callable[[], Awaitable[Response]]) -> Response:
        body = await request.body()
        self.books.requests.append((request.method, request.url.path))
        headers = dict(request.headers)
        self.seen.append(Seen(method=request.method, path=request.url.path, headers=headers, body=body))
        return await play(request, self.faults.next(op, request.headers), carry_out)

    async def _upload(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := _locked(request, self.faults.keys):
                return refused
            async with request.form() as form:
                file = form.get("file")
                data = b"" if file is None or isinstance(file, str) else await file.read()
            kind = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
            if kind is None or len(data) > _MOST_BYTES:
                return _error(400, "Unsupported file type" if kind is None else "File too large")
            expires = datetime.now(UTC) + timedelta(hours=1)
            return JSONResponse(
                {
                    "id": str(uuid.uuid4()),
                    "url": self._put("uploads", kind, data, _HOUR_S),
                    "kind": "image",
                    "contentType": f"image/{kind}",
                    "byteSize": len(data),
                    "expiresAt": expires.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                },
                201,
            )

        return await self._meet(request, "upload", carry_out)

    async def _upscale(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := _locked(request, self.faults.keys):
                return refused
            try:
                body = json.loads(await request.body())
            except ValueError:
                return _error(400, "Invalid JSON")
            if wrong := validated(body):
                return JSONResponse({"error": "Validation failed", "details": wrong}, 400)
            key = request.headers.get("idempotency-key")
            digest = hashlib.sha256(await request.body()).hexdigest()
            known = self._keys.get(key or "")
            if known and self._now() - known[2] < 24 * _HOUR_S:
                if known[0] != digest and self.conflict:
                    return _error(409, "Idempotency key was used with another body")
                return _accepted(known[1], self._state(self._jobs[known[1]]))
            made = self._taken(body)
            if isinstance(made, Response):
                return made
            if made.webhook:
                self.postman.carry(self._letters(made))
            if key:
                self._keys[key] = (digest, made.id, self._now())
            return _accepted(made.id, "QUEUED")

        return await self._meet(request, "submit", carry_out)

    def _taken(self, body: Mapping[str, Any]) -> Work | Response:
        """Look at the picture, which is what the price rests on, then take the credits."""
        model = MODELS[body["model"]]
        given = body[model.params]
        data = self._lying(given["image"])
        if data is None:
            return _error(400, "Could not read the input image")
        if self.credits < model.credits:
            numbers = {"creditsRequired": model.credits, "creditsAvailable": self.credits}
            return JSONResponse({"error": "Insufficient credits", **numbers}, 402)
        fault = self.faults.next("job")
        kind = str(given.get("output_format", "png"))
        work = Work(
            id=str(uuid.uuid4()),
            begun=self._now(),
            model=body["model"],
            given=given,
            credits=model.credits,
            image=enlarge(data, float(given.get(model.scale, 2)), kind),
            kind=kind,
            word=fault.word if fault else "",
            webhook=body.get("webhookUrl"),
            events=tuple(body.get("webhookEvents", ("completed", "failed"))),
        )
        self.credits -= work.credits
        self.books.bills[work.id] = work.credits * USD_PER_CREDIT
        self.books.taken.append(work.id)
        self._jobs[work.id] = work
        return work

    async def _job(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := _locked(request, self.faults.keys):
                return refused
            name = request.path_params["id"]
            if not _UUID.fullmatch(name):
                return _error(400, "Invalid job id")
            work = self._jobs.get(name)
            if work is None or work.word == "VANISHED":
                return _error(404, "Job not found")
            return JSONResponse(self._told(work))

        return await self._meet(request, "poll", carry_out)

    def _told(self, work: Work) -> dict[str, Any]:
        work.looks += 1
        state = self._state(work)
        self._settle(work, state)
        return {
            "id": work.id,
            "status": state,
            "model": work.model,
            "progress": self._progress(work, state),
            "input": dict(work.given),
            "result": self._result(work) if state == "COMPLETED" else None,
            "error": self.fails if state == "FAILED" else None,
            "creditCost": 0 if work.refunded else work.credits,
            "webhookStatus": self._delivered(work),
            "expired": self._now() - work.begun > 24 * _HOUR_S,
            "createdAt": "2026-11-21T09:00:00.000Z",
            "completedAt": "2026-11-21T09:00:13.000Z" if state == "COMPLETED" else None,
        }

    def _settle(self, work: Work, state: str) -> None:
        """Give the credits back of a job that did not succeed."""
        if state in {"FAILED", "CANCELLED"} and not work.refunded:
            work.refunded = True
            self.credits += work.credits
            self.refunds.append(work.id)
            del self.books.bills[work.id]

    def _progress(self, work: Work, state: str) -> int | None:
        if state in {"QUEUED", "COMPLETED"}:
            return 100 if state == "COMPLETED" else None
        ran = self._now() - work.begun - self.queue_s
        return int(min(95, 100 * ran / self.run_s)) if self.run_s else 45

    def _delivered(self, work: Work) -> str | None:
        if not work.webhook:
            return None
        statuses = [status for _, address, status in self.postman.tries if address == work.webhook]
        return ("delivered" if statuses[-1] == 200 else "failed") if statuses else "pending"

    async def _letters(self, work: Work) -> AsyncIterator[Letter]:
        """What a webhook hears: each tenth of the way, and the end. Of a cancelled job it hears nothing."""
        told = 0
        while (state := self._state(work)) not in {"COMPLETED", "FAILED", "CANCELLED"}:
            if (progress := self._progress(work, state) or 0) >= told + 10 and "progress" in work.events:
                told = progress
                yield self._letter(work, "progress", status=state, progress=progress)
            await asyncio.sleep(0.005)
        self._settle(work, state)
        if state == "COMPLETED" and "completed" in work.events:
            url = self._put("images", work.kind, work.image, 24 * _HOUR_S)
            result = {"images": [url]} if self.shape == "object" else url
            more = {"progress": 100, "result": result, "creditCost": work.credits}
            yield self._letter(work, "completed", status=state, completedAt="2026-11-21T09:00:13.000Z", **more)
        if state == "FAILED" and "failed" in work.events:
            yield self._letter(work, "failed", status=state, error=self.fails)

    def _letter(self, work: Work, event: str, **told: object) -> Letter:
        assert work.webhook
        body = json.dumps({"event": event, "jobId": work.id, "model": work.model, **told}).encode()

        def sign(forged: bool) -> dict[str, str]:
            return {"x-webhook-event": event, **signed("afk_of_a_stranger" if forged else KEY, self.hook_key, body)}

        return Letter(event=event, address=work.webhook, body=body, sign=sign, last=event != "progress")

    def _state(self, work: Work) -> str:
        plain = {"", "FAILED", "CANCELLED", "STUCK", "EMPTY", "EMPTY_ONCE", "MOVED", "LOST", "VANISHED"}
        if work.word not in plain and work.looks == 1:
            return work.word
        age = self._now() - work.begun
        if age < self.queue_s:
            return "QUEUED"
        if age < self.queue_s + self.run_s or work.word == "STUCK":
            return "PROCESSING"
        return work.word if work.word in {"FAILED", "CANCELLED"} else "COMPLETED"

    def _result(self, work: Work) -> object:
        """The picture in the shape that is switched on, at a new address each time."""
        if work.word.startswith("EMPTY"):
            work.word = work.word.removesuffix("EMPTY_ONCE")
            return {"images": []}
        lives_s = 0.0 if work.word in {"MOVED", "LOST"} else 24 * _HOUR_S - (self._now() - work.begun)
        work.word = work.word.removesuffix("MOVED")
        url = self._put("images", work.kind, work.image, lives_s)
        return {"images": [url]} if self.shape == "object" else url

    def _put(self, folder: str, kind: str, data: bytes, lives_s: float) -> str:
        name = f"{uuid.uuid4().hex}.{kind}"
        self._files[name] = (data, self._now() + lives_s)
        return f"{self.cdn_url}/{folder}/{name}"

    def _lying(self, address: str) -> bytes | None:
        """What lies at an address of our own; the web is not there."""
        data, until = self._files.get(address.rpartition("/")[2], (b"", 0.0))
        return data if address.startswith(self.cdn_url) and self._now() < until else None

    async def _file(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if {"x-api-key", "authorization"} & set(request.headers):
                self.strangers.append(self.seen[-1])
                return Response(status_code=400)
            data = self._lying(f"{self.cdn_url}{request.url.path}")
            kind = request.url.path.rpartition(".")[2].replace("jpg", "jpeg")
            return Response(status_code=404) if data is None else Response(data, media_type=f"image/{kind}")

        return await self._meet(request, "download", carry_out)

    def _now(self) -> float:
        return time.monotonic() + self._ahead_s


def signed(key: str, form: Literal["raw", "hex"], body: bytes) -> dict[str, str]:
    """The signature of a webhook: by the SHA-256 of the API key, taken in one form or the other."""
    secret = hashlib.sha256(key.encode())
    made = hmac.new(secret.digest() if form == "raw" else secret.hexdigest().encode(), body, hashlib.sha256)
    return {"x-webhook-signature": f"sha256={made.hexdigest()}"}


def _locked(request: Request, others: Container[str]) -> Response | None:
    given = request.headers.get("x-api-key")
    if given is None:
        return _error(401, "API key is required")
    return None if given == KEY or given in others else _error(401, "Invalid API key")


def _accepted(name: str, state: str) -> Response:
    return JSONResponse({"jobId": name, "status": state}, 202)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
