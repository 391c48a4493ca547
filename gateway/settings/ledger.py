"""`[gateway]`: what is written down, and for how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.settings.kinds import Seconds, WebhookSecret
from normalization.rules import Frozen


class LedgerSettings(Frozen):
    """The ledger."""

    idempotency_ttl_s: Seconds = 86_400
    join_window_s: Seconds = 900
    lease_s: Annotated[float, Field(ge=1)] = 15
    ledger_url: str | None = Field(None, repr=False)
    ledger_ttl_s: Seconds = 90 * 86_400
    parameters_ttl_s: Seconds = 90 * 86_400
    keep_parameters: bool = True
    webhook_secret: WebhookSecret | None = Field(None, repr=False)
