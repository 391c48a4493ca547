"""`[gateway]`: where result files are kept."""

from __future__ import annotations

from gateway.settings.kinds import Seconds
from normalization.rules import Frozen


class FileSettings(Frozen):
    """Result files."""

    files_ttl_s: Seconds = 3600
    files_url: str | None = None
