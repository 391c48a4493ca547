"""For scripts of other pages, where the operator names these pages."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp
from typing_extensions import override

from gateway.api.handlers import respond
from gateway.http.errors import ApiError

# What a script may read of an answer's headers.
_EXPOSED = (
    *("x-request-id", "retry-after", "x-should-retry", "idempotent-replayed", "location"),
    *(f"x-darkroom-{name}" for name in ("job", "provider", "model", "cost", "attempts", "degraded")),
    *(f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset")),
)


class Cors(CORSMiddleware):
    """Stands outside of access: a preflight has no key, and errors are to be read too."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
            max_age=600,
        )

    @override
    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        message = "Scripts of this page may not make this call: `cors_origins` names the pages that may."
        refusal = respond(ApiError(403, message, code="origin_not_allowed"))
        refusal.headers["vary"] = answer.headers["vary"]
        return refusal
