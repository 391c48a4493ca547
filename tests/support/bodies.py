"""Bodies as clients write them, and the form that is read from them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pybase64
import pytest

from gateway.http.errors import ApiError
from gateway.http.form import FilePart, Form, FormLimits, read_form

# Its base64 has both of the letters that dialects differ in, and padding.
PNG = b"\x89PNG\r\n\x1a\n\x00\xfb\xef\xbe\xff\xff\xff\r\n--not-the-boundary\r\n"
BASE64 = pybase64.b64encode(PNG)
DATA_URL = b"data:image/png;base64," + BASE64
MULTIPART = "multipart/form-data; boundary=frontier"
LIMITS = FormLimits(max_body_bytes=20_000, max_file_bytes=1_000, max_text_bytes=500, max_files=3, max_parts=7)
IMAGE = FilePart(name="image", data=PNG)


def part(name: str, value: bytes, filename: str | None = None, *headers: str) -> bytes:
    """One part as most clients write it, with more headers after its disposition."""
    named = "" if filename is None else f'; filename="{filename}"'
    lines = [f'Content-Disposition: form-data; name="{name}"{named}', *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + value


def multipart(*parts: bytes) -> bytes:
    """A whole body."""
    return b"".join(b"--frontier\r\n" + one + b"\r\n" for one in parts) + b"--frontier--\r\n"


def read(
    body: bytes,
    content_type: str = MULTIPART,
    *,
    limits: FormLimits = LIMITS,
    chunk: int = 1 << 16,
    length: int | None = None,
) -> Form:
    """The form of a body that comes in chunks of this many bytes."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), chunk):
            yield body[start : start + chunk]

    return asyncio.run(read_form(content_type, length, chunks(), limits))


def read_json(document: object) -> Form:
    """The form of a JSON document."""
    return read(json.dumps(document).encode(), "application/json")


def refused(
    body: bytes, content_type: str = MULTIPART, limits: FormLimits = LIMITS, length: int | None = None
) -> ApiError:
    """The error for a body, seen to be an answer that stands alone."""
    with pytest.raises(ApiError) as caught:
        read(body, content_type, limits=limits, length=length)
    assert caught.value.message.endswith(".")
    return caught.value


def named(name: str, filename: str | None = None, data: bytes = PNG) -> FilePart:
    """A file as it is to come out."""
    return FilePart(name=name, filename=filename, data=data)
