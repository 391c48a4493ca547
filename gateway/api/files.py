"""`GET /files/{name}`: result pictures, for as long as they live."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.errors import ApiError
from gateway.state import State


async def read_file(request: Request) -> Response:
    """A result picture; 404 once it has expired."""
    state: State = request.app.state.darkroom
    name = request.path_params["name"]
    found = await state.files.get(name)
    if found is None:
        message = "There is no such file. Results are kept for a limited time: fetch them soon after the call."
        raise ApiError(404, message, code="file_not_found")
    left = max(0, int((found.expires - datetime.now(UTC)).total_seconds()))
    headers = {
        "content-disposition": f'inline; filename="{name}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "cache-control": f"private, max-age={left}, immutable",
    }
    return Response(found.data, 200, headers, found.media_type)
