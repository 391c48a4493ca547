"""The settings of Replicate."""

from __future__ import annotations

from providers.settings import BaseUrl, CloudSettings


class ReplicateSettings(CloudSettings):
    """`[replicate]`."""

    base_url: BaseUrl = "https://api.replicate.com"
    key_env: str = "REPLICATE_API_TOKEN"
