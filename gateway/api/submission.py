"""From an edit request to a job: idempotency, route selection, what the ledger stores; and the dry run.

`?dry_run=true` returns what would be tried, at which price, with which payload; nothing is sent or spent.
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

from gateway.api import problems
from gateway.api.parameters import EditRequest
from gateway.api.results import ResponseOptions
from gateway.api.schemas import CandidateJson, DryRunJson
from gateway.auth.keys import ApiKey
from gateway.http.errors import ApiError, invalid
from gateway.http.form import Form
from gateway.http.headers import parse_flag
from gateway.ledger.records import JobSpec, Mode
from gateway.routing.pricing import MICROS
from gateway.routing.selection import Candidate, Choice, Excluded, choose
from gateway.settings import GatewaySettings
from gateway.state import State
from normalization.images.encode import MAX_SIDE
from normalization.parameters.coerce import InvalidValue
from normalization.values import Image, JoinAlpha, Plan, Resize, Size, Step, Transcode, Value
from providers.http.ids import token_hex

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_COUNT = re.compile(r"[0-9]{1,4}")
# Hashing this much takes half a millisecond; for more, a change of thread is cheap.
_INLINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """What a request says about being a repetition. `fingerprint` is equal for requests that ask for the same."""

    fingerprint: str
    idempotency_key: str | None
    retry: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EditCall:
    """What a parsed request decides for all that follows, computed once. It holds no image.

    `origin` is the scheme, host and port that the client used, `deadline_s` how long it waits for the job at most,
    `arrived_at` when its first byte came (seconds since the epoch).
    """

    api_key: ApiKey
    idempotency: Idempotency
    mode: Mode
    options: ResponseOptions
    origin: str
    deadline_s: float
    request_id: str | None
    arrived_at: float


async def read_call(request: Request, edit: EditRequest, form: Form, settings: GatewaySettings) -> EditCall:
    """Read the headers, and hash the form. Raises ApiError 400 for an invalid key, and for a stream in background."""
    api_key = grant_of(request)
    return EditCall(
        api_key=api_key,
        idempotency=await _read_idempotency(request, form, api_key),
        mode=_mode(request, edit),
        options=ResponseOptions.of(edit),
        origin=origin_of(request),
        deadline_s=edit.model.deadline_s or settings.deadline_s,
        request_id=request.scope.get("darkroom.request_id"),
        arrived_at=request.scope["darkroom.arrived_at"],
    )


async def _read_idempotency(request: Request, form: Form, api_key: ApiKey) -> Idempotency:
    headers = request.headers
    key = headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        message = "Invalid 'Idempotency-Key': expected 1 to 255 visible ASCII characters without spaces."
        raise ApiError(400, message, code="invalid_idempotency_key")
    count = headers.get("x-stainless-retry-count", "")
    size = sum(len(file.data) for file in form.files)
    more = [api_key.id, headers.get("x-darkroom-routing", "")]
    inline = size <= _INLINE_BYTES
    return Idempotency(
        fingerprint=fingerprint(form, more) if inline else await asyncio.to_thread(fingerprint, form, more),
        idempotency_key=key,
        retry=int(count) if _COUNT.fullmatch(count) else 0,
    )


def fingerprint(form: Form, more: Sequence[str]) -> str:
    """SHA-256 over the parsed fields, sorted by name, and over each file: the body itself differs each time.

    An image that was given by URL counts as that URL, before and after it is fetched: a repeated request has to find
    its job even if the URL has different content by now, or none. Two requests are only treated as one if the client
    says so, with a key or as a retry. `more` is what distinguishes requests beside their forms.
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
    """The API key of a request; the operator's if the server has no keys."""
    found: ApiKey = request.scope["darkroom.grant"]
    return found


def caller_of(request: Request) -> str:
    """The id of a request's API key; "" if the server has no keys."""
    return grant_of(request).id


def prefers_async(request: Request) -> bool:
    """Whether `Prefer: respond-async` is among the preferences of a request (RFC 7240)."""
    wishes = ",".join(request.headers.getlist("prefer")).split(",")
    return any(
        re.split("[;=]", preferences, maxsplit=1)[0].strip().lower() == "respond-async" for preferences in wishes
    )


def _mode(request: Request, edit: EditRequest) -> Mode:
    """How the client waits: for the answer, for a stream's events, or not at all."""
    if edit.background or prefers_async(request):
        if edit.stream:
            message = "A background job cannot be streamed: use either 'stream' or 'background', not both."
            raise ApiError(400, message, param="stream", code="parameter_conflict")
        return "background"
    return "stream" if edit.stream else "plain"


def job_spec(call: EditCall, edit: EditRequest, candidates: Sequence[Candidate], *, keep: bool = True) -> JobSpec:
    """A job's specification. Without candidates it only serves to find the job that the request repeats.

    `keep` says whether the ledger may store the parameters.
    """
    now = time.time()
    plan = candidates[0].plan if candidates else None
    return JobSpec(
        id=f"img_{token_hex(12)}",
        key=call.api_key.id,
        idempotency_key=call.idempotency.idempotency_key,
        fingerprint=call.idempotency.fingerprint,
        request_id=call.request_id,
        model=edit.model.id,
        mode=call.mode,
        params=kept(edit) if keep else {},
        delivery={**call.options.to_json(), "name": edit.name},
        wanted=len(plan.calls) * plan.pictures_per_call if plan else 0,
        estimate=candidates[0].cost.micros if candidates else 0,
        reserve=candidates[0].cost.most if candidates else 0,
        created_at=now,
        deadline_at=now + call.deadline_s,
        arrived_at=min(now, call.arrived_at),
        retry=call.idempotency.retry,
        webhook_url=edit.webhook_url,
        webhook_events=edit.webhook_events,
        quota=call.api_key.quota,
    )


def origin_of(request: Request) -> str:
    """The scheme, host and port that this client used; only its own answer uses them."""
    return f"{request.url.scheme}://{request.url.netloc}"


def select_routes(edit: EditRequest, state: State, api_key: ApiKey) -> Choice:
    """The routes that can serve a request, in the order in which they are tried. Raises ApiError 400 and 403."""
    try:
        choice = choose(
            edit.model,
            edit.request,
            state.conditions(edit.model),
            preferences=edit.preferences,
            strategy=state.config.gateway.strategy,
            tell=state.config.gateway.undeclared != "pass",
        )
    except InvalidValue as error:
        raise ApiError(400, error.message, param=error.param, code=error.code) from None
    return _allowed(choice, api_key)


def _allowed(choice: Choice, api_key: ApiKey) -> Choice:
    """Without the routes to providers that the API key may not use. Raises ApiError 403 if it may use none of them."""
    kept = [candidate for candidate in choice.candidates if api_key.allows_provider(candidate.route.provider)]
    if choice.candidates and not kept:
        names = ", ".join(sorted(api_key.providers or ()))
        message = f"No route of this model leads to a provider that this API key may use: {names}."
        raise ApiError(403, message, param="model", code="provider_not_allowed")
    return Choice(candidates=kept, excluded=choice.excluded)


def within_limits(edit: EditRequest, choice: Choice, settings: GatewaySettings) -> Choice:
    """Without the routes whose results would be too large: one with coarse scale steps does not rule out the others."""
    param = _sizing(edit)
    large = [
        Excluded(route=candidate.route, reason=f"would produce {size}, which is above the limit of pixels", param=param)
        for candidate in choice.candidates
        if (size := _too_large(candidate, settings)) is not None
    ]
    fitting = [candidate for candidate in choice.candidates if _too_large(candidate, settings) is None]
    return Choice(candidates=fitting, excluded=[*choice.excluded, *large])


def _unsendable(choice: Choice) -> bool:
    """Whether a route was excluded because it cannot take the input image."""
    return any(one.param == "image" for one in choice.excluded)


def _too_large(candidate: Candidate, settings: GatewaySettings) -> Size | None:
    """The size of a candidate's result that is above the limits; None if it is within them."""
    most, plan = settings.max_output_pixels, candidate.plan
    most_a_side = _most_a_side(plan, settings)
    # With fit the requested size is a bound: the result may be as wide, or as high.
    wanted = [(step.size, most_a_side) for step in plan.finish if isinstance(step, Resize)]
    sides = ((plan.output or plan.likely, settings.max_side), (plan.delivered, most_a_side), *wanted)
    return next(
        (size for size, side in sides if size and (size.pixels > most or max(size.width, size.height) > side)), None
    )


def _most_a_side(plan: Plan, settings: GatewaySettings) -> int:
    """The longest side of a delivered image: some formats allow less than the limit."""
    formats = [step.format for step in plan.finish if isinstance(step, Transcode)]
    return min([settings.max_side, *(MAX_SIDE[name] for name in formats[-1:] if name in MAX_SIDE)])


def nothing_fits(edit: EditRequest, choice: Choice, fitting: Choice, settings: GatewaySettings) -> ApiError:
    """The error for a request that no route can serve: because of the request, the routes' state, or a limit."""
    if not choice.candidates or _unsendable(fitting):
        return problems.no_route(edit.model, fitting)
    return _output_too_large(edit, choice.candidates, settings)


def _output_too_large(edit: EditRequest, candidates: Sequence[Candidate], settings: GatewaySettings) -> ApiError:
    found = [(size, one.plan) for one in candidates if (size := _too_large(one, settings)) is not None]
    size, plan = min(found, key=lambda pair: pair[0].pixels)
    limit = f"{settings.max_output_pixels / 1e6:g} megapixels and {_most_a_side(plan, settings)} pixels a side"
    message = f"The image would be {size} ({size.megapixels:.1f} megapixels); the limit is {limit}."
    return ApiError(400, message, param=_sizing(edit), code="output_too_large")


def _sizing(edit: EditRequest) -> str:
    """The parameter that sizes the image in this request."""
    scaled_by = edit.model.scaled_by
    return scaled_by if scaled_by is not None and scaled_by in edit.request.params else "size"


# The longest parameter text that is stored, and the limit of all of them together, in characters of JSON.
_TEXT, _WHOLE = 32_000, 262_144
# An image in an undeclared field: a data URL, or base64 without a break.
_PICTURE = re.compile(
    r"data:(image/[^,\s]{0,100}|[^,\s]{0,100};base64),.*|[a-z0-9+/_=-]{1024,}", re.DOTALL | re.IGNORECASE
)
# These are the client's own addresses, and are stored where they are used.
_PRIVATE = frozenset({"webhook_url", "webhook_events"})


def kept(edit: EditRequest) -> dict[str, Any]:
    """The parameters as JSON, without images and bounded in size."""
    request = edit.request
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
    """A value without image data: images and overlong texts are replaced by their size."""
    if isinstance(value, Image):
        return {"format": value.format, "width": value.width, "height": value.height, "bytes": len(value.data)}
    if isinstance(value, str) and (len(value) > _TEXT or _PICTURE.fullmatch(value)):
        return {"left_out": len(value)}
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


DRY_RUN = ("dry_run", "dryRun")
"""The query parameter in its spellings."""


def is_dry_run(query: Mapping[str, str]) -> bool:
    """Whether the query asks for a dry run, in either spelling. Raises ApiError 400 for neither true nor false."""
    found = False
    for name in DRY_RUN:
        if (text := query.get(name)) is not None:
            try:
                found |= parse_flag(text)
            except ValueError as reason:
                raise invalid(name, f"Invalid '{name}': {reason}.") from None
    return found


def answer(edit: EditRequest, choice: Choice) -> Response:
    """The candidates in their order, and why the other routes were excluded."""
    body: DryRunJson = {
        "dry_run": True,
        "model": edit.model.id,
        "candidates": [_candidate(candidate) for candidate in choice.candidates],
        "excluded": [
            {"provider": e.route.provider, "route": e.route.name, "reason": e.reason, "param": e.param}
            for e in choice.excluded
        ],
    }
    return JSONResponse(body)


def _candidate(candidate: Candidate) -> CandidateJson:
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
    """A payload's value; an image as its size and hash."""
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
