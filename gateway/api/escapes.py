"""Percent signs and spaces in a text that stands for a picture: undone without holding the event loop for long."""

from __future__ import annotations

import binascii
import re

from gateway.http.body import SLICE_BYTES
from providers.http.gather import Gathered

_BROKEN = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# So many bytes of an escape may stand at the end of a slice before it goes on in the next one.
_ESCAPE_BEGUN = 2
# Base64 takes so many characters for three bytes.
_GROUP = 4
# The widest indentation of a line.
_WIDEST_GAP = 64


def percent_decoded(text: bytes | memoryview) -> bytes | None:
    """The bytes that a percent-encoded text stands for (RFC 3986, 2.1); None for a `%` that escapes nothing.

    Line breaks and tabs are no part of it, as in browsers. It goes in slices: the decoder, which is the one for
    quoted-printable, keeps the interpreter to itself while it works on one.
    """
    view, decoded, carried = memoryview(text), Gathered(), b""
    for start in range(0, len(view), SLICE_BYTES):
        stop = start + SLICE_BYTES
        piece = carried + bytes(view[start:stop]).translate(None, b"\t\r\n")
        cut = piece.rfind(b"%", max(0, len(piece) - _ESCAPE_BEGUN)) if stop < len(view) else -1
        piece, carried = (piece[:cut], piece[cut:]) if cut >= 0 else (piece, b"")
        if _BROKEN.search(piece):
            return None
        decoded.add(binascii.a2b_qp(piece.replace(b"=", b"%3D").replace(b"%", b"=")))
    return decoded.bytes()


def unwrapped(text: bytes) -> bytes | None:
    """Base64 without the spaces that wrap it; None where they may be `+` that a form has turned into spaces.

    What wraps base64 makes lines of equal length, a multiple of four, and leaves the whole one.
    """
    width = text.find(b" ")
    if width < 0:
        return text
    rest = text[width : width + _WIDEST_GAP]
    gap = len(rest) - len(rest.lstrip(b" "))
    between = [text[width + at :: width + gap] for at in range(gap)]
    spaces = sum(len(column) for column in between)
    regular = all(not column.strip(b" ") for column in between) and text.count(b" ") == spaces
    if width % _GROUP or not regular or (len(text) - spaces) % _GROUP:
        return None
    return text.replace(b" ", b"")
