"""From finished pictures to the answer: OpenAI's ImagesResponse, or a stream of its events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pybase64
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.request import Asked
from gateway.jobs.execute import Attempt, Finished
from gateway.jobs.job import Job
from gateway.routing.pricing import MICROS
from gateway.settings import ResponseFormat
from gateway.telemetry import metrics
from normalization.values import Image

# The formats of OpenAI's own enum: typed clients fail on another word, so the key is left out for avif.
_OPENAI_FORMATS = frozenset({"png", "jpeg", "webp", "gif"})
# Encoding a larger picture takes long enough to be worth a thread.
_INLINE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One picture as it is handed out: by address, as base64 (ASCII bytes), or both."""

    image: Image
    url: str | None
    base64: bytes | None


class Pieces(Response):
    """A JSON answer sent piece by piece, so that pictures are never joined into one more copy."""

    def __init__(self, pieces: Sequence[bytes], headers: Mapping[str, str], status: int = 200) -> None:
        super().__init__(status_code=status, headers=dict(headers), media_type="application/json")
        self._pieces = pieces
        self.headers["content-length"] = str(sum(map(len, pieces)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self._pieces[-1]})


async def encode(image: Image, form: ResponseFormat, url: str | None) -> Delivered:
    """Put one picture into the form that the caller asked for."""
    encoded: bytes | None = None
    if form != "url":
        small = len(image.data) <= _INLINE_BYTES
        encoded = pybase64.b64encode(image.data) if small else await asyncio.to_thread(pybase64.b64encode, image.data)
    return Delivered(image=image, url=url, base64=encoded)


def answer(asked: Asked, job: Job, finished: Finished, delivered: Sequence[Delivered], notes: Sequence[str]) -> Pieces:
    """The whole answer to a plain call."""
    head = {"id": job.id, "created": job.created}
    pieces = [_open(head), b',"data":[']
    for number, item in enumerate(delivered):
        pieces.append(b"," if number else b"")
        pieces += _item({}, item)
    tail = {**_traits(delivered[0].image), "metadata": metadata(asked, finished, notes)}
    pieces += [b"],", _open(tail)[1:], b"}"]
    count(asked, finished, delivered)
    return Pieces(pieces, headers(asked, job, finished))


def completed(asked: Asked, job: Job, finished: Finished, item: Delivered, notes: Sequence[str]) -> list[bytes]:
    """One `image_edit.completed` event, in pieces."""
    head = {
        "type": "image_edit.completed",
        "id": job.id,
        "created_at": job.created,
        **_traits(item.image),
        # No tokens are counted here; typed clients require the key in this event.
        "usage": {
            "total_tokens": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
        },
        "metadata": metadata(asked, finished, notes),
    }
    return [b"event: image_edit.completed\ndata: ", *_item(head, item), b"\n\n"]


def headers(asked: Asked, job: Job, finished: Finished) -> dict[str, str]:
    """What the answer's headers say of who served it and what it cost."""
    route = finished.candidate.route
    found = {
        "x-darkroom-job": job.id,
        "x-darkroom-provider": route.provider,
        "x-darkroom-model": _executed(finished),
        "x-darkroom-cost": f"{finished.cost / MICROS:.6f}",
        "x-darkroom-attempts": str(len(finished.attempts)),
    }
    if route.degraded:
        found["x-darkroom-degraded"] = "true"
    return found


def metadata(asked: Asked, finished: Finished, notes: Sequence[str]) -> dict[str, Any]:
    """What was done, by whom, for how much, and every loss on the way."""
    found: dict[str, Any] = {
        "model": asked.model.id,
        "executed_model": _executed(finished),
        "provider": finished.candidate.route.provider,
        "cost": finished.cost / MICROS,
        "cost_currency": "USD",
        "attempts": describe_attempts(finished.attempts),
        "warnings": [*finished.notes, *notes],
    }
    if finished.partial:
        found["partial"] = True
    return found


def describe_attempts(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Attempts as JSON; the cost in US dollars."""
    return [{**asdict(attempt), "cost": attempt.cost / MICROS} for attempt in attempts]


def count(asked: Asked, finished: Finished, delivered: Sequence[Delivered]) -> None:
    """Tell the metrics what was delivered."""
    route = finished.candidate.route
    for item in delivered:
        metrics.IMAGES.labels(asked.model.id, route.provider, item.image.format).inc()
        metrics.BYTES_OUT.inc(len(item.image.data))
    if route.degraded:
        metrics.DEGRADED.labels(asked.model.id).inc()


def _executed(finished: Finished) -> str:
    route = finished.candidate.route
    return route.model or route.name


def _traits(image: Image) -> dict[str, str]:
    traits = {
        "size": f"{image.width}x{image.height}",
        "background": "transparent" if image.header.alpha else "opaque",
    }
    return {**traits, "output_format": image.format} if image.format in _OPENAI_FORMATS else traits


def _item(head: Mapping[str, Any], item: Delivered) -> list[bytes]:
    """An object with the picture in it: the base64 is spliced in, for it needs no escaping."""
    fields = {**head, "url": item.url} if item.url is not None else dict(head)
    opening = _open(fields)
    if item.base64 is None:
        return [opening, b"}"]
    return [opening, b',"b64_json":"' if fields else b'"b64_json":"', item.base64, b'"}']


def _open(fields: Mapping[str, Any]) -> bytes:
    """A JSON object without its closing brace."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
