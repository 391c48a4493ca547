"""A decoder: takes pictures from its standard input, a socket, one after the other, until that ends."""

from __future__ import annotations

import socket
import sys
from typing import Any

from gateway.imaging import protocol
from gateway.imaging.sandbox import confine
from normalization.images import prepare, transform
from normalization.images.decode import load_codecs
from normalization.images.sniff import BadImage
from normalization.values import Image


def main() -> None:
    """Work until the gateway closes the link. The arguments are the gateway's process id, and the bounds."""
    parent, memory_bytes, cpu_s, most = (int(text) for text in sys.argv[1:5])
    link = socket.socket(fileno=0)
    # All that is ever loaded is loaded now, while there are files to be opened.
    load_codecs()
    confine(parent=parent, memory_bytes=memory_bytes, cpu_s=cpu_s)
    while True:
        try:
            head, data = protocol.read(link, most)
        except (protocol.Broken, ConnectionError):
            return
        try:
            answer, made = _done(head, data)
        except BadImage as error:
            answer, made = {"code": error.code, "message": error.message, "advice": error.advice}, b""
        except MemoryError:
            answer, made = {"starved": True}, b""
        protocol.write(link, answer, made)
        if "starved" in answer:
            return
        del data, made


def _done(head: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """The answer to one message: `same` where the picture stays as it is. Raises BadImage and MemoryError."""
    header = protocol.to_header(head["header"])
    notes: tuple[str, ...] = ()
    channel, black = b"", False
    if head["do"] == "prepare":
        image = transform.prepare(Image(data=data, header=header), head["most"])
    elif head["do"] == "send":
        ready = prepare.ready(Image(data=data, header=header), protocol.to_sending(head["sending"]), head["most"])
        image, channel, black, notes = ready.image, ready.alpha or b"", ready.black, ready.notes
    else:
        steps, data = protocol.to_steps(head["steps"], data)
        image, notes = transform.finish(data, header, steps, head["most"])
    same = image.data is data
    answer = {"same": same, "notes": notes, "alpha": image.header.alpha, "channel": len(channel), "black": black}
    return answer, channel if same else image.data + channel if channel else image.data
