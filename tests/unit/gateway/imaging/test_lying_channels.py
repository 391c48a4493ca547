"""A decoder that lies about an alpha channel: whoever joins it to a result would make room for it."""

from __future__ import annotations

import json
import struct

import pytest
from PIL import Image

from gateway.imaging.processes import DecoderProcesses, ProcessLimits
from normalization.values import Sending
from tests.support.pictures import encoded, refusal, taken

pytestmark = pytest.mark.system

OWN = taken(encoded(Image.new("RGBA", (20, 15), (1, 2, 3, 90)), "png"))


def saying(channel: bytes) -> DecoderProcesses:
    """Decoders that always give this channel."""
    head = json.dumps({"same": True, "notes": [], "alpha": True, "channel": len(channel), "black": False}).encode()
    said = struct.pack(">II", len(head), len(channel)) + head + channel
    program = f"import socket; link = socket.socket(fileno=0); link.recv(9); link.sendall({said!r}); link.recv(1 << 20)"
    return DecoderProcesses(ProcessLimits(), program=program)


@pytest.mark.parametrize(
    "channel",
    [
        encoded(Image.new("L", (2000, 15)), "png"),
        encoded(Image.new("L", (20, 15)), "gif"),
        b"no picture",
    ],
    ids=["size", "format", "nothing"],
)
def test_no_channel_of_this_picture(channel: bytes) -> None:
    """It is refused before anything is bought."""
    decoders = saying(channel)
    try:
        refusal(lambda: decoders.ready(OWN, Sending(split=True)))
    finally:
        decoders.close()


def test_a_channel_of_this_picture() -> None:
    """It is taken."""
    decoders, channel = saying(encoded(Image.new("L", (20, 15)), "png")), encoded(Image.new("L", (20, 15)), "png")
    try:
        assert decoders.ready(OWN, Sending(split=True)).alpha == channel
    finally:
        decoders.close()
