"""The schema of `gateway.toml`: every key of `[gateway]`, grouped by concern, and the aliases of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gateway.routing.breaker import BreakerSettings
from gateway.routing.preferences import Strategy
from gateway.settings.types import (
    BUCKETS,
    Auth,
    Count,
    DatabaseUrl,
    HostPattern,
    HostPort,
    Network,
    OnDisconnect,
    Origin,
    Port,
    PublicUrl,
    RedisUrl,
    ResponseFormat,
    Seconds,
    StoreUrl,
    WebhookSecret,
    Whole,
)
from normalization.parameters.rules import Frozen, ModelProblem, RuleProblem
from normalization.parameters.undeclared import Undeclared

_RENAMED = {
    "cool_down_s": "throttle_default_s",
    "keys_remembered_s": "key_cache_s",
    "late_s": "late_result_s",
    "on_unknown": "on_unknown_outcome",
    "park_s": "account_suspend_s",
}
"""Settings by their names in earlier versions, and what each is called now."""


class GatewaySettings(Frozen):
    """`[gateway]`. `_s` is seconds, `_bytes` bytes. A `…_file` names a file with the secret of that name instead."""

    # Requests
    default_model: str
    default_response_format: ResponseFormat = "both"
    undeclared: Undeclared = "warn"
    on_disconnect: OnDisconnect = "finish"

    # Deadlines
    deadline_s: Seconds = 280
    attempt_timeout_s: Seconds = 240
    submit_timeout_s: Seconds = 30
    poll_timeout_s: Seconds = 10
    download_timeout_s: Seconds = 60
    min_download_bytes_per_s: Whole = 16 * 2**10
    grace_s: Seconds = 25
    late_result_s: Seconds = 3600

    # Routing and failover
    strategy: Strategy = "cheapest"
    on_unknown_outcome: Literal["fail", "failover"] = "fail"
    max_duplicate_usd: Annotated[float, Field(ge=0)] = 0
    breaker_unreached: Count = 3
    breaker_failures: Count = 5
    breaker_ejection_s: Seconds = 30
    breaker_max_ejection_s: Seconds = 300
    throttle_default_s: Seconds = 5
    account_suspend_s: Seconds = 300

    # API keys and their limits
    auth: Auth = "auto"
    limits_url: RedisUrl | None = None
    limits_url_file: str = ""
    key_cache_s: Seconds = 2

    # Limits of images and of memory
    max_upload_bytes: Count = 50 * 2**20
    max_body_bytes: Count = 200 * 2**20
    max_input_pixels: Count = 50_000_000
    max_side: Count = 16_384
    max_output_pixels: Count = 64_000_000
    max_in_flight_pixels: Count = 128_000_000
    max_waiting_pixels: Count = 512_000_000
    max_in_flight_bytes: Count = 512 * 2**20
    max_result_bytes: Count = 256 * 2**20
    max_in_flight_result_bytes: Count = 512 * 2**20
    max_jobs: Count = 1000
    image_isolation: Literal["thread", "process"] = "thread"
    image_timeout_s: Seconds = 30

    # Images by URL. `url_allow` also holds for the hosts that providers deliver from.
    url_allow: tuple[HostPort, ...] = ()
    fetch_image_urls: bool = True
    url_http: bool = False
    url_ports: tuple[Port, ...] = (443,)
    url_hosts_allow: tuple[HostPattern, ...] = ()
    url_hosts_deny: tuple[HostPattern, ...] = ()
    url_timeout_s: Seconds = 15

    # Result files
    files_ttl_s: Seconds = 3600
    files_url: StoreUrl | None = None
    files_signed: bool = False
    files_presigned: bool = False

    # The server and its connections
    public_url: PublicUrl | None = None
    trusted_proxies: tuple[Network, ...] = ()
    allowed_hosts: tuple[HostPattern, ...] = ()
    cors_origins: tuple[Origin, ...] = ()
    hsts_s: Whole = 0
    docs: bool = True
    metrics_port: Port | None = None
    metrics_host: str = "127.0.0.1"
    keep_alive_s: Seconds = 10
    header_timeout_s: Seconds = 10
    send_timeout_s: Seconds = 60
    body_timeout_s: Seconds = 60
    min_upload_bytes_per_s: Whole = 16 * 2**10
    min_answer_bytes_per_s: Whole = 16 * 2**10
    max_header_bytes: Count = 64 * 2**10
    max_headers: Count = 100
    max_connections: Count = 2000
    max_connections_per_address: Whole = 0

    # The ledger
    idempotency_ttl_s: Seconds = 86_400
    join_window_s: Seconds = 900
    lease_s: Annotated[float, Field(ge=1)] = 15
    ledger_url: DatabaseUrl | None = None
    ledger_url_file: str = ""
    ledger_ttl_s: Seconds = 90 * 86_400
    parameters_ttl_s: Seconds = 90 * 86_400
    keep_parameters: bool = True
    webhook_secret: WebhookSecret | None = None
    webhook_secret_file: str = ""

    @model_validator(mode="before")
    @classmethod
    def _refuse_renamed(cls, table: Any) -> Any:
        renamed = [(old, new) for old, new in _RENAMED.items() if isinstance(table, Mapping) and old in table]
        if renamed:
            raise RuleProblem(ModelProblem((old,), f"{old} was renamed: use {new}") for old, new in renamed)
        return table

    @model_validator(mode="after")
    def _presigned_needs_a_bucket(self) -> GatewaySettings:
        if self.files_presigned and (self.files_url or "").partition("://")[0] not in BUCKETS:
            raise ValueError("files_presigned needs a files_url of a bucket, such as s3://bucket/prefix")
        return self

    def forgetful(self) -> tuple[str, float] | None:
        """The setting, and its seconds, for which jobs must be remembered longer than `ledger_ttl_s`; None if none.

        A repeated call whose job is forgotten buys it again.
        """
        needed = max((self.idempotency_ttl_s, "idempotency_ttl_s"), (self.join_window_s, "join_window_s"))
        return (needed[1], needed[0]) if self.ledger_ttl_s < needed[0] else None

    def breaker(self) -> BreakerSettings:
        """The breakers' policy."""
        return BreakerSettings(
            unreached=self.breaker_unreached,
            failures=self.breaker_failures,
            ejection_s=self.breaker_ejection_s,
            max_ejection_s=self.breaker_max_ejection_s,
            throttle_default_s=self.throttle_default_s,
            account_suspend_s=self.account_suspend_s,
        )


class Alias(Frozen):
    """Another name of a model, with what its clients expect."""

    model: str
    default_response_format: ResponseFormat | None = None


class GatewayFile(Frozen):
    """The whole of `gateway.toml`."""

    gateway: GatewaySettings
    aliases: Mapping[str, Alias] = Field(default_factory=dict)
