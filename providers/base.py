"""The contract of an adapter, and the errors that carry the policy of the failover loop.

ProviderError
├── Rejected       the provider refuses the input
├── Blocked        the provider's content policy refuses the input or the result
├── Throttled      too many requests, or no free place
│   └── Crowded        … in a queue of ours, for whoever asked: others may find one
├── Unusable       our account or our key cannot be used
├── Unreached      the request never left
├── Unknown        the answer to a submit was lost; the work may have been taken
├── Failed         the provider says that the job failed
├── Undecodable    the result is not the picture that was asked for
└── Expired        the deadline passed
    └── Unfinished     … and the job goes on, for the provider cannot cancel
        └── Unfetched  … and the job has succeeded: its picture is still to be fetched
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Literal, Protocol

from normalization.values import Announced, Value
from providers.clock import CLOCK, Clock

Health = Literal["neutral", "counts", "cools_down", "parks"]

MOST_MICROS = 10**15
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

    def hide(self, secrets: Iterable[str]) -> None:
        """Take texts out of what it tells: a provider may say back what it was sent."""
        for secret in secrets:
            self.told, self.said = without(self.told, secret), without(self.said, secret)
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


def without(text: str, secret: str) -> str:
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


class Readiness(Enum):
    """Whether a provider can serve an upstream model now."""

    OFF = "off"
    """Not configured: no key, no worker, or no worker that has this model."""
    DOWN = "down"
    """Configured, and not able to take work at the moment."""
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The provider's own name of a model, with the adapter's options from the route's `[options]`."""

    model: str
    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One upstream call.

    `id` is ours and unique to the attempt: letters, digits, `-` and `_`. `payload` is the model's input object, with
    pictures as `Image` leaves for the adapter to encode or upload. `deadline` is in seconds of the event loop's clock.
    `owner` is the API key that it is for: where jobs wait in a queue of ours, owners take turns.
    """

    id: str
    upstream: Upstream
    payload: Mapping[str, Value]
    deadline: float
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """A job that a provider has taken. Plain data: it is stored, and may be waited for in another process.

    `held` is true where the job lives in a connection of this process, so that no other one can wait for it.
    """

    provider: str
    id: str
    data: Mapping[str, str] = field(default_factory=dict)
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A submit that left, and of whose answer nothing is known: what was written down right before it.

    `id` and `upstream` are the Job's, `at` is in seconds of the wall clock, `data` what the adapter gave to
    `Link.sending`. `heard` is the provider's own id of the job, where its webhook has told it. `others` are ids of jobs
    there that are known to be those of other submits, however much like this one.
    """

    id: str
    upstream: Upstream
    at: float
    data: Mapping[str, str] = field(default_factory=dict)
    heard: str | None = None
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a webhook said, once it is known to come from the provider: a hint, for the job itself is asked.

    `id` is the provider's id of the job, None where it tells none; `progress` its share that is done, from 0 to 1.
    `ended` is false where it says that the job goes on: then there is nothing to ask for yet.
    """

    id: str | None = None
    progress: float | None = None
    ended: bool = True


class Link:
    """What connects a job at a provider with whoever ordered it. This one connects to nobody.

    `webhook` is the address that the provider may report to, None where it cannot reach us.
    """

    webhook: str | None = None

    async def sending(self, data: Mapping[str, str]) -> None:
        """Awaited right before the request leaves that may buy something; what it raises stops that request.

        `data` is written down. With it `find` has to recognise the job in another process: no picture, no key.
        """

    async def others(self) -> frozenset[str]:
        """The provider's ids of jobs that are known to be those of other submits: for who looks for a lost one."""
        return frozenset()

    def progress(self, share: float) -> None:
        """Tell how much is done, from 0 to 1, by the provider's own word."""

    def succeeded(self) -> None:
        """Tell that the provider says the job has succeeded: from now on it is only to be fetched."""

    async def sleep(self, seconds: float, clock: Clock = CLOCK) -> None:
        """Wait between two looks, by this clock; a webhook may cut it short."""
        await clock.sleep(seconds)


ALONE = Link()
"""For jobs that nobody wants to hear of in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished job gave. `pictures` are the bytes as they came, not looked into.

    `seconds` is the provider's own measure of its run time, `cost` its bill in micro-dollars; None where it tells none.
    `executed` is what it says it ran, in printable ASCII; empty where it says nothing beyond the model's name. `notes`
    are what it says it did otherwise than asked: sentences for the caller.
    """

    pictures: tuple[bytes, ...] = field(repr=False)
    seconds: float | None = None
    cost: int | None = None
    executed: str = ""
    notes: tuple[str, ...] = ()


class Provider(Protocol):
    """An adapter. It raises `ProviderError` and nothing else of its own making.

    `cancels` is false where the provider has no way to stop a job: then `cancel` does nothing.
    """

    name: str
    cancels: bool

    @property
    def queue_depth(self) -> int:
        """Jobs of this process that wait for a place there; 0 for a provider that keeps its own queue."""
        ...

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        """Say whether it can serve this model now, with a sentence for the operator why not. Never waits."""
        ...

    def announced(self, upstream: Upstream) -> Announced | None:
        """Say what a program of the operator's own takes for this model; None for a provider, which sees to its inputs
        itself. Never waits."""
        ...

    async def submit(self, job: Job, link: Link = ALONE) -> Handle:
        """Hand the job over. When this returns the provider has taken the work, and money may flow.

        What costs nothing (uploads, a place in a queue) comes first, then `link.sending`, then the request that buys.
        """
        ...

    async def wait(self, handle: Handle, deadline: float, link: Link = ALONE) -> Outcome:
        """Wait for the result until `deadline` (event loop's clock). A failing poll never causes a second submit.

        Once the provider says that the job has succeeded, `link.succeeded` is called, and what remains is
        `providers/kit/results.py`'s: the pictures, or Unfetched. It may be called again, and in another process
        where the handle is not `held`.
        """
        ...

    async def find(self, sent: Sent) -> Handle | None:
        """Say what became of a submit whose answer nobody heard, in this process or in another one.

        Returns the job's handle where the provider took it, None where it surely did not; never submits anew but under
        a key that the provider honours. Raises Unknown where that cannot be told.
        """
        ...

    async def hear(self, headers: Mapping[str, str], body: bytes) -> Heard | None:
        """Read what came to the webhook's address; None where it is not surely the provider's.

        Header names are in lower case.
        """
        ...

    async def cancel(self, handle: Handle) -> None:
        """Ask the provider to stop the job and see that it ended. Harmless on a job that has ended already."""
        ...

    async def start(self) -> None:
        """Begin what runs beside requests, such as health checks."""
        ...

    async def aclose(self) -> None:
        """Stop what `start` began. The shared HTTP client belongs to the caller."""
        ...
