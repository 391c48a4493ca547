"""A job as its caller sees it: what it is, how far it is, and its result in the form that was asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from gateway.api import problems, results
from gateway.api.delivery import Delivery, Links, deliver, incomplete
from gateway.api.submission import origin_of
from gateway.http.errors import ApiError, envelope
from gateway.jobs.errors import Placed, ResultGone
from gateway.ledger.records import Attempt, JobRow
from gateway.routing.pricing import MICROS
from gateway.state import State
from gateway.storage import Damaged
from providers.http.pieces import Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where this caller finds things: `files` are below `origin`, jobs below `jobs`."""

    origin: str
    jobs: str

    @classmethod
    def of(cls, request: Request, state: State) -> Addresses:
        """In the words that the caller itself used, or those of the setting `public_url`."""
        origin = state.config.gateway.public_url or origin_of(request)
        prefix = "/v1" if request.url.path.startswith("/v1/") else "/openai/v1"
        return cls(origin=origin, jobs=f"{origin}{prefix}/images/jobs")

    def job(self, job: str) -> str:
        """A job's own address."""
        return f"{self.jobs}/{job}"


def described(row: JobRow, at: Addresses, error: Mapping[str, object] | None = None) -> dict[str, Any]:
    """A job without its result. `error` is the envelope's inside."""
    order = row.order
    found: dict[str, Any] = {
        "id": order.id,
        "object": "image.job",
        "status": row.state,
        "created_at": int(order.created_at),
        "ended_at": int(row.ended_at) if row.ended and row.ended_at is not None else None,
        "model": order.model,
        "progress": row.progress,
        "cost_estimate": order.estimate / MICROS,
        "cost": row.cost / MICROS if row.ended else None,
        "error": error,
        "urls": {"get": at.job(order.id), "cancel": f"{at.job(order.id)}/cancel"},
    }
    if row.cancel_asked and not row.ended:
        found["cancel_requested"] = True
    return found


def error_in_list(row: JobRow, attempts: Sequence[Attempt]) -> Mapping[str, object] | None:
    """Why a job of a list has no result, as its state says it; whether files are there still is not looked up."""
    if row.state not in ("failed", "cancelled"):
        return None
    return envelope(problems.of(row, attempts))["error"]


@asynccontextmanager
async def room_for(state: State, row: JobRow) -> AsyncIterator[Callable[[], None]]:
    """Count the pictures that a job's answer will have in it. What this gives lets go of them: it is called here where
    the block fails, and else by whoever has sent the answer. Raises Overloaded."""
    inside = row.state == "completed" and Delivery.of_job(row.order.delivery).has_bytes
    let_go = state.load.answer(row.picture_bytes if inside else 0, row.order.key)
    try:
        yield let_go
    except BaseException:
        let_go()
        raise


async def whole(state: State, row: JobRow, at: Addresses) -> list[Piece]:
    """A job as JSON, in pieces, with its result once there is one, or the error that stands in its place.

    Raises LedgerDown, and StoreFailed where its pictures are there and cannot be had at the moment.
    """
    result: list[Piece] = [b"null"]
    error: Mapping[str, object] | None = None
    if row.ended:
        try:
            result = await _result(state, row, at)
        except ApiError as refused:
            error = envelope(refused)["error"]
    head = json.dumps(described(row, at, error), ensure_ascii=False, separators=(",", ":")).encode()
    return [head[:-1], b',"result":', *result, b"}"]


async def _result(state: State, row: JobRow, at: Addresses) -> list[Piece]:
    """OpenAI's ImagesResponse. Raises ApiError where the job gave none, LedgerDown, and StoreFailed."""
    if row.state != "completed":
        raise problems.of(row, [attempt.told() for attempt in await state.jobs.ledger.attempts(row.order.id)])
    placed = Placed(id=row.order.id, created=row.order.created_at, joined=False, model=row.order.model)
    wish = Delivery.of_job(row.order.delivery)
    links = Links.of(state, at.origin)
    try:
        finished = await state.jobs.load(row, None if wish.has_bytes else state.files.look)
        if (missing := await incomplete(wish, finished, links)) is not None:
            raise missing
        delivered, notes = await deliver(wish, finished, links)
        if any(item.inside for item in delivered) and not wish.has_bytes:
            # There is no address to be given: the pictures are needed after all.
            finished = await state.jobs.load(row)
            delivered, notes = await deliver(wish, finished, links)
    except (ResultGone, Damaged) as error:
        raise problems.told(error) from error
    return results.images_response(placed, finished, delivered, notes)
