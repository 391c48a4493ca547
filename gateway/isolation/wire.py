"""What is said between the gateway and a decoder: a length, a JSON head, and a picture's bytes. Nothing else is read.

The decoder may be in a stranger's hands, so that nothing it says is taken on trust: no pickles, no lengths without a
bound, and a picture's header is read again from its bytes.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from normalization.values import Header, Resize, Size, Step, Transcode

_LENGTHS = struct.Struct(">II")
_MAX_HEAD_BYTES = 64 << 10
_PIECE_BYTES = 1 << 20


class Broken(Exception):
    """The other side has ended, or says what it must not."""


def write(link: socket.socket, head: dict[str, Any], data: bytes) -> None:
    """Send one message. Raises OSError (TimeoutError where the socket has a timeout)."""
    text = json.dumps(head).encode()
    link.sendall(_LENGTHS.pack(len(text), len(data)) + text)
    link.sendall(data)


def read(link: socket.socket, most: int) -> tuple[dict[str, Any], bytes]:
    """Take one message of at most `most` bytes. Raises Broken, and OSError."""
    head_size, size = _LENGTHS.unpack(_exactly(link, _LENGTHS.size))
    if head_size > _MAX_HEAD_BYTES or size > most:
        raise Broken(f"a message of {head_size} and {size} bytes")
    try:
        head = json.loads(_exactly(link, head_size))
    except (ValueError, RecursionError) as error:
        raise Broken("a head that is no JSON") from error
    if not isinstance(head, dict):
        raise Broken("a head that is no object")
    return head, _exactly(link, size)


def _exactly(link: socket.socket, size: int) -> bytes:
    found = bytearray(size)
    view, at = memoryview(found), 0
    while at < size:
        got = link.recv_into(view[at : at + _PIECE_BYTES])
        if not got:
            raise Broken("the link has ended")
        at += got
    return bytes(found)


def from_header(header: Header) -> dict[str, Any]:
    """A header as JSON."""
    return asdict(header)


def to_header(values: dict[str, Any]) -> Header:
    """The header again: JSON makes a list of a pair."""
    density = values["density"]
    return Header(**{**values, "density": None if density is None else (density[0], density[1])})


def from_steps(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Finishing steps as JSON."""
    return [{"step": type(step).__name__, **asdict(step)} for step in steps]


def to_steps(values: Sequence[dict[str, Any]]) -> list[Step]:
    """The steps again."""
    found: list[Step] = []
    for value in values:
        named = {name: inner for name, inner in value.items() if name != "step"}
        if value["step"] == "Resize":
            found.append(Resize(**{**named, "size": Size(**named["size"])}))
        else:
            found.append(Transcode(**named))
    return found
