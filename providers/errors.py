"""The error tree of adapters. Each class carries the policy of the failover loop: next route, health, billing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import ClassVar, Literal

Health = Literal["neutral", "counts", "cools_down", "parks"]


MAX_COST_MICROS = 10**15
"""A bill that reaches this, in micro-dollars, is a mistake or an attack: it is not known then. The ledger holds less
than ten thousand times as much."""


class ProviderError(Exception):
    """Something went wrong at a provider.

    `told` is a sentence of ours, which callers may read; `said` is what the provider itself wrote, which may tell of
    its network or of ours, and `message` is both, for the operator's log. None holds a key, a prompt or a picture.
    `next_route` says whether the next route may be tried, `health` what the breaker hears, `billed` whether money may
    have been spent (None: perhaps). An adapter that knows it of one error says `unbilled=True`. `retry_after` is in
    seconds, where the provider gave one.
    """

    next_route: ClassVar[bool]
    health: ClassVar[Health]
    billed: bool | None

    def __init__(
        self,
        message: str,
        *,
        said: str = "",
        retry_after: float | None = None,
        code: str | None = None,
        unbilled: bool = False,
        cost: int | None = None,
    ) -> None:
        self.told = message
        self.said = said
        super().__init__(self.message)
        self.retry_after = retry_after
        self.code = code
        self.cost = cost
        if unbilled or cost is not None:
            self.billed = bool(cost)

    @property
    def message(self) -> str:
        """All that is known of it."""
        return f"{self.told}: {self.said}" if self.said else self.told

    def redact(self, secrets: Iterable[str]) -> None:
        """Take texts out of what it tells: a provider may say back what it was sent."""
        for secret in secrets:
            self.told, self.said = redacted(self.told, secret), redacted(self.said, secret)
        self.args = (self.message,)

    def point_at(self, fields: Iterable[str]) -> None:
        """Tell which of these fields, which are the caller's own or ours, the provider speaks of."""
        named = [field for field in fields if re.search(rf"(?<![\w-]){re.escape(field)}(?![\w-])", self.said)]
        if named:
            shown = ", ".join(f"'{field[:_HEAD]}'" for field in named[:_MOST_FIELDS])
            self.told = f"{self.told} (about {shown})"


# Where a text is longer, so much of its beginning is looked for: a message may hold no more of it.
_HEAD = 24


# Shorter texts are words of any sentence.
_LEAST = 8


_MOST_FIELDS = 3


def redacted(text: str, secret: str) -> str:
    """The text with an ellipsis wherever the secret, or as much of its beginning as a message would show, stands."""
    secret = " ".join(secret.split())
    if len(secret) < _LEAST:
        return text
    at = text.find(secret[:_HEAD])
    while at >= 0:
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(secret, text[at:], strict=False))
        end = at + sum(1 for _ in alike)
        text = f"{text[:at]}…{text[end:]}"
        at = text.find(secret[:_HEAD], at + 1)
    return text


class Rejected(ProviderError):
    """The provider refuses the input (400, 422)."""

    next_route = True
    health = "neutral"
    billed = False


class Blocked(ProviderError):
    """The provider's content policy refuses the input or the result."""

    next_route = False
    health = "neutral"
    billed = False


class Throttled(ProviderError):
    """Too many requests (429), or no free place (409 at capacity): others may have one."""

    next_route = True
    health: ClassVar[Health] = "cools_down"
    billed = False


class Crowded(Throttled):
    """No free place in a queue of ours for the owner of this job. It says nothing of the next one's chances."""

    next_route = True
    health = "neutral"
    billed = False


class Unusable(ProviderError):
    """Our account or key cannot be used (401, 402, 403): no route of this provider can."""

    next_route = True
    health = "parks"
    billed = False


class Unreached(ProviderError):
    """The request never left: connection refused, TLS, DNS."""

    next_route = True
    health = "counts"
    billed = False


class Unknown(ProviderError):
    """The answer to a submit was lost: the work may have been taken, so nothing may be bought before that is known."""

    next_route = False
    health = "counts"
    billed = None


class Failed(ProviderError):
    """The provider says that the job failed."""

    next_route = True
    health = "counts"
    billed = None


class Undecodable(ProviderError):
    """The result is not the picture that was asked for."""

    next_route = True
    health = "counts"
    billed = True


class Expired(ProviderError):
    """The deadline of the attempt passed; the job was cancelled upstream."""

    next_route = True
    health = "counts"
    billed: bool | None = None


class Unfinished(Expired):
    """The deadline passed, and the job goes on: the provider cannot cancel it, and another would be paid as well."""

    next_route = False
    health = "counts"
    billed: bool | None = None


class Unfetched(Unfinished):
    """The job has succeeded and is paid for, and its picture could not be fetched so far: that is all there is to do.

    Whoever waits for the job again fetches it again; nothing is bought in its place.
    """

    next_route = False
    health = "counts"
    billed = True
