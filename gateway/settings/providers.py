"""What `providers.toml` may say."""

from __future__ import annotations

from typing import Literal

from gateway.settings.types import BaseUrl, Count, Origin, Seconds
from normalization.parameters.rules import Frozen


class LocalSettings(Frozen):
    """`[local]`: Cog HTTP servers on the user's own machines."""

    workers: Literal["embedded"] | tuple[Origin, ...] = "embedded"
    max_queue: Count = 200
    start_deadline_s: Seconds = 600
    health_interval_s: Seconds = 2


class ReplicateSettings(Frozen):
    """`[replicate]`. `key_env` names the environment variable that holds the key, or several, separated by commas.

    `key_file` is a file with a key a line instead; without a key the provider is off.
    """

    base_url: BaseUrl = "https://api.replicate.com"
    key_env: str = "REPLICATE_API_TOKEN"
    key_file: str = ""


class FalSettings(Frozen):
    """`[fal]`. `mode` is the queue, or the synchronous host; `api_url` has the list of our requests."""

    queue_url: BaseUrl = "https://queue.fal.run"
    run_url: BaseUrl = "https://fal.run"
    rest_url: BaseUrl = "https://rest.fal.ai"
    api_url: BaseUrl = "https://api.fal.ai"
    mode: Literal["queue", "run"] = "queue"
    key_env: str = "FAL_KEY"
    key_file: str = ""


class SegmindSettings(Frozen):
    """`[segmind]`."""

    base_url: BaseUrl = "https://api.segmind.com"
    upload_url: BaseUrl = "https://workflows-api.segmind.com"
    key_env: str = "SEGMIND_API_KEY"
    key_file: str = ""


class ApiframeSettings(Frozen):
    """`[apiframe]`."""

    base_url: BaseUrl = "https://api.apiframe.ai"
    key_env: str = "APIFRAME_API_KEY"
    key_file: str = ""


class ProvidersFile(Frozen):
    """The whole of `providers.toml`: one section for each provider that there is an adapter for."""

    local: LocalSettings = LocalSettings()
    replicate: ReplicateSettings = ReplicateSettings()
    fal: FalSettings = FalSettings()
    segmind: SegmindSettings = SegmindSettings()
    apiframe: ApiframeSettings = ApiframeSettings()
