"""Whether a call needs an API key: decided once, when a process starts."""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

Auth: TypeAlias = Literal["auto", "required", "none"]
"""The setting: a key is needed as soon as a call can cost money, always, or never."""


class Policy(Enum):
    """What is asked of a call that carries no key. Without a key only the server's own machine is ever served."""

    REQUIRED = "a call without a key is refused"
    WHILE_KEYS_EXIST = "a call without a key is refused while the register has a key that was not revoked"
    OFF = "a call without a key is served"


def policy(auth: Auth, *, has_keys: bool, buys: bool) -> Policy:
    """What is asked of calls. `has_keys`: the environment has API keys; `buys`: a provider's key is configured.

    A server cannot tell who called: behind a proxy on the same machine everybody looks like its owner. So what costs
    money is never for calls without a key, unless the operator says so.
    """
    if auth == "none":
        return Policy.OFF
    return Policy.REQUIRED if auth == "required" or has_keys or buys else Policy.WHILE_KEYS_EXIST
