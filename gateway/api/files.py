"""`GET /files/{name}`: result pictures, for as long as they live."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import failures
from gateway.api.errors import ApiError
from gateway.jobs.files import StoreFailed
from gateway.state import State

_TIME = re.compile(r"[0-9]{1,12}")


async def read_file(request: Request) -> Response:
    """A result picture; 404 once it has expired. With the setting `files_signed` only by an address that is signed."""
    state: State = request.app.state.darkroom
    name = request.path_params["name"]
    if state.config.gateway.files_signed:
        _check(state, name, request.query_params)
    try:
        found = await state.files.get(name)
    except StoreFailed as error:
        raise failures.told(error) from error
    if found is None:
        raise _not_found()
    left = max(0, int((found.expires - datetime.now(UTC)).total_seconds()))
    headers = {
        "content-disposition": f'inline; filename="{name}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "cache-control": f"private, max-age={left}, immutable",
    }
    return Response(found.data, 200, headers, found.media_type)


def _check(state: State, name: str, query: Mapping[str, str]) -> None:
    """Raises ApiError: 403 for an address that is not signed by us, 404 for one whose time is over."""
    expires = query.get("expires", "")
    known = _TIME.fullmatch(expires) is not None
    if not known or not state.secrets.is_file(name, int(expires), query.get("signature", "")):
        message = "The address is not signed, or was changed: use it as it was given, with all of its parameters."
        raise ApiError(403, message, code="invalid_file_signature")
    if int(expires) <= time.time():
        raise _not_found()


def _not_found() -> ApiError:
    message = "There is no such file. Results are kept for a limited time: fetch them soon after the call."
    return ApiError(404, message, code="file_not_found")
