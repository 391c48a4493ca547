"""From a request to the order of a job: whose it is, what it repeats, what the ledger keeps of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from gateway.api.delivery import Delivery
from gateway.api.keeping import kept
from gateway.api.parameters import Asked
from gateway.auth.grant import Grant
from gateway.http.errors import ApiError
from gateway.http.form import Form
from gateway.ledger.records import Mode, Order
from gateway.routing.selection import Candidate
from providers.http.ids import token_hex

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_COUNT = re.compile(r"[0-9]{1,4}")
# Hashing as much takes half a millisecond; for more, a change of thread is cheap.
_INLINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """What a call says of being a repetition. `fingerprint` is alike for calls that ask for the same."""

    fingerprint: str
    idempotency_key: str | None
    retry: int


async def read_repeat(request: Request, form: Form) -> Repeat:
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
    return Repeat(
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


def grant_of(request: Request) -> Grant:
    """What the key of a request may; the operator's grant where the server has no keys."""
    found: Grant = request.scope["darkroom.grant"]
    return found


def caller_of(request: Request) -> str:
    """The id of the API key that a request came with; "" where the server has none."""
    return grant_of(request).id


def prefers_async(request: Request) -> bool:
    """Whether `Prefer: respond-async` is among the preferences of a request (RFC 7240)."""
    wishes = ",".join(request.headers.getlist("prefer")).split(",")
    return any(re.split("[;=]", wish, maxsplit=1)[0].strip().lower() == "respond-async" for wish in wishes)


def mode_of(request: Request, asked: Asked) -> Mode:
    """How the caller waits: for the answer, for a stream's events, or not at all."""
    if asked.background or prefers_async(request):
        if asked.stream:
            message = "A job in the background has no stream: ask for one of 'stream' and 'background', not both."
            raise ApiError(400, message, param="stream", code="parameter_conflict")
        return "background"
    return "stream" if asked.stream else "plain"


def order_of(
    request: Request,
    asked: Asked,
    repeat: Repeat,
    candidates: Sequence[Candidate],
    deadline_s: float,
    *,
    keep: bool = True,
) -> Order:
    """A job's order. Without candidates it is only good for finding the job that the call repeats.

    `keep` says whether the ledger may keep the parameters.
    """
    now = time.time()
    plan = candidates[0].plan if candidates else None
    return Order(
        id=f"img_{token_hex(12)}",
        key=caller_of(request),
        idempotency_key=repeat.idempotency_key,
        fingerprint=repeat.fingerprint,
        request_id=request.scope.get("darkroom.request_id"),
        model=asked.model.id,
        mode=mode_of(request, asked),
        params=kept(asked) if keep else {},
        delivery={**Delivery.of(asked).to_json(), "name": asked.name},
        wanted=len(plan.calls) * plan.pictures_per_call if plan else 0,
        estimate=candidates[0].cost.micros if candidates else 0,
        reserve=candidates[0].cost.most if candidates else 0,
        created_at=now,
        deadline_at=now + deadline_s,
        arrived_at=min(now, request.scope["darkroom.arrived_at"]),
        retry=repeat.retry,
        webhook_url=asked.webhook_url,
        webhook_events=asked.webhook_events,
        allowance=grant_of(request).allowance,
    )


def origin_of(request: Request) -> str:
    """Scheme, host and port that this caller used: its answer alone is addressed with them."""
    return f"{request.url.scheme}://{request.url.netloc}"
