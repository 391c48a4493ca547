"""The protocol between the gateway and a decoder: lengths, a JSON head, and an image's bytes.

A decoder may be compromised, so nothing it sends is trusted: no pickles, no unbounded lengths, and an image's header is
read again from its bytes.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from normalization.images.serialize import header_from, step_from, step_to
from normalization.values import Header, JoinAlpha, Sending, Step

_LENGTHS = struct.Struct(">II")
_MAX_HEAD_BYTES = 64 << 10
_PIECE_BYTES = 1 << 20


class ProtocolError(Exception):
    """The other side has ended, or violates the protocol."""


def write(link: socket.socket, head: dict[str, Any], data: bytes) -> None:
    """Send one message. Raises OSError (TimeoutError where the socket has a timeout)."""
    text = json.dumps(head).encode()
    link.sendall(_LENGTHS.pack(len(text), len(data)) + text)
    link.sendall(data)


def read(link: socket.socket, most: int) -> tuple[dict[str, Any], bytes]:
    """Receive one message of at most `most` bytes. Raises ProtocolError and OSError."""
    head_size, size = _LENGTHS.unpack(_exactly(link, _LENGTHS.size))
    if head_size > _MAX_HEAD_BYTES or size > most:
        raise ProtocolError(f"a message of {head_size} and {size} bytes")
    try:
        head = json.loads(_exactly(link, head_size))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a head that is not JSON") from error
    if not isinstance(head, dict):
        raise ProtocolError("a head that is not an object")
    return head, _exactly(link, size)


def _exactly(link: socket.socket, size: int) -> bytes:
    found = bytearray(size)
    view, at = memoryview(found), 0
    while at < size:
        got = link.recv_into(view[at : at + _PIECE_BYTES])
        if not got:
            raise ProtocolError("the connection has ended")
        at += got
    return bytes(found)


def from_header(header: Header) -> dict[str, Any]:
    """A header as JSON."""
    return asdict(header)


def to_header(values: dict[str, Any]) -> Header:
    """A header from JSON."""
    return header_from(values)


def from_steps(steps: Sequence[Step]) -> tuple[list[dict[str, Any]], bytes]:
    """Finishing steps as JSON, and their alpha channels, which are sent after the image; the JSON has their lengths."""
    alphas = [step.alpha if isinstance(step, JoinAlpha) else None for step in steps]
    sizes = [None if alpha is None else len(alpha) for alpha in alphas]
    values = [step_to(step, size) for step, size in zip(steps, sizes, strict=True)]
    return values, b"".join(alpha for alpha in alphas if alpha is not None)


def to_steps(values: Sequence[dict[str, Any]], data: bytes) -> tuple[list[Step], bytes]:
    """The steps from JSON, and the image's data without the alpha channels after it.

    Raises ProtocolError for an unknown step.
    """
    found: list[Step] = []
    at = len(data) - sum(value.get("alpha") or 0 for value in values)
    image = data if at == len(data) else data[:at]
    for value in values:
        size = value.get("alpha")
        step = step_from(value, None if size is None else data[at : at + size])
        if step is None:
            raise ProtocolError("an unknown step")
        at += size or 0
        found.append(step)
    return found, image


def from_sending(sending: Sending) -> dict[str, Any]:
    """Preparation settings as JSON."""
    return asdict(sending)


def to_sending(value: dict[str, Any]) -> Sending:
    """Preparation settings from JSON."""
    return Sending(**{**value, "formats": tuple(value["formats"])})
