"""From an edit request to a job: idempotency, whose it is, what the ledger keeps of it; and the dry run.

`?dry_run=true`: what would be tried, at which price, with which payload; nothing is sent and nothing is spent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.delivery import ResponseOptions
from gateway.api.parameters import EditRequest
from gateway.auth.keys import ApiKey
from gateway.http.errors import ApiError
from gateway.http.form import Form
from gateway.ledger.records import JobSpec, Mode
from gateway.routing.pricing import MICROS
from gateway.routing.selection import Candidate, Choice
from normalization.values import Image, JoinAlpha, Resize, Step, Value
from providers.http.ids import token_hex

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_COUNT = re.compile(r"[0-9]{1,4}")
# Hashing as much takes half a millisecond; for more, a change of thread is cheap.
_INLINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """What a call says of being a repetition. `fingerprint` is alike for calls that ask for the same."""

    fingerprint: str
    idempotency_key: str | None
    retry: int


async def read_repeat(request: Request, form: Form) -> Idempotency:
    """Read the headers, and hash what the call asks for. Raises ApiError 400 for a key that is none."""
    headers = request.headers
    key = headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        message = "Invalid 'Idempotency-Key': expected 1 to 255 visible ASCII characters without spaces."
        raise ApiError(400, message, code="invalid_idempotency_key")
    count = headers.get("x-stainless-retry-count", "")
    size = sum(len(file.data) for file in form.files)
    more = [caller_of(request), headers.get("x-darkroom-routing", "")]
    inline = size <= _INLINE_BYTES
    return Idempotency(
        fingerprint=fingerprint(form, more) if inline else await asyncio.to_thread(fingerprint, form, more),
        idempotency_key=key,
        retry=int(count) if _COUNT.fullmatch(count) else 0,
    )


def fingerprint(form: Form, more: Sequence[str]) -> str:
    """SHA-256 over the parsed fields, sorted by name, and over each file: the body itself differs each time.

    A picture that came by address counts as that address, before and after it is fetched: a repeated call has to find
    its job also when there is something else at the address by now, or nothing any more. Two calls are only taken for
    one where the caller says so, with a key or as a retry. `more` is what beside the form makes two calls different.
    """
    fields = sorted(form.fields, key=lambda field: field[0])
    files = [
        [file.name, hashlib.sha256(file.data).hexdigest()]
        if file.address is None
        else [file.name, "address", file.address.url]
        for file in form.files
    ]
    whole = json.dumps([fields, files, list(more)], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()


def grant_of(request: Request) -> ApiKey:
    """What the key of a request may; the operator's grant where the server has no keys."""
    found: ApiKey = request.scope["darkroom.grant"]
    return found


def caller_of(request: Request) -> str:
    """The id of the API key that a request came with; "" where the server has none."""
    return grant_of(request).id


def prefers_async(request: Request) -> bool:
    """Whether `Prefer: respond-async` is among the preferences of a request (RFC 7240)."""
    wishes = ",".join(request.headers.getlist("prefer")).split(",")
    return any(
        re.split("[;=]", preferences, maxsplit=1)[0].strip().lower() == "respond-async" for preferences in wishes
    )


def mode_of(request: Request, asked: EditRequest) -> Mode:
    """How the caller waits: for the answer, for a stream's events, or not at all."""
    if asked.background or prefers_async(request):
        if asked.stream:
            message = "A job in the background has no stream: ask for one of 'stream' and 'background', not both."
            raise ApiError(400, message, param="stream", code="parameter_conflict")
        return "background"
    return "stream" if asked.stream else "plain"


def order_of(
    request: Request,
    asked: EditRequest,
    repeat: Idempotency,
    candidates: Sequence[Candidate],
    deadline_s: float,
    *,
    keep: bool = True,
) -> JobSpec:
    """A job's order. Without candidates it is only good for finding the job that the call repeats.

    `keep` says whether the ledger may keep the parameters.
    """
    now = time.time()
    plan = candidates[0].plan if candidates else None
    return JobSpec(
        id=f"img_{token_hex(12)}",
        key=caller_of(request),
        idempotency_key=repeat.idempotency_key,
        fingerprint=repeat.fingerprint,
        request_id=request.scope.get("darkroom.request_id"),
        model=asked.model.id,
        mode=mode_of(request, asked),
        params=kept(asked) if keep else {},
        delivery={**ResponseOptions.of(asked).to_json(), "name": asked.name},
        wanted=len(plan.calls) * plan.pictures_per_call if plan else 0,
        estimate=candidates[0].cost.micros if candidates else 0,
        reserve=candidates[0].cost.most if candidates else 0,
        created_at=now,
        deadline_at=now + deadline_s,
        arrived_at=min(now, request.scope["darkroom.arrived_at"]),
        retry=repeat.retry,
        webhook_url=asked.webhook_url,
        webhook_events=asked.webhook_events,
        quota=grant_of(request).quota,
    )


def origin_of(request: Request) -> str:
    """Scheme, host and port that this caller used: its answer alone is addressed with them."""
    return f"{request.url.scheme}://{request.url.netloc}"


# The longest text of a parameter that is kept, and the most of all of them together, in characters of JSON.
_TEXT, _WHOLE = 32_000, 262_144
# A picture in a field that nobody declared: a data URL, or base64 without a break.
_PICTURE = re.compile(
    r"data:(image/[^,\s]{0,100}|[^,\s]{0,100};base64),.*|[a-z0-9+/_=-]{1024,}", re.DOTALL | re.IGNORECASE
)
# These are addresses of the caller's own, and are kept where they are used.
_PRIVATE = frozenset({"webhook_url", "webhook_events"})


def kept(asked: EditRequest) -> dict[str, Any]:
    """The parameters as JSON, without pictures and bounded in size."""
    request = asked.request
    found: dict[str, Any] = {
        "params": {name: plain(value) for name, value in request.params.items() if name not in _PRIVATE},
        "images": [plain(image) for image in request.images],
        "seed": request.seed,
    }
    if request.extra:
        found["extra"] = plain(request.extra)
    if request.provider_options:
        found["provider_options"] = plain(request.provider_options)
    size = len(json.dumps(found))
    return found if size <= _WHOLE else {"left_out": size, "images": found["images"], "seed": found["seed"]}


def plain(value: Any) -> Any:
    """A value without the bytes of pictures: those, and texts that go on and on, are only measured."""
    if isinstance(value, Image):
        return {"format": value.format, "width": value.width, "height": value.height, "bytes": len(value.data)}
    if isinstance(value, str) and (len(value) > _TEXT or _PICTURE.fullmatch(value)):
        return {"left_out": len(value)}
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def answer(asked: EditRequest, choice: Choice) -> Response:
    """The candidates in their order, and why the others are out."""
    body = {
        "dry_run": True,
        "model": asked.model.id,
        "candidates": [_candidate(candidate) for candidate in choice.candidates],
        "excluded": [
            {"provider": e.route.provider, "route": e.route.name, "reason": e.reason, "param": e.param}
            for e in choice.excluded
        ],
    }
    return JSONResponse(body)


def _candidate(candidate: Candidate) -> dict[str, Any]:
    route, plan = candidate.route, candidate.plan
    return {
        "provider": route.provider,
        "route": route.name,
        "model": route.model or None,
        "cost": candidate.cost.usd,
        "cost_at_most": candidate.cost.most / MICROS,
        "cost_currency": "USD",
        "components": {name: micros / MICROS for name, micros in candidate.cost.components.items()},
        "healthy": candidate.healthy,
        "degraded": route.degraded is not None,
        "calls": len(plan.calls),
        "payload": {key: _shown(value) for key, value in plan.calls[0].items()},
        "output": str(plan.output) if plan.output else None,
        "delivered": str(plan.delivered) if plan.delivered else None,
        "finish": [_step(step) for step in plan.finish],
        "warnings": list(plan.notes),
    }


def _shown(value: Value) -> Any:
    """A payload's value; a picture as its size and hash."""
    if isinstance(value, Image):
        image = {"format": value.format, "width": value.width, "height": value.height, "bytes": len(value.data)}
        return {"picture": {**image, "sha256": value.digest()} if value.data else image}
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return value


def _step(step: Step) -> dict[str, Any]:
    if isinstance(step, Resize):
        return {"step": "resize", "size": str(step.size), "mode": step.mode, "background": step.background}
    if isinstance(step, JoinAlpha):
        return {"step": "join_alpha"}
    return {"step": "transcode", **asdict(step)}
