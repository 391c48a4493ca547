"""The settings of Apiframe."""

from __future__ import annotations

from providers.settings import BaseUrl, CloudSettings


class ApiframeSettings(CloudSettings):
    """`[apiframe]`."""

    base_url: BaseUrl = "https://api.apiframe.ai"
    key_env: str = "APIFRAME_API_KEY"
