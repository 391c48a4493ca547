"""Errors as responses, in OpenAI's envelope."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, NotRequired

from fastapi.exceptions import RequestValidationError
from pydantic import Field, with_config
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from normalization.parameters.nesting import excerpt


@with_config(extra="forbid")
class ErrorDetailJson(TypedDict):
    """What went wrong. The SDKs need all keys but `metadata`."""

    message: Annotated[str, Field(description="A complete sentence: what was wrong, and what would work.")]
    type: Annotated[str, Field(description="OpenAI's word for the kind of error.")]
    param: Annotated[str | None, Field(description="The field that is at fault.")]
    code: Annotated[str | None, Field(description="Machine-readable error code.")]
    metadata: NotRequired[Annotated[dict[str, Any], Field(description="What was tried, and what succeeded.")]]


@with_config(extra="forbid")
class ErrorJson(TypedDict):
    """OpenAI's envelope."""

    error: ErrorDetailJson


class ApiError(Exception):
    """An answer that is an error.

    `message` is a complete sentence, because many clients show nothing else. `type` and `code` are OpenAI's words
    if it has some; `param` is the name of the field that is at fault. `headers` are sent with the answer,
    `metadata` beside OpenAI's four keys.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - the envelope's own word
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers: Mapping[str, str] = dict(headers or {})
        self.metadata: Mapping[str, object] = {}


def envelope(error: ApiError) -> ErrorJson:
    """The JSON body of the answer."""
    inner: ErrorDetailJson = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    if error.metadata:
        inner["metadata"] = dict(error.metadata)
    return {"error": inner}


def invalid(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    """An invalid value (400)."""
    return ApiError(400, message, param=param, code=code)


def too_large(message: str, *, param: str | None = None, code: str = "request_too_large") -> ApiError:
    """More bytes than are accepted (413)."""
    return ApiError(413, message, param=param, code=code)


async def on_crash(request: Request, error: Exception) -> Response:
    """The last resort. The framework's own answer would be text."""
    return respond(internal())


def internal() -> ApiError:
    """An error of the server itself: the client only learns where the operator finds it."""
    return ApiError(
        500, "Internal server error. The server's log has the details under this request's id.", type="server_error"
    )


def respond(error: ApiError) -> Response:
    """The answer for an error."""
    body = json.dumps(envelope(error), ensure_ascii=False).encode()
    return Response(body, error.status, dict(error.headers), "application/json")


async def on_api_error(request: Request, error: Exception) -> Response:
    """Our own errors."""
    assert isinstance(error, ApiError)
    return respond(error)


async def on_validation_error(request: Request, error: Exception) -> Response:
    """A parameter that FastAPI could not read. Its parsers raise ValueError with what was expected."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    reason = first.get("ctx", {}).get("error", first["msg"])
    return respond(invalid(name, f"Invalid '{excerpt(name, 80)}': {reason}."))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's: 404 and 405."""
    assert isinstance(error, HTTPException)
    method, path = excerpt(request.method, 16), excerpt(request.scope["path"], 120)
    if error.status_code == 404:
        message = f"Unknown request URL: {method} {path}. Images are edited with POST /openai/v1/images/edits."
        return respond(ApiError(404, message, code="unknown_url"))
    if error.status_code == 405:
        allowed = ", ".join(sorted(Headers(error.headers).get("allow", "").split(", ")))
        message = f"{method} is not allowed on {path}: use {allowed}."
        return respond(ApiError(405, message, code="method_not_allowed", headers={"allow": allowed}))
    phrase = HTTPStatus(error.status_code).phrase
    return respond(ApiError(error.status_code, f"{phrase}.", headers=dict(error.headers or {})))


_DEFAULT_RETRY_AFTER_S = 5.0


def overloaded(limit: str, *, kept: bool = False) -> ApiError:
    """The server is at capacity. `limit` is what is full, or reserved for other keys (`kept`)."""
    if kept:
        message = (
            f"This API key uses its share of the server's capacity ({limit}); the rest is reserved for other keys. "
            "No work was started; retry in a few seconds."
        )
        return _retryable(429, message, "rate_limit_exceeded", _DEFAULT_RETRY_AFTER_S)
    message = f"The server is at capacity ({limit}). No work was started; retry in a few seconds."
    return _retryable(503, message, "overloaded", _DEFAULT_RETRY_AFTER_S)


def unreadable() -> ApiError:
    """The ledger cannot be read at the moment (503)."""
    message = "The ledger cannot be read at the moment. Running jobs are not affected: try again later."
    return _retryable(503, message, "ledger_unavailable", _DEFAULT_RETRY_AFTER_S)


def too_many(limit: str, after_s: float, headers: Mapping[str, str] | None = None) -> ApiError:
    """An API key's limit is reached (429)."""
    found = _retryable(429, f"This API key is limited to {limit}: try again later.", "rate_limit_exceeded", after_s)
    found.headers = {**found.headers, **(headers or {})}
    return found


def _retryable(status: int, message: str, code: str, after_s: float) -> ApiError:
    kind = "rate_limit_error" if status == 429 else "server_error"
    return ApiError(status, message, type=kind, code=code, headers={"retry-after": str(max(1, math.ceil(after_s)))})
