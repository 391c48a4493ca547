"""`[gateway]`: how the server behaves on the wire."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator

from gateway.settings.types import Count, HostPattern, Origin, Port, PublicUrl, Seconds, Whole
from normalization.parameters.rules import Frozen


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("expected an address or a network, such as 10.0.0.5 or 10.0.0.0/24") from None


Network = Annotated[str, AfterValidator(_network)]


class HttpSettings(Frozen):
    """The server and its connections."""

    public_url: PublicUrl | None = None
    trusted_proxies: tuple[Network, ...] = ()
    allowed_hosts: tuple[HostPattern, ...] = ()
    cors_origins: tuple[Origin, ...] = ()
    hsts_s: Whole = 0
    docs: bool = True
    metrics_port: Port | None = None
    metrics_host: str = "127.0.0.1"
    keep_alive_s: Seconds = 10
    header_timeout_s: Seconds = 10
    send_timeout_s: Seconds = 60
    min_answer_bytes_per_s: Whole = 16 * 2**10
    max_header_bytes: Count = 64 * 2**10
    max_headers: Count = 100
    max_connections: Count = 2000
    max_connections_per_address: Whole = 0
