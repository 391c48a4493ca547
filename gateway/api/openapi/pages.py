"""`/openapi.json`, and `/docs`: a page of our own that shows it, without scripts or styles from another address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.openapi.document import document
from gateway.api.paths import success
from gateway.http.auth import GuardedRouter, Permission
from gateway.settings.loader import Config

_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
}
_DOCUMENT = {"application/json": {"type": "object", "additionalProperties": True}}


def pages(config: Config, version: str, served: Sequence[GuardedRouter]) -> GuardedRouter:
    """Serves the document of `served`, which is built with the first request for it, and the page that shows it.

    The page is the same for everybody, and so is public; it asks for an API key if the document needs one.
    """
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
        # Building it takes a tenth of a second, which the event loop has no time for.
        return Response(await asyncio.to_thread(body), media_type="application/json")

    for path, name in (("/docs", "index.html"), ("/docs/page.css", "page.css"), ("/docs/page.js", "page.js")):
        router.serve("GET", path, Permission.PUBLIC, any_query=True, include_in_schema=False)(_asset(name))
    return router


def _asset(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Answers with a file of the page."""
    content = resources.files(__package__).joinpath("page", name).read_bytes()
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]

    async def read_asset(request: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=media_type)

    return read_asset
