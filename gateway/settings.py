"""What `gateway.toml` and `providers.toml` may say: the schema of the settings."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from gateway.routing.breaker import Policy
from gateway.routing.wish import Strategy
from normalization.rules import Frozen

ResponseFormat = Literal["url", "b64_json", "both"]
OnDisconnect = Literal["finish", "cancel"]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/"):
        raise ValueError("expected an address without path, such as http://10.0.0.5:5000")
    return text.rstrip("/")


def _public(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("expected an address such as https://images.example.org")
    return text.rstrip("/")


def _host_port(text: str) -> str:
    parts = urlsplit(f"//{text}")
    try:
        known = parts.hostname is not None and parts.port is not None and parts.netloc == text
    except ValueError:
        known = False
    if not known:
        raise ValueError("expected host:port, such as 127.0.0.1:9000")
    return text.lower()


def _whsec(text: str) -> str:
    try:
        size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except ValueError:
        size = 0
    if not text.startswith("whsec_") or not 24 <= size <= 64:
        raise ValueError("expected whsec_ and 24 to 64 bytes in base64, as: whsec_$(openssl rand -base64 32)")
    return text


WebhookSecret = Annotated[str, AfterValidator(_whsec)]
HostPort = Annotated[str, AfterValidator(_host_port)]
Origin = Annotated[str, AfterValidator(_origin)]
PublicUrl = Annotated[str, AfterValidator(_public)]


class GatewaySettings(Frozen):
    """`[gateway]`: deadlines in seconds, limits in bytes and pixels."""

    default_model: str
    default_response_format: ResponseFormat = "both"
    deadline_s: Seconds = 280
    attempt_timeout_s: Seconds = 240
    submit_timeout_s: Seconds = 30
    poll_timeout_s: Seconds = 10
    url_allow: tuple[HostPort, ...] = ()
    body_timeout_s: Seconds = 60
    grace_s: Seconds = 25
    keep_alive_s: Seconds = 10
    strategy: Strategy = "cheapest"
    on_unknown: Literal["fail", "failover"] = "fail"
    max_duplicate_usd: Annotated[float, Field(ge=0)] = 0
    breaker_unreached: Count = 3
    breaker_failures: Count = 5
    breaker_ejection_s: Seconds = 30
    breaker_max_ejection_s: Seconds = 300
    cool_down_s: Seconds = 5
    park_s: Seconds = 300
    public_url: PublicUrl | None = None
    max_upload_bytes: Count = 50 * 2**20
    max_body_bytes: Count = 200 * 2**20
    max_input_pixels: Count = 50_000_000
    max_side: Count = 16_384
    max_output_pixels: Count = 64_000_000
    max_in_flight_pixels: Count = 128_000_000
    max_result_bytes: Count = 256 * 2**20
    files_ttl_s: Seconds = 3600
    files_url: str | None = None
    on_disconnect: OnDisconnect = "finish"
    late_s: Seconds = 3600
    lease_s: Annotated[float, Field(ge=1)] = 15
    idempotency_ttl_s: Seconds = 86_400
    join_window_s: Seconds = 900
    ledger_url: str | None = Field(None, repr=False)
    ledger_ttl_s: Seconds = 90 * 86_400
    parameters_ttl_s: Seconds = 90 * 86_400
    keep_parameters: bool = True
    webhook_secret: WebhookSecret | None = Field(None, repr=False)

    def breaker(self) -> Policy:
        """The breakers' policy."""
        return Policy(
            unreached=self.breaker_unreached,
            failures=self.breaker_failures,
            ejection_s=self.breaker_ejection_s,
            max_ejection_s=self.breaker_max_ejection_s,
            cool_down_s=self.cool_down_s,
            park_s=self.park_s,
        )


class Alias(Frozen):
    """Another name of a model, with what its clients expect."""

    model: str
    default_response_format: ResponseFormat | None = None


class GatewayFile(Frozen):
    """The whole of `gateway.toml`."""

    gateway: GatewaySettings
    aliases: Mapping[str, Alias] = Field(default_factory=dict)


class LocalSettings(Frozen):
    """`[local]`: Cog HTTP servers on the user's own machines."""

    workers: Literal["embedded"] | tuple[Origin, ...] = "embedded"
    max_queue: Count = 200
    start_deadline_s: Seconds = 600
    health_interval_s: Seconds = 2


class ReplicateSettings(Frozen):
    """`[replicate]`. `key_env` names the environment variable that holds the key; without a key the provider is off."""

    base_url: Origin = "https://api.replicate.com"
    key_env: str = "REPLICATE_API_TOKEN"


class FalSettings(Frozen):
    """`[fal]`. `mode` is the queue, or the synchronous host; `api_url` has the list of our requests."""

    queue_url: Origin = "https://queue.fal.run"
    run_url: Origin = "https://fal.run"
    rest_url: Origin = "https://rest.fal.ai"
    api_url: Origin = "https://api.fal.ai"
    mode: Literal["queue", "run"] = "queue"
    key_env: str = "FAL_KEY"


class SegmindSettings(Frozen):
    """`[segmind]`."""

    base_url: Origin = "https://api.segmind.com"
    upload_url: Origin = "https://workflows-api.segmind.com"
    key_env: str = "SEGMIND_API_KEY"


class ApiframeSettings(Frozen):
    """`[apiframe]`."""

    base_url: Origin = "https://api.apiframe.ai"
    key_env: str = "APIFRAME_API_KEY"


class ProvidersFile(Frozen):
    """The whole of `providers.toml`: one section for each provider that there is an adapter for."""

    local: LocalSettings = LocalSettings()
    replicate: ReplicateSettings = ReplicateSettings()
    fal: FalSettings = FalSettings()
    segmind: SegmindSettings = SegmindSettings()
    apiframe: ApiframeSettings = ApiframeSettings()
