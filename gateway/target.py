"""What a request is for: its host, by the rules of HTTP/1.1, and a path that every program reads alike."""

from __future__ import annotations

import re
from urllib.parse import quote

from gateway.http.errors import ApiError

# C0, DEL and C1. A path has them only as escapes, and programs differ in where they think that it ends then.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SLASHES = re.compile(rb"/{2,}")
_ABSOLUTE = re.compile(rb"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)


def settle_host(target: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Leave one Host among the headers: the target's own where it names one, whatever else is said (RFC 9112, 3.2).

    Raises ApiError 400 where there are several, or none, which HTTP/1.0 alone allows.
    """
    named = [at for at, (name, _) in enumerate(headers) if name == b"host"]
    if len(named) > 1 or (not named and version == "1.1"):
        found = "several" if named else "none"
        raise ApiError(400, f"A request of HTTP/1.1 has one Host header; this one has {found}.", code="invalid_http")
    if (absolute := _ABSOLUTE.match(target)) is not None:
        for at in named:
            del headers[at]
        headers.insert(0, (b"host", absolute[1]))


def plain_path(raw: bytes) -> bytes:
    """A path as it came over the wire, without the slashes that name nothing: doubled ones, and those at its end.

    Escapes stay as they are, those of slashes too: whoever writes one means a part of a name. So the answer, and who
    may have it, is that of the path which is left, for whoever looks at it afterwards.
    """
    if not raw.startswith(b"/"):
        return raw
    return _SLASHES.sub(b"/", raw).rstrip(b"/") or b"/"


def check_path(path: str) -> None:
    """Raise ApiError 400 for a control character in a path, whose escapes have been read."""
    if (found := _CONTROL.search(path)) is not None:
        escaped = quote(found[0], safe="")
        message = f"The path has a control character, {escaped}, as its character {found.start() + 1}: leave it out."
        raise ApiError(400, message, code="invalid_url")
