"""From a finished job to the answer: images by URL or as base64, as OpenAI's ImagesResponse or as events."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.parameters import EditRequest
from gateway.api.schemas import AttemptJson, MetadataJson
from gateway.jobs.errors import JobRef, JobResult
from gateway.ledger.records import Attempt
from gateway.routing.pricing import MICROS
from gateway.settings import GatewaySettings, ResponseFormat
from gateway.state import State
from gateway.storage import FileStorage, StorageError
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from gateway.webhooks.signing import SigningKeys
from normalization.values import Image, fields_of
from providers.http.bodies import BodyPart, encode_chunks, encoded_length

# The formats of OpenAI's own enum: typed clients fail on another word, so the key is left out for avif.
_OPENAI_FORMATS = frozenset({"png", "jpeg", "webp", "gif"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """One image as it is delivered: by URL, `inside` the answer as base64, or both.

    `seed` reproduces it; None if the route has no seed.
    """

    image: Image
    url: str | None
    inside: bool
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseOptions:
    """How a client wants its images. `explicit` says that it asked for this form."""

    response_format: ResponseFormat
    explicit: bool = False
    stream: bool = False
    require_all: bool = False

    @classmethod
    def of(cls, edit: EditRequest) -> ResponseOptions:
        """The options of a request."""
        return cls(
            response_format=edit.response_format,
            explicit="response_format" in edit.request.params,
            stream=edit.stream,
            require_all=bool(edit.request.params.get("require_all")),
        )

    @classmethod
    def of_job(cls, kept: Mapping[str, Any]) -> ResponseOptions:
        """The options for a job that is read by its id: with images inside only if that was asked for."""
        explicit = bool(kept["explicit"])
        return cls(
            response_format=kept["response_format"] if explicit else "url",
            explicit=explicit,
            require_all=bool(kept["require_all"]),
        )

    def to_json(self) -> dict[str, Any]:
        """As the ledger stores it."""
        return fields_of(self)

    @property
    def has_bytes(self) -> bool:
        """Whether the answer contains the images, and not only their URLs."""
        return self.stream or self.response_format != "url"

    @property
    def wants_url(self) -> bool:
        """A stream's events carry base64, as OpenAI's do, and a URL only if one was asked for."""
        form = self.response_format
        return form == "url" or (form == "both" and (not self.stream or self.explicit))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileUrls:
    """Builds the URLs of files for one client, below `origin` or in the bucket itself."""

    files: FileStorage
    secrets: SigningKeys
    settings: GatewaySettings
    origin: str

    @classmethod
    def of(cls, state: State, origin: str) -> FileUrls:
        """For a client that uses this origin."""
        return cls(files=state.files, secrets=state.secrets, settings=state.config.gateway, origin=origin)

    async def to(self, name: str | None) -> str | None:
        """A file's URL until it expires; None if there is no such file, or it cannot be signed."""
        if name is None:
            return None
        if not (self.settings.files_signed or self.settings.files_presigned):
            return f"{self.origin}/files/{name}"
        try:
            expires = await self.files.expires(name)
            if expires is None:
                return None
            if self.settings.files_presigned:
                return await self.files.presigned(name, expires)
        except StorageError as error:
            event("files.sign_failed", logging.ERROR, error=str(error))
            return None
        # Rounded up to a whole second: the file itself still expires on time.
        until = math.ceil(expires.timestamp())
        return f"{self.origin}/files/{name}?expires={until}&signature={self.secrets.file(name, until)}"


async def deliver(
    delivery: ResponseOptions, finished: JobResult, links: FileUrls
) -> tuple[list[ImageResult], list[str]]:
    """The images in the requested form, with notes on what could not be delivered."""
    delivered: list[ImageResult] = []
    notes: list[str] = []
    for image in finished.images:
        url = await links.to(image.file) if delivery.wants_url else None
        if delivery.wants_url and url is None:
            notes = ["The image could not be stored, so it has no URL; it is delivered as base64 only."]
        as_base64 = delivery.stream or url is None or delivery.response_format != "url"
        delivered.append(ImageResult(image=image.image, url=url, inside=as_base64, seed=image.seed))
    return delivered, notes


Closed = Callable[[bool], None]
"""Called once an answer has been sent, with whether all of it was."""


class StreamingJSON(Response):
    """A JSON answer sent piece by piece, with images encoded as they are sent, so that there is no second copy."""

    def __init__(
        self, pieces: Sequence[BodyPart], headers: Mapping[str, str], closed: Closed, *, status: int = 200
    ) -> None:
        super().__init__(status_code=status, headers=dict(headers), media_type="application/json")
        self._pieces = pieces
        self._closed = closed
        self.headers["content-length"] = str(encoded_length(pieces))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, and report whether all of it was sent."""
        delivered = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            *before, last = self._pieces
            for chunk in encode_chunks(before):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            # What happens after the last piece cannot be distinguished from a client that hangs up.
            self._closed(True)
            delivered = True
            await send({"type": "http.response.body", "body": last})
        finally:
            if not delivered:
                self._closed(False)


def answer(
    job_ref: JobRef, finished: JobResult, delivered: Sequence[ImageResult], notes: Sequence[str], closed: Closed
) -> StreamingJSON:
    """The whole answer to a request that waits for its images."""
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
    """The answer's headers: which provider served it, and what it cost."""
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
    """The headers of a job that may not have ended."""
    found = {"x-darkroom-job": job_ref.id}
    if job_ref.joined:
        found["idempotent-replayed"] = "true"
    return found


def metadata(job_ref: JobRef, finished: JobResult, notes: Sequence[str]) -> MetadataJson:
    """What was done, by which provider, at what cost, and every loss on the way."""
    found: MetadataJson = {
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
        missing = (
            f"Only {len(finished.images)} of {finished.wanted} images were generated; see attempts for the others."
        )
        found["warnings"].append(missing)
    return found


def describe_attempts(attempts: Sequence[Attempt]) -> list[AttemptJson]:
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
    """Count what was delivered in the metrics."""
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
    """An object with the image in it: the base64 is spliced in, as it needs no escaping."""
    beside = {"url": item.url, "seed": item.seed}
    fields = {**head, **{name: value for name, value in beside.items() if value is not None}}
    opening = _open(fields)
    if not item.inside:
        return [opening, b"}"]
    return [opening, b',"b64_json":"' if fields else b'"b64_json":"', item.image, b'"}']


def _open(fields: Mapping[str, Any]) -> bytes:
    """A JSON object without its closing brace."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
