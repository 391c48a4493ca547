"""`/hooks/…`: webhooks from providers; and the secret that clients verify our own webhooks with.

A provider's webhook is a hint: the job itself is always read from the provider. Webhooks may be lost, late, repeated
or out of order.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Path
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gateway.api import problems
from gateway.api.edits import announced
from gateway.api.paths import PREFIXES, failures, success
from gateway.api.schemas import HeardJson, WebhookSecretJson
from gateway.api.submission import caller_of
from gateway.http.auth import GuardedRouter, Permission
from gateway.http.body import FormLimits, feed
from gateway.http.errors import ApiError
from gateway.state import State
from gateway.telemetry import metrics

_LIMITS = FormLimits(max_body_bytes=1 << 20)
_BODY_S = 10.0


router = GuardedRouter(*PREFIXES)
hooks = GuardedRouter()


@hooks.serve(
    "POST",
    "/hooks/{provider}/{attempt}/{mac}",
    Permission.PUBLIC,
    any_query=True,
    operation_id="hearProvider",
    summary="A provider reports on a job. The address is a secret that only this provider knows.",
    responses={200: success("Received, whatever comes of it.", HeardJson), **failures(401, 404, 413)},
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {}}}},
)
async def parse_webhook(
    request: Request,
    name: Annotated[str, Path(alias="provider", description="The provider that calls.")],
    attempt: Annotated[str, Path(description="The attempt's id.")],
    mac: Annotated[str, Path(description="The code that keeps the address secret.")],
) -> Response:
    """A provider's webhook about an attempt. The answer does not depend on what it leads to."""
    state: State = request.app.state.darkroom
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
    heard_of: HeardJson = {"ok": True}
    return JSONResponse(heard_of)


@router.serve(
    "GET",
    "/webhooks/secret",
    Permission.KEY,
    operation_id="readWebhookSecret",
    summary="What webhooks to this client's addresses are signed with.",
    responses={200: success("The secret.", WebhookSecretJson)},
)
async def read_secret(request: Request) -> Response:
    """The secret that webhooks to this client's addresses are signed with."""
    state: State = request.app.state.darkroom
    secret: WebhookSecretJson = {"key": state.secrets.of_caller(caller_of(request))}
    return JSONResponse(secret, headers={"cache-control": "no-store"})


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
