"""Types of settings, with validators whose messages say what is expected."""

from __future__ import annotations

import base64
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, Field, SecretStr

from providers.settings import Count as Count
from providers.settings import Origin as Origin
from providers.settings import Seconds as Seconds

ResponseFormat = Literal["url", "b64_json", "both"]
OnDisconnect = Literal["finish", "cancel"]
Whole = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _public(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("expected a URL such as https://images.example.org")
    return text.rstrip("/")


def _host_port(text: str) -> str:
    parts = urlsplit(f"//{text}")
    try:
        valid = parts.hostname is not None and parts.port is not None and parts.netloc == text
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("expected host:port, such as 127.0.0.1:9000")
    return text.lower()


def _host_pattern(text: str) -> str:
    name = text.removeprefix("*.").rstrip(".").lower()
    try:
        return ip_address(text).compressed
    except ValueError:
        pass
    try:
        # In its ASCII form, as in URLs: a pattern in another form would never match.
        host = httpx.URL(f"https://{name}/").raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError, ValueError):
        host = ""
    if not host or any(character in name for character in "/*@?#:[] "):
        raise ValueError("expected a host, such as images.example.org, or *.example.org for all its subdomains")
    return f"*.{host}" if text.startswith("*.") else host


def _whsec(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except ValueError:
        size = 0
    if not text.startswith("whsec_") or not 24 <= size <= 64:
        raise ValueError("expected whsec_ and 24 to 64 bytes in base64, such as: whsec_$(openssl rand -base64 32)")
    return secret


def _redis(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("redis://", "rediss://", "redis+unix://")):
        raise ValueError("expected a URL such as redis://redis:6379/0")
    return secret


def _database(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("postgresql://", "postgres://", "postgresql+psycopg://", "sqlite://")):
        raise ValueError("expected a URL such as postgresql://user:password@host/database")
    return secret


def _store(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if scheme not in (*BUCKETS, "file") or not rest:
        raise ValueError("expected a URL such as s3://bucket/prefix or file:///srv/images")
    return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("expected an IP address or a network, such as 10.0.0.5 or 10.0.0.0/24") from None


BUCKETS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")

RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database)]
StoreUrl = Annotated[str, AfterValidator(_store)]
Network = Annotated[str, AfterValidator(_network)]
WebhookSecret = Annotated[SecretStr, AfterValidator(_whsec)]
HostPattern = Annotated[str, AfterValidator(_host_pattern)]
HostPort = Annotated[str, AfterValidator(_host_port)]
PublicUrl = Annotated[str, AfterValidator(_public)]


def secret_text(secret: SecretStr | None) -> str | None:
    """The text of a secret setting, for its use; printed anywhere else, a secret shows as asterisks."""
    return None if secret is None else secret.get_secret_value()


Auth: TypeAlias = Literal["auto", "required", "none"]
"""When requests need an API key: as soon as they can cost money, always, or never."""
