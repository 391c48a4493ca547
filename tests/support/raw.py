"""A client that says what it likes, and when: bytes over a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

BOUNDARY = "frontier"
# Long enough that a server that hangs is told from one that is slow.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """One answer. `closed` says that the server ended the connection behind it."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def error(self) -> dict[str, Any]:
        """What the envelope holds."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        assert set(found) >= {"message", "type", "param", "code"}
        return found


class Line:
    """A connection to the gateway."""

    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self._came = b""

    def say(self, text: str | bytes) -> None:
        """Send."""
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def receive(self) -> RawAnswer:
        """The next whole answer; one without a length is not understood here."""
        while b"\r\n\r\n" not in self._came:
            assert self._more(), f"the connection ended after {self._came!r}"
        head, _, self._came = self._came.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        size = 0 if status == 100 else int(headers["content-length"])
        while len(self._came) < size:
            assert self._more(), "the connection ended within an answer"
        body, self._came = self._came[:size], self._came[size:]
        return RawAnswer(status=status, headers=headers, body=body)

    def ended(self) -> bool:
        """Whether the server ends the connection and says nothing more; waits for it."""
        try:
            return not self._came and not self._more()
        except ConnectionResetError:
            return True

    def _more(self) -> bool:
        piece = self.socket.recv(1 << 16)
        self._came += piece
        return bool(piece)


@contextmanager
def line(root: str) -> Iterator[Line]:
    """A new connection."""
    parts = urlsplit(root)
    assert parts.hostname
    assert parts.port
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_S) as made:
        yield Line(made)


def head(root: str, length: int | None, *lines: str) -> str:
    """The head of an edit; a body without a length comes in chunks."""
    sized = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    kind = f"content-type: multipart/form-data; boundary={BOUNDARY}"
    first = "POST /openai/v1/images/edits HTTP/1.1"
    return "\r\n".join((first, f"host: {urlsplit(root).netloc}", kind, sized, *lines, "", ""))


def form(picture: bytes, **fields: str) -> bytes:
    """The body of an edit."""
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    opening = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="image"; filename="in.png"\r\n\r\n'.encode()
    return b"".join((*parts, opening, picture, f"\r\n--{BOUNDARY}--\r\n".encode()))
