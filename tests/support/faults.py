"""The kinds of bad weather: what may become of a submit, of a question about a job, of a download."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace

from tests.simulators.common import Fault, html, tiny
from tests.support.world import CANARY


def says(status: int, body: object, **headers: str) -> Fault:
    """An answer in the provider's place."""
    return Fault(status=status, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def redirect(location: str) -> Fault:
    """An answer that leads elsewhere."""
    return Fault(status=307, headers={"location": location})


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 30000 x 30000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# Answers to a submit that say nothing of whether the work was taken. Here it was not ...
NOT_TAKEN: Mapping[str, Fault] = {
    "500 in HTML": html(500),
    "502 from a proxy": html(502),
    "504": html(504),
    "hang before headers": Fault(kind="hang"),
    "connection cut": Fault(kind="cut"),
    "malformed JSON": says(200, b'{"id": '),
    "empty answer": says(200, b""),
    "JSON of the wrong type": says(200, [1, 2]),
    "200 with an error object": says(200, {"error": {"message": "no"}}),
    "endless answer": Fault(kind="endless"),
    "redirect": redirect(f"http://{CANARY}/steal"),
}
# ... and here it was, ...
TAKEN: Mapping[str, Fault] = {
    "502 from a proxy, taken": replace(html(502), after=True),
    "504, taken": replace(html(504), after=True),
    "hang before headers, taken": Fault(kind="hang", after=True),
    "connection cut, taken": Fault(kind="cut", after=True),
    "JSON of the wrong type, taken": replace(says(200, [1]), after=True),
}
# ... and here it was, and a part of the answer came.
TORN: Mapping[str, Fault] = {
    "hang mid-body": Fault(kind="drip", seconds=30),
    "slow drip": Fault(kind="drip", seconds=0.05),
    "truncated body": Fault(kind="truncate"),
    "connection cut mid-body": Fault(kind="cut_within"),
}
REFUSED: Mapping[str, tuple[Fault, str]] = {
    "500": (says(500, {"detail": "Broken"}), "failed"),
    "503": (says(503, {"detail": "Busy"}), "failed"),
    "404": (says(404, {"detail": "No such model"}), "failed"),
    "401": (says(401, {"detail": "invalid key"}), "unusable"),
    "402": (says(402, {"detail": "pay first"}), "unusable"),
    "403": (says(403, {"detail": "not allowed"}), "unusable"),
    "422": (says(422, {"detail": "seed is odd"}), "rejected"),
    "429 with seconds": (says(429, {"detail": "slow down"}, retry_after="7"), "throttled"),
    "429 with nothing": (says(429, {"detail": "slow down"}), "throttled"),
}
# What may become of a question about a job, which is then asked again.
ASKED: Mapping[str, Fault] = {
    "500": says(500, {"detail": "Broken"}),
    "502 from a proxy": html(502),
    "503": html(503),
    "504": html(504),
    "404 once": says(404, {"detail": "Not found"}),
    "401 once": says(401, {"detail": "invalid key"}),
    "429 with seconds": says(429, {"detail": "slow down"}, retry_after="1"),
    "hang before headers": Fault(kind="hang"),
    "hang mid-body": Fault(kind="drip", seconds=30),
    "slow drip": Fault(kind="drip", seconds=0.05),
    "truncated body": Fault(kind="truncate"),
    "connection cut": Fault(kind="cut"),
    "connection cut mid-body": Fault(kind="cut_within"),
    "malformed JSON": says(200, b'{"status": '),
    "empty answer": says(200, b""),
    "JSON of the wrong type": says(200, [1, 2]),
    "200 with an error object": says(200, {"error": {"message": "no"}}),
    "endless answer": Fault(kind="endless"),
    "redirect to a private address": redirect(f"http://{CANARY}/steal"),
}
SHORT_ASKED = ("502 from a proxy", "hang before headers", "truncated body", "malformed JSON", "empty answer", "503")
# A download that goes wrong once.
FETCHED: Mapping[str, Fault] = {
    "500 once": says(500, b"x"),
    "502 once": html(502),
    "503 once": html(503),
    "504 once": html(504),
    "404 once": says(404, b""),
    "expired address once": says(403, b"expired"),
    "cut mid-body once": Fault(kind="cut_within"),
    "empty once": says(200, b""),
}
# What is delivered and is no picture, or must not be fetched.
SPOILT: Mapping[str, Fault] = {
    "picture truncated": Fault(kind="truncate"),
    "wrong format": says(200, b"BM" + bytes(200)),
    "SVG": says(200, b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "a web page": html(200),
    "bomb": says(200, bomb()),
    "a single pixel": says(200, tiny(1, 1)),
    "endless": Fault(kind="endless"),
    "expired for good": says(403, b"expired"),
    "redirect to the loopback": redirect(f"http://{CANARY}/steal"),
    "redirect to a private network": redirect("https://10.0.0.1/x"),
    "redirect to a metadata service": redirect("http://169.254.169.254/latest"),
    "redirect to another scheme": redirect("file:///etc/passwd"),
    "redirect loop": redirect("?again"),
}
# What is delivered and is a whole picture, though not of the size that was asked for: it is paid for, and is delivered.
WHOLE: Mapping[str, Fault] = {
    "another size": says(200, tiny(72, 48)),
    "another shape": says(200, tiny(7, 5)),
}
# Of what is no picture, what says nothing of it: it is asked for again and again.
WITHHELD = frozenset({"expired for good"})
SHORT_SPOILT = ("picture truncated", "SVG", "redirect to the loopback", "bomb")
