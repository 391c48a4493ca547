"""`[gateway]`: how the server behaves on the wire."""

from __future__ import annotations

from gateway.settings.kinds import PublicUrl, Seconds
from normalization.rules import Frozen


class HttpSettings(Frozen):
    """The server and its connections."""

    public_url: PublicUrl | None = None
    keep_alive_s: Seconds = 10
