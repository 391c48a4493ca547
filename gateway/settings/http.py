"""`[gateway]`: how the server behaves on the wire."""

from __future__ import annotations

from gateway.settings.kinds import Count, PublicUrl, Seconds, Whole
from normalization.rules import Frozen


class HttpSettings(Frozen):
    """The server and its connections."""

    public_url: PublicUrl | None = None
    keep_alive_s: Seconds = 10
    header_timeout_s: Seconds = 10
    send_timeout_s: Seconds = 60
    max_header_bytes: Count = 64 * 2**10
    max_headers: Count = 100
    max_connections: Count = 2000
    max_connections_per_address: Whole = 0
