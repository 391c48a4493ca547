"""What a key may: the values that everything about access is decided over."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from gateway.auth.budget import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What the ledger holds a key to. `concurrency` is how many of its jobs may go on at once, in all processes."""

    budget: Budget | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A key's rights. `id` stands in the ledger and tells nothing of the key; "" is the operator's own machine.

    `models` and `providers` are the only ones it may use, None means all. `rpm` are requests a minute, `concurrency`
    calls at once. Times are in seconds since the epoch.
    """

    id: str
    name: str = ""
    admin: bool = False
    models: frozenset[str] | None = None
    providers: frozenset[str] | None = None
    rpm: int | None = None
    concurrency: int | None = None
    budget: Budget | None = None
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    digest: bytes = field(default=b"", repr=False)

    def opens(self, digest: bytes, now: float) -> bool:
        """Whether the key with this digest is this one, compared in constant time, and good at this time."""
        return hmac.compare_digest(digest, self.digest) and self.good(now)

    def good(self, now: float) -> bool:
        """Whether it is neither revoked nor expired at this time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def allowance(self) -> Allowance | None:
        """What the ledger has to hold it to; None where that is nothing."""
        if self.budget is None and self.concurrency is None:
            return None
        return Allowance(budget=self.budget, concurrency=self.concurrency)

    @property
    def scope(self) -> str | None:
        """The id of the only key whose jobs and requests it may see; None for an admin, who sees all."""
        return None if self.admin else self.id

    def may_use(self, model: str) -> bool:
        """Whether it may use a model, by the model's id."""
        return self.models is None or model in self.models

    def may_reach(self, provider: str) -> bool:
        """Whether its requests may go to a provider."""
        return self.providers is None or provider in self.providers


OPERATOR = Grant(id="", name="operator", admin=True)
"""Whoever calls from this machine while there are no keys."""


class Exceeded(Exception):
    """A key may not do this now. Nothing was sent. The message is a sentence for whoever has the key."""


class OverBudget(Exceeded):
    """The key's budget does not reach for it."""


class AtCapacity(Exceeded):
    """As many of the key's jobs go on as may."""
