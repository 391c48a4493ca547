"""`/hooks/…`: providers tell of their jobs; and what callers check our own webhooks with.

What a provider says is a hint and never the truth: the job itself is asked. Nothing here depends on its coming, or on
its coming once, in time or in order.
"""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gateway.api import problems
from gateway.api.edits import announced
from gateway.api.submission import caller_of
from gateway.http.body import FormLimits, feed
from gateway.http.errors import ApiError
from gateway.state import State
from gateway.telemetry import metrics

_LIMITS = FormLimits(max_body_bytes=1 << 20)
_BODY_S = 10.0


async def parse_webhook(request: Request) -> Response:
    """What a provider says of an attempt. Whatever it leads to, the answer is the same."""
    state: State = request.app.state.darkroom
    name, attempt, mac = (request.path_params[part] for part in ("provider", "attempt", "mac"))
    provider = state.providers.get(name)
    if provider is None or not state.secrets.is_path(name, attempt, mac):
        if provider is not None:
            metrics.HEARD.labels(name, "forged").inc()
        raise ApiError(404, "There is no such address.", code="unknown_url")
    heard = await provider.parse_webhook(dict(request.headers), await _body(request))
    if heard is None:
        metrics.HEARD.labels(name, "forged").inc()
        raise ApiError(401, "The signature is not the provider's.", code="invalid_signature")
    try:
        known = await state.jobs.handle_webhook(attempt, heard)
    except problems.UNDONE as error:
        raise problems.told(error) from error  # the provider will say it again
    metrics.HEARD.labels(name, "heard" if known else "unknown").inc()
    return JSONResponse({"ok": True})


async def read_secret(request: Request) -> Response:
    """The secret that the webhooks to this caller's addresses are signed with."""
    state: State = request.app.state.darkroom
    return JSONResponse({"key": state.secrets.of_caller(caller_of(request))}, headers={"cache-control": "no-store"})


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            await feed(request.stream(), announced(request), _LIMITS, body.extend)
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {_BODY_S:g} seconds.", code="request_timeout") from None
    except ClientDisconnect:
        raise ApiError(400, "The connection ended before the body did.", code="truncated_body") from None
    return bytes(body)
