"""fal's webhooks, played: signed with ED25519, by a key that a JWKS document publishes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from nacl.signing import SigningKey
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.simulators.fal_desk import Desk
from tests.simulators.fal_jobs import Task

_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What was posted, and what was answered to it; 0 where nobody answered."""

    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    status: int


class Hooks:
    """Reports the end of a job, and does so again until it is taken.

    `way` is how: once; twice; late, by `late_s` seconds; forged, with a key that is not published; none at all.
    """

    def __init__(self, desk: Desk, payload: Callable[[Task], Any]) -> None:
        self._desk = desk
        self._payload = payload
        self.way: Literal["once", "twice", "late", "forged", "none"] = "once"
        self.late_s = 0.3
        self.user = "github|1234567"
        self.addresses: dict[str, str] = {}
        """Where each job is to be told of, by its id."""
        self.delivered: list[Delivery] = []
        self.published: list[SigningKey] = [SigningKey.generate(), SigningKey.generate()]
        self._key = self.published[-1]
        self._tasks: set[asyncio.Task[None]] = set()

    def rotate(self) -> None:
        """Sign with a new key, and publish no other."""
        self._key = SigningKey.generate()
        self.published = [self._key]

    async def jwks(self, request: Request) -> Response:
        async def carry_out() -> Response:
            raw = [bytes(key.verify_key) for key in self.published]
            texts = [base64.urlsafe_b64encode(key).rstrip(b"=").decode() for key in raw]
            return JSONResponse({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": text} for text in texts]})

        return await self._desk.meet("rest", request, "list", carry_out)

    def follow(self, task: Task, url: str) -> None:
        """Tell an address of the end of a job, when that comes."""
        self.addresses[task.id] = url
        following = asyncio.create_task(self._follow(task, url))
        self._tasks.add(following)
        following.add_done_callback(self._tasks.discard)

    async def _follow(self, task: Task, url: str) -> None:
        while not task.done():  # noqa: ASYNC110 - a job of the simulator ends by the clock alone
            await asyncio.sleep(0.01)
        if self.way == "none":
            return
        await asyncio.sleep(self.late_s if self.way == "late" else 0)
        body = self.body(task)
        for _ in range(2 if self.way == "twice" else 1):
            for _ in range(_TRIES):
                if 200 <= await self._post(task.id, body, url) < 300:
                    break
                await asyncio.sleep(0.05)

    def body(self, task: Task) -> bytes:
        """Return what fal says of the end of a job."""
        status, error = task.end()
        told: dict[str, Any] = {"request_id": task.id, "gateway_request_id": task.id}
        if status == 200:
            told |= {"status": "OK", "payload": self._payload(task)}
        else:
            told |= {"status": "ERROR", "error": f"Invalid status code: {status}", "payload": error}
        return json.dumps(told).encode()

    def headers(self, request: str, body: bytes, *, moment: float | None = None) -> dict[str, str]:
        """Return the headers of a webhook, signed at a moment of the wall clock: now, if it is not said."""
        stamp = str(int(time.time() if moment is None else moment))
        key = SigningKey.generate() if self.way == "forged" else self._key
        message = "\n".join([request, self.user, stamp, hashlib.sha256(body).hexdigest()])
        return {
            "content-type": "application/json",
            "x-fal-webhook-request-id": request,
            "x-fal-webhook-user-id": self.user,
            "x-fal-webhook-timestamp": stamp,
            "x-fal-webhook-signature": key.sign(message.encode()).signature.hex(),
        }

    async def _post(self, request: str, body: bytes, url: str) -> int:
        headers = self.headers(request, body)
        async with httpx.AsyncClient() as client:
            try:
                status = (await client.post(url, content=body, headers=headers)).status_code
            except httpx.TransportError:
                status = 0
        self.delivered.append(Delivery(headers=headers, body=body, status=status))
        return status
