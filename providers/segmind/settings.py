"""The settings of Segmind."""

from __future__ import annotations

from providers.settings import BaseUrl, CloudSettings


class SegmindSettings(CloudSettings):
    """`[segmind]`."""

    base_url: BaseUrl = "https://api.segmind.com"
    upload_url: BaseUrl = "https://workflows-api.segmind.com"
    key_env: str = "SEGMIND_API_KEY"
