"""The contract of an adapter: what it is given, what it returns, and the context of an attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from normalization.values import Announced, Value
from providers.clock import CLOCK, Clock


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
class UpstreamJob:
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
class PendingSubmit:
    """A submit that left, and of whose answer nothing is known: what was written down right before it.

    `id` and `upstream` are the Job's, `at` is in seconds of the wall clock, `data` what the adapter gave to
    `AttemptContext.sending`. `heard` is the provider's own id of the job, where its webhook has told it. `others` are
    ids of jobs there that are known to be those of other submits, however much like this one.
    """

    id: str
    upstream: Upstream
    at: float
    data: Mapping[str, str] = field(default_factory=dict)
    heard: str | None = None
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """What a webhook said, once it is known to come from the provider: a hint, for the job itself is asked.

    `id` is the provider's id of the job, None where it tells none; `progress` its share that is done, from 0 to 1.
    `ended` is false where it says that the job goes on: then there is nothing to ask for yet.
    """

    id: str | None = None
    progress: float | None = None
    ended: bool = True


class AttemptContext:
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


NO_CONTEXT = AttemptContext()
"""For jobs that nobody wants to hear of in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished job gave. `images` are the bytes as they came, not looked into.

    `seconds` is the provider's own measure of its run time, `cost` its bill in micro-dollars; None where it tells none.
    `executed` is what it says it ran, in printable ASCII; empty where it says nothing beyond the model's name. `notes`
    are what it says it did otherwise than asked: sentences for the caller.
    """

    images: tuple[bytes, ...] = field(repr=False)
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

    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        """Hand the job over. When this returns the provider has taken the work, and money may flow.

        What costs nothing (uploads, a place in a queue) comes first, then `link.sending`, then the request that buys.
        """
        ...

    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        """Wait for the result until `deadline` (event loop's clock). A failing poll never causes a second submit.

        Once the provider says that the job has succeeded, `link.succeeded` is called, and what remains is
        `providers/kit/results.py`'s: the pictures, or Unfetched. It may be called again, and in another process
        where the handle is not `held`.
        """
        ...

    async def find(self, sent: PendingSubmit) -> Handle | None:
        """Say what became of a submit whose answer nobody heard, in this process or in another one.

        Returns the job's handle where the provider took it, None where it surely did not; never submits anew but under
        a key that the provider honours. Raises Unknown where that cannot be told.
        """
        ...

    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
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
