"""From finished pictures to the answer: OpenAI's ImagesResponse, or a stream of its events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.jobs.errors import JobRef, JobResult
from gateway.ledger.records import Attempt
from gateway.routing.pricing import MICROS
from gateway.telemetry import metrics
from normalization.values import Image
from providers.http.bodies import BodyPart, encode_chunks, encoded_length

# The formats of OpenAI's own enum: typed clients fail on another word, so the key is left out for avif.
_OPENAI_FORMATS = frozenset({"png", "jpeg", "webp", "gif"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """One picture as it is handed out: by address, `inside` of the answer as base64, or both.

    With `seed`, sent again, the provider is given the same; None where the route has none.
    """

    image: Image
    url: str | None
    inside: bool
    seed: int | None = None


Closed = Callable[[bool], None]
"""Called once an answer has gone out, or not: with whether all of it has."""


class StreamingJSON(Response):
    """A JSON answer sent piece by piece, its pictures encoded as they are sent, so that there is no second copy."""

    def __init__(
        self, pieces: Sequence[BodyPart], headers: Mapping[str, str], closed: Closed, *, status: int = 200
    ) -> None:
        super().__init__(status_code=status, headers=dict(headers), media_type="application/json")
        self._pieces = pieces
        self._closed = closed
        self.headers["content-length"] = str(encoded_length(pieces))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, and say whether all of it went out."""
        delivered = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            *before, last = self._pieces
            for chunk in encode_chunks(before):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            # What comes after the last piece cannot be told from a caller who hangs up.
            self._closed(True)
            delivered = True
            await send({"type": "http.response.body", "body": last})
        finally:
            if not delivered:
                self._closed(False)


def answer(
    job_ref: JobRef, finished: JobResult, delivered: Sequence[ImageResult], notes: Sequence[str], closed: Closed
) -> StreamingJSON:
    """The whole answer to a plain call."""
    return StreamingJSON(images_response(job_ref, finished, delivered, notes), headers(job_ref, finished), closed)


def images_response(
    job_ref: JobRef, finished: JobResult, delivered: Sequence[ImageResult], notes: Sequence[str]
) -> list[BodyPart]:
    """OpenAI's ImagesResponse, in pieces."""
    pieces: list[BodyPart] = [_open({"id": job_ref.id, "created": int(job_ref.created)}), b',"data":[']
    for number, item in enumerate(delivered):
        pieces.append(b"," if number else b"")
        pieces += _item({}, item)
    tail = {**_traits(delivered[0].image), "metadata": metadata(job_ref, finished, notes)}
    return [*pieces, b"],", _open(tail)[1:], b"}"]


def completed(job_ref: JobRef, finished: JobResult, item: ImageResult, notes: Sequence[str]) -> list[BodyPart]:
    """One `image_edit.completed` event, in pieces."""
    head = {
        "type": "image_edit.completed",
        "id": job_ref.id,
        "created_at": int(job_ref.created),
        **_traits(item.image),
        # No tokens are counted here; typed clients require the key in this event.
        "usage": {
            "total_tokens": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
        },
        "metadata": metadata(job_ref, finished, notes),
    }
    return [b"event: image_edit.completed\ndata: ", *_item(head, item), b"\n\n"]


def headers(job_ref: JobRef, finished: JobResult) -> dict[str, str]:
    """What the answer's headers say of who served it and what it cost."""
    served = finished.served
    found = {
        **job_headers(job_ref),
        "x-darkroom-provider": served.provider,
        "x-darkroom-model": served.model,
        "x-darkroom-cost": f"{finished.cost / MICROS:.6f}",
        "x-darkroom-attempts": str(len(finished.attempts)),
    }
    if served.degraded:
        found["x-darkroom-degraded"] = "true"
    return found


def job_headers(job_ref: JobRef) -> dict[str, str]:
    """What is known of a job before its end."""
    found = {"x-darkroom-job": job_ref.id}
    if job_ref.joined:
        found["idempotent-replayed"] = "true"
    return found


def metadata(job_ref: JobRef, finished: JobResult, notes: Sequence[str]) -> dict[str, Any]:
    """What was done, by whom, for how much, and every loss on the way."""
    found: dict[str, Any] = {
        "model": job_ref.model,
        "executed_model": finished.served.model,
        "provider": finished.served.provider,
        "cost": finished.cost / MICROS,
        "cost_currency": "USD",
        "attempts": describe_attempts(finished.attempts),
        "warnings": [*finished.notes, *notes],
    }
    if finished.partial:
        found["partial"] = True
        missing = f"Only {len(finished.images)} of {finished.wanted} pictures could be made; attempts has the others."
        found["warnings"].append(missing)
    return found


def describe_attempts(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Attempts as JSON; the cost in US dollars."""
    return [
        {
            "provider": attempt.provider,
            "model": attempt.model,
            "picture": attempt.image,
            "outcome": attempt.outcome,
            "seconds": attempt.seconds,
            "cost": attempt.cost / MICROS,
            "actual": attempt.actual,
            "message": attempt.message,
        }
        for attempt in attempts
    ]


def count(job_ref: JobRef, finished: JobResult, delivered: Sequence[ImageResult]) -> None:
    """Tell the metrics what was delivered."""
    for item in delivered:
        metrics.IMAGES.labels(job_ref.model, finished.served.provider, item.image.format).inc()
        metrics.BYTES_OUT.inc(len(item.image.data))
    if finished.served.degraded:
        metrics.DEGRADED.labels(job_ref.model).inc()


def _traits(image: Image) -> dict[str, str]:
    traits = {
        "size": f"{image.width}x{image.height}",
        "background": "transparent" if image.header.alpha else "opaque",
    }
    return {**traits, "output_format": image.format} if image.format in _OPENAI_FORMATS else traits


def _item(head: Mapping[str, Any], item: ImageResult) -> list[BodyPart]:
    """An object with the picture in it: the base64 is spliced in, for it needs no escaping."""
    beside = {"url": item.url, "seed": item.seed}
    fields = {**head, **{name: value for name, value in beside.items() if value is not None}}
    opening = _open(fields)
    if not item.inside:
        return [opening, b"}"]
    return [opening, b',"b64_json":"' if fields else b'"b64_json":"', item.image, b'"}']


def _open(fields: Mapping[str, Any]) -> bytes:
    """A JSON object without its closing brace."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
