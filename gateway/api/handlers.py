"""Errors as answers: one envelope on every path."""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.http.errors import ApiError, envelope
from normalization.parameters.nesting import excerpt


async def on_crash(request: Request, error: Exception) -> Response:
    """The last resort. The framework's own answer would be text."""
    return respond(internal())


def internal() -> ApiError:
    """An error of ours, of which the caller is told no more than where the operator finds it."""
    return ApiError(500, "The server had an error. The log has it under this request's id.", type="server_error")


def respond(error: ApiError) -> Response:
    """The answer for an error."""
    body = json.dumps(envelope(error), ensure_ascii=False).encode()
    return Response(body, error.status, dict(error.headers), "application/json")


async def on_api_error(request: Request, error: Exception) -> Response:
    """Our own errors."""
    assert isinstance(error, ApiError)
    return respond(error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's: 404 and 405."""
    assert isinstance(error, HTTPException)
    method, path = excerpt(request.method, 16), excerpt(request.scope["path"], 120)
    if error.status_code == 404:
        message = f"Unknown request URL: {method} {path}. The main one is POST /openai/v1/images/edits."
        return respond(ApiError(404, message, code="unknown_url"))
    if error.status_code == 405:
        allowed = ", ".join(sorted(Headers(error.headers).get("allow", "").split(", ")))
        message = f"{method} is not allowed on {path}: use {allowed}."
        return respond(ApiError(405, message, code="method_not_allowed", headers={"allow": allowed}))
    phrase = HTTPStatus(error.status_code).phrase
    return respond(ApiError(error.status_code, f"{phrase}.", headers=dict(error.headers or {})))
