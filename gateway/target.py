"""The host that a request is for, by the rules of HTTP/1.1."""

from __future__ import annotations

import re

from gateway.api.errors import ApiError

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
