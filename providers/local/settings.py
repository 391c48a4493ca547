"""The settings of the local provider."""

from __future__ import annotations

from typing import Literal

from providers.settings import Count, Origin, ProviderSettings, Seconds


class LocalSettings(ProviderSettings):
    """`[local]`: Cog HTTP servers on the user's own machines. `max_queue` bounds the jobs that wait."""

    workers: Literal["embedded"] | tuple[Origin, ...] = "embedded"
    max_queue: Count = 200
    start_deadline_s: Seconds = 600
    health_interval_s: Seconds = 2
