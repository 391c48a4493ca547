"""`[gateway]`: which addresses of strangers are fetched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.settings.types import HostPattern, HostPort, Seconds
from normalization.parameters.rules import Frozen

Port = Annotated[int, Field(ge=1, le=65_535)]


class UrlSettings(Frozen):
    """Addresses that callers and providers name. All but `url_allow` are for those of callers."""

    url_allow: tuple[HostPort, ...] = ()
    fetch_image_urls: bool = True
    url_http: bool = False
    url_ports: tuple[Port, ...] = (443,)
    url_hosts_allow: tuple[HostPattern, ...] = ()
    url_hosts_deny: tuple[HostPattern, ...] = ()
    url_timeout_s: Seconds = 15
