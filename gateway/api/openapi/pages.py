"""`/openapi.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.openapi.document import document
from gateway.api.paths import success
from gateway.http.auth import GuardedRouter, Permission
from gateway.settings.loader import Config

_DOCUMENT = {"application/json": {"type": "object", "additionalProperties": True}}


def pages(config: Config, version: str, served: Sequence[GuardedRouter]) -> GuardedRouter:
    """Serves the document of `served`, which is built with the first request for it."""
    router = GuardedRouter()

    @cache
    def body() -> bytes:
        return json.dumps(document(config, version, [*served, router]), ensure_ascii=False).encode()

    @router.serve(
        "GET",
        "/openapi.json",
        Permission.KEY,
        operation_id="readDocument",
        summary="This document.",
        responses={200: success("The document.", content=_DOCUMENT)},
    )
    async def read_document(request: Request) -> Response:
        return Response(body(), media_type="application/json")

    return router
