"""`[gateway]`: what is written down, and for how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from gateway.settings.types import Seconds, WebhookSecret
from normalization.parameters.rules import Frozen


def _database(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("postgresql://", "postgres://", "postgresql+psycopg://", "sqlite://")):
        raise ValueError("expected an address such as postgresql://user:password@host/database")
    return secret


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database)]


class LedgerSettings(Frozen):
    """The ledger. A `…_file` has the secret of that name in it, instead."""

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

    def forgetful(self) -> tuple[str, float] | None:
        """What a job is to be known for that is forgotten before, and how long; None where all is well.

        A repeated call whose job is forgotten buys it again.
        """
        needed = max((self.idempotency_ttl_s, "idempotency_ttl_s"), (self.join_window_s, "join_window_s"))
        return (needed[1], needed[0]) if self.ledger_ttl_s < needed[0] else None
