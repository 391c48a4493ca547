"""`GET /files/{name}`: result files, streamed and in ranges; and file ids as the input of another edit."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api import problems
from gateway.api.client import disconnected
from gateway.api.paths import described, failures, success
from gateway.file_names import parsed
from gateway.http import errors
from gateway.http.admission import ServerOverloaded
from gateway.http.auth import GuardedRouter, Permission
from gateway.http.errors import ApiError, too_large
from gateway.http.form import FilePart, Form
from gateway.http.image_fields import ImageUrl
from gateway.state import State
from gateway.storage import FileDamaged, OpenFile, StorageError
from gateway.telemetry.logs import event
from normalization.values import MEDIA_TYPES

_TIME = re.compile(r"[0-9]{1,12}")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
# What a file takes of memory while it is handed out: a few pieces, here and in the connection.
_IN_HAND_BYTES = 1 << 20
# Whoever has a file's address may fetch it; all of them together are one of those who share the room.
_NOBODY = ""


router = GuardedRouter()
_BINARY = {"type": "string", "format": "binary"}
_IMAGE = success("The image.", content=dict.fromkeys(MEDIA_TYPES.values(), _BINARY))
_SIGNED = [
    described("expires", "query", "With `files_signed`: when the address expires.", type="integer", minimum=0),
    described("signature", "query", "With `files_signed`: the signature of the address.", type="string"),
]


@router.serve(
    "GET",
    "/files/{name}",
    Permission.PUBLIC,
    any_query=True,
    operation_id="readFile",
    summary="Download a result image. Its address is a secret, and expires.",
    responses={200: _IMAGE, 206: _IMAGE, **failures(403, 404, 416)},
    openapi_extra={"parameters": _SIGNED},
)
async def read_file(request: Request, name: Annotated[str, Path(description="The file's name.")]) -> Response:
    """A result image; 404 once it has expired. With the setting `files_signed` only by a signed URL."""
    state: State = request.app.state.darkroom
    if state.config.gateway.files_signed:
        check_signature(state, name, request.query_params)
    try:
        found = await state.files.open(name)
        if found is None:
            raise not_found()
        headers = _headers(found)
        start, end = _wanted(request, found, headers["etag"])
        if request.method == "HEAD":
            return _StreamedFile(None, headers, found, start, end, lambda: None)
        let_go = state.load.answer(min(end - start, _IN_HAND_BYTES), _NOBODY)
        try:
            pieces = found.pieces(start, end)
            # What is wrong with a file is told as long as nothing of it has gone out.
            first = await anext(pieces, b"")
        except BaseException:
            let_go()
            raise
        return _StreamedFile(_with_first(first, pieces), headers, found, start, end, let_go)
    except (StorageError, FileDamaged) as error:
        raise problems.told(error) from error
    except ServerOverloaded as error:
        raise errors.overloaded(error.limit) from None


class _StreamedFile(Response):
    """A file or a part of it, sent as it is read. If reading fails, the connection is closed."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None] | None,
        headers: Mapping[str, str],
        file: OpenFile,
        start: int,
        end: int,
        closed: Callable[[], None],
    ) -> None:
        part = (start, end) != (0, file.size)
        super().__init__(status_code=206 if part else 200, headers=dict(headers), media_type=file.what.media_type)
        self.headers["content-length"] = str(end - start)
        if part:
            self.headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
        self._pieces = pieces
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, until the client disconnects."""
        leaving = asyncio.create_task(disconnected(Request(scope, receive)))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if self._pieces is not None:
                async with aclosing(self._pieces) as pieces:
                    async for piece in pieces:
                        if leaving.done():
                            return
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except (StorageError, FileDamaged) as error:
            # Less comes than was announced: the server ends the connection, and no client takes that for the file.
            event("files.cut_off", logging.ERROR, error=type(error).__name__)
        finally:
            leaving.cancel()
            self._closed()


async def _with_first(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest) as pieces:
        if first:
            yield first
        async for piece in pieces:
            yield piece


def _headers(file: OpenFile) -> dict[str, str]:
    left = max(0, int((file.expires - datetime.now(UTC)).total_seconds()))
    # A name always stands for the same image.
    tag = file.what.digest.hex() if file.what.digest is not None else f"{file.size:x}"
    return {
        "content-disposition": f'inline; filename="{file.name}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "cache-control": f"private, max-age={left}, immutable",
        "accept-ranges": "bytes",
        "etag": f'"{tag}"',
    }


def _wanted(request: Request, file: OpenFile, tag: str) -> tuple[int, int]:
    """The requested range of a file (RFC 9110, 14.2). Raises ApiError 416 if it begins beyond the file's end."""
    whole = 0, file.size
    text = request.headers.get("range")
    # Several ranges at once, or another unit: the whole is a good answer to each.
    match = _RANGE.fullmatch(text) if text is not None and request.method == "GET" else None
    if match is None or not any(match.groups()) or request.headers.get("if-range", tag) != tag:
        return whole
    if not match[1]:
        start, end = max(0, file.size - int(match[2])), file.size
    else:
        start, end = int(match[1]), min(file.size, int(match[2]) + 1) if match[2] else file.size
        if match[2] and int(match[2]) < start:
            return whole  # no range at all
    if start >= end:
        message = f"The file has {file.size} bytes: the range {text} is beyond its end."
        headers = {"content-range": f"bytes */{file.size}"}
        raise ApiError(416, message, code="range_not_satisfiable", headers=headers)
    return start, end


def check_signature(state: State, name: str, query: Mapping[str, str]) -> None:
    """Raises ApiError: 403 for a URL without our signature, 404 for one that has expired."""
    expires = query.get("expires", "")
    known = _TIME.fullmatch(expires) is not None
    if not known or not state.secrets.is_file(name, int(expires), query.get("signature", "")):
        message = "The URL is not signed, or was changed: use it as it was returned, with all of its parameters."
        raise ApiError(403, message, code="invalid_file_signature")
    if int(expires) <= time.time():
        raise not_found()


def not_found() -> ApiError:
    """The 404 for a file that does not exist or has expired."""
    message = "File not found. Results are stored for a limited time: download them soon after the request."
    return ApiError(404, message, code="file_not_found")


def known(form: Form, origins: Iterable[str]) -> Form:
    """The form, with the URLs of our own files marked as such; `origins` are ours."""
    roots = tuple(f"{origin}/files/" for origin in origins)

    def one(file: FilePart) -> FilePart:
        address = file.address
        root = next((root for root in roots if address is not None and address.url.startswith(root)), None)
        if address is None or root is None:
            return file
        name, _, query = address.url.removeprefix(root).partition("?")
        return file if parsed(name) is None else replace(file, address=replace(address, held=name, query=query))

    return replace(form, files=tuple(map(one, form.files)))


async def taken(state: State, form: Form, room: Callable[[int], object] = lambda _: None) -> Form:
    """The form with the images in it that are files of this server.

    A client may use the files that it could download, and no others. `room` is called with each file's size in bytes
    before it is read, and raises if there is no memory for it. Raises ApiError: 404 for a file that does not exist or
    has expired, 403 for a missing signature, 413 over a limit, 503 while the store is unavailable.
    """
    left = state.config.gateway.max_body_bytes - sum(len(file.data) for file in form.files)
    files = list(form.files)
    for at, file in enumerate(files):
        if file.address is not None and file.address.held is not None:
            files[at] = replace(file, data=await _read(state, file.address, file.address.held, left, room))
            left -= len(files[at].data)
    return replace(form, files=tuple(files))


async def _read(state: State, address: ImageUrl, name: str, left: int, room: Callable[[int], object]) -> bytes:
    """A file's bytes, at most `left` of them."""
    settings = state.config.gateway
    try:
        if settings.files_signed:
            check_signature(state, name, dict(parse_qsl(address.query)))
        found = await state.files.open(name)
        if found is None:
            raise not_found()
        if found.size > settings.max_upload_bytes:
            message = (
                f"The file '{address.param}' is too large: at most {settings.max_upload_bytes} bytes are accepted."
            )
            raise too_large(message, code="file_too_large")
        if found.size > left:
            most = settings.max_body_bytes
            raise too_large(f"The images of this request are too large together: at most {most} bytes are accepted.")
        room(found.size)
        if (file := await state.files.get(name)) is None:  # its time was over meanwhile
            raise not_found()
    except (StorageError, FileDamaged) as error:
        raise problems.told(error) from error
    except ApiError as error:
        error.param = address.param
        raise
    return file.data
