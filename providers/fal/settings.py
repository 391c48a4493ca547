"""The settings of fal.ai."""

from __future__ import annotations

from typing import Literal

from providers.settings import BaseUrl, CloudSettings


class FalSettings(CloudSettings):
    """`[fal]`. `mode` is the queue, or the synchronous host; `api_url` has the list of our requests."""

    queue_url: BaseUrl = "https://queue.fal.run"
    run_url: BaseUrl = "https://fal.run"
    rest_url: BaseUrl = "https://rest.fal.ai"
    api_url: BaseUrl = "https://api.fal.ai"
    mode: Literal["queue", "run"] = "queue"
    key_env: str = "FAL_KEY"
