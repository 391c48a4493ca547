"""What `gateway.toml` may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from gateway.routing.breaker import Policy
from gateway.routing.preferences import Strategy
from gateway.settings.access import AccessSettings
from gateway.settings.files import FileSettings
from gateway.settings.http import HttpSettings
from gateway.settings.ledger import LedgerSettings
from gateway.settings.types import Count, OnDisconnect, ResponseFormat, Seconds, Whole
from gateway.settings.uploads import UploadSettings
from gateway.settings.urls import UrlSettings
from normalization.parameters.rules import Frozen
from normalization.parameters.undeclared import Undeclared


class GatewaySettings(UploadSettings, UrlSettings, FileSettings, HttpSettings, AccessSettings, LedgerSettings):
    """`[gateway]`: deadlines in seconds, limits in bytes and pixels."""

    default_model: str
    default_response_format: ResponseFormat = "both"
    deadline_s: Seconds = 280
    attempt_timeout_s: Seconds = 240
    submit_timeout_s: Seconds = 30
    poll_timeout_s: Seconds = 10
    download_timeout_s: Seconds = 60
    min_download_bytes_per_s: Whole = 16 * 2**10
    grace_s: Seconds = 25
    strategy: Strategy = "cheapest"
    undeclared: Undeclared = "warn"
    on_unknown: Literal["fail", "failover"] = "fail"
    max_duplicate_usd: Annotated[float, Field(ge=0)] = 0
    breaker_unreached: Count = 3
    breaker_failures: Count = 5
    breaker_ejection_s: Seconds = 30
    breaker_max_ejection_s: Seconds = 300
    cool_down_s: Seconds = 5
    park_s: Seconds = 300
    max_result_bytes: Count = 256 * 2**20
    max_in_flight_result_bytes: Count = 512 * 2**20
    on_disconnect: OnDisconnect = "finish"
    late_s: Seconds = 3600

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
