"""Values that settings have in common, with what is wrong about them."""

from __future__ import annotations

import base64
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

ResponseFormat = Literal["url", "b64_json", "both"]
OnDisconnect = Literal["finish", "cancel"]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Whole = Annotated[int, Field(ge=0)]


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/"):
        raise ValueError("expected an address without path, such as http://10.0.0.5:5000")
    return text.rstrip("/")


def _public(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("expected an address such as https://images.example.org")
    return text.rstrip("/")


def _host_port(text: str) -> str:
    parts = urlsplit(f"//{text}")
    try:
        known = parts.hostname is not None and parts.port is not None and parts.netloc == text
    except ValueError:
        known = False
    if not known:
        raise ValueError("expected host:port, such as 127.0.0.1:9000")
    return text.lower()


def _whsec(text: str) -> str:
    try:
        size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except ValueError:
        size = 0
    if not text.startswith("whsec_") or not 24 <= size <= 64:
        raise ValueError("expected whsec_ and 24 to 64 bytes in base64, as: whsec_$(openssl rand -base64 32)")
    return text


WebhookSecret = Annotated[str, AfterValidator(_whsec)]
HostPort = Annotated[str, AfterValidator(_host_port)]
Origin = Annotated[str, AfterValidator(_origin)]
PublicUrl = Annotated[str, AfterValidator(_public)]
