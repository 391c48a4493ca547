"""How the gateway names itself to other hosts: some refuse a word that could be anybody's."""

from __future__ import annotations

VERSION = "0.1.0"

PAGE: str | None = None
"""The project's page, where it has one: what a host's operator looks up (RFC 9110, 10.1.5)."""

USER_AGENT = f"darkroom/{VERSION}" + (f" (+{PAGE})" if PAGE else "")
