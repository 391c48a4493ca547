"""`[gateway]`: who may call, how often and for how much."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from gateway.settings.kinds import Seconds
from normalization.rules import Frozen


def _redis(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "redis+unix://")):
        raise ValueError("expected an address such as redis://redis:6379/0")
    return text


RedisUrl = Annotated[str, AfterValidator(_redis)]


class AccessSettings(Frozen):
    """Keys and their limits."""

    limits_url: RedisUrl | None = Field(None, repr=False)
    keys_remembered_s: Seconds = 2
