"""`[gateway]`: who may call, how often and for how much."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr

from gateway.auth.policy import Auth
from gateway.settings.types import Seconds
from normalization.parameters.rules import Frozen


def _redis(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("redis://", "rediss://", "redis+unix://")):
        raise ValueError("expected an address such as redis://redis:6379/0")
    return secret


RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]


class AccessSettings(Frozen):
    """Keys and their limits. A `…_file` has the secret of that name in it, instead."""

    auth: Auth = "auto"
    limits_url: RedisUrl | None = None
    limits_url_file: str = ""
    keys_remembered_s: Seconds = 2
