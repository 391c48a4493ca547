"""`[gateway]`: which addresses of strangers are fetched."""

from __future__ import annotations

from gateway.settings.kinds import HostPort
from normalization.rules import Frozen


class UrlSettings(Frozen):
    """Addresses that callers and providers name."""

    url_allow: tuple[HostPort, ...] = ()
