"""What an entry of the corpus is, and how a request is written down to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.simulators.common import tiny

EDITS = "/openai/v1/images/edits"
PORT = b":00000"
"""Stands for the canary's port in a message; as long as a port of the ephemeral range, so that lengths stay true."""

Body = bytes | Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One hostile request and the only right answer.

    `message` makes the whole request, head and body; it is made when it is sent, and never kept. `status` and `code`
    are those of the answer, two codes where both are equally right,
    none where any will do. `says` has to stand in its message.
    """

    name: str
    message: Callable[[], bytes]
    status: int
    code: frozenset[str | None] | None
    says: str = ""


def hostile(name: str, message: Callable[[], bytes], status: int, *code: str | None, says: str = "") -> Hostile:
    """An entry in one line."""
    return Hostile(name=name, message=message, status=status, code=frozenset(code), says=says)


def request(
    method: str,
    path: str,
    body: bytes = b"",
    *headers: str,
    content_type: str | None = None,
    length: bool = True,
) -> bytes:
    """A whole request as clients write it; without `length` the headers have to say how the body ends."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if length and (body or method not in ("GET", "HEAD")):
        lines.append(f"Content-Length: {len(body)}")
    head = "".join(f"{line}\r\n" for line in (*lines, *headers)).encode("latin-1")
    return head + b"\r\n" + body


def part(name: str, value: bytes, filename: str | None = None, *headers: str) -> bytes:
    """One part of a form."""
    named = "" if filename is None else f'; filename="{filename}"'
    lines = [f'Content-Disposition: form-data; name="{name}"{named}', *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + value


def multipart(*parts: bytes) -> bytes:
    """The body of a form whose boundary is `frontier`."""
    return b"".join(b"--frontier\r\n" + one + b"\r\n" for one in parts) + b"--frontier--\r\n"


FORM = "multipart/form-data; boundary=frontier"


def form(*parts: bytes, picture: bytes | None = None) -> bytes:
    """An edit that would be served, were it not for these parts. `picture` is sent in place of a good one."""
    whole = multipart(
        part("model", b"clarity-upscaler"),
        part("image", tiny() if picture is None else picture, "in.png", "Content-Type: image/png"),
        *parts,
    )
    return request("POST", EDITS, whole, content_type=FORM)


def fields(**values: str | bytes) -> bytes:
    """An edit that would be served, were it not for these fields."""
    return form(*(part(name, text.encode() if isinstance(text, str) else text) for name, text in values.items()))


def joined(parts: Iterable[bytes]) -> bytes:
    """The parts of a form as an edit without any others."""
    return request("POST", EDITS, multipart(*parts), content_type=FORM)
