"""The contract of an adapter: what it is given, what it returns, the context of an attempt, and a base class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from normalization.values import Announced, Value
from providers.clock import CLOCK, Clock
from providers.errors import Unknown


class Readiness(Enum):
    """Whether a provider can serve an upstream model now."""

    OFF = "off"
    """Not configured: no key, no worker, or no worker that has this model."""
    DOWN = "down"
    """Configured, and not able to take work at the moment."""
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The provider's own name for a model, with the adapter's options from the route's `[options]`."""

    model: str
    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamJob:
    """One upstream call.

    `id` is ours and unique to the attempt: letters, digits, `-` and `_`. `payload` is the model's input object, with
    images as `Image` leaves for the adapter to encode or upload. `deadline` is in seconds of the event loop's clock.
    `owner` is the API key that the job belongs to: where jobs wait in a queue of ours, owners take turns.
    """

    id: str
    upstream: Upstream
    payload: Mapping[str, Value]
    deadline: float
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """A job that a provider has accepted. Plain data: it is stored, and another process may wait for the job.

    `held` is true where the job lives in a connection of this process, so that no other process can wait for it.
    """

    provider: str
    id: str
    data: Mapping[str, str] = field(default_factory=dict)
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSubmit:
    """A submit that was sent and whose answer was lost: what was recorded right before it was sent.

    `id` and `upstream` are those of the `UpstreamJob`, `at` is in seconds of the wall clock, `data` is what the adapter
    passed to `AttemptContext.sending`. `heard` is the provider's own id of the job, where its webhook has reported it.
    `claimed_ids` are the provider's ids of jobs that belong to other submits, however similar they are to this one.
    """

    id: str
    upstream: Upstream
    at: float
    data: Mapping[str, str] = field(default_factory=dict)
    heard: str | None = None
    claimed_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """What a verified webhook reports. It is a hint only: the result is always requested from the provider.

    `id` is the provider's id of the job, None where the webhook has none; `progress` is from 0 to 1. `ended` is false
    where the job goes on, so that there is no result to request yet.
    """

    id: str | None = None
    progress: float | None = None
    ended: bool = True


class AttemptContext:
    """Connects a job at a provider with the job of the gateway. This base class connects it with nothing.

    `webhook` is the address that the provider may report to, None where it cannot reach us.
    """

    webhook: str | None = None

    async def sending(self, data: Mapping[str, str]) -> None:
        """Await this right before the request that may cost money; an exception from it stops that request.

        `data` is stored. `recover` must be able to recognise the job by it in another process. It holds no image and no
        API key.
        """

    async def others(self) -> frozenset[str]:
        """Return the provider's ids of jobs that belong to other submits, for a search for a lost job."""
        return frozenset()

    def progress(self, share: float) -> None:
        """Report the progress that the provider states, from 0 to 1."""

    def succeeded(self) -> None:
        """Report that the provider says the job has succeeded: from now on its result only has to be fetched."""

    async def sleep(self, seconds: float, clock: Clock = CLOCK) -> None:
        """Wait between two polls, by this clock; a webhook may end the wait early."""
        await clock.sleep(seconds)


NO_CONTEXT = AttemptContext()
"""For jobs whose progress nobody follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a finished job. `images` are the bytes as received, not inspected.

    `seconds` is the run time and `cost` the bill in micro-dollars that the provider states; None where it states none.
    `executed` is what it says it ran, in printable ASCII; empty where it says nothing beyond the model's name. `notes`
    are sentences for the client about what the provider did differently from the request.
    """

    images: tuple[bytes, ...] = field(repr=False)
    seconds: float | None = None
    cost: int | None = None
    executed: str = ""
    notes: tuple[str, ...] = ()


class Provider(Protocol):
    """An adapter. It raises `ProviderError` and no other exception of its own.

    `cancels` is false where the provider cannot stop a job: then `cancel` does nothing.
    """

    name: str
    cancels: bool

    @property
    def queue_depth(self) -> int:
        """Jobs of this process that wait for a free place; 0 for a provider that keeps its own queue."""
        ...

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        """Return whether it can serve this model now, and if not, a sentence for the operator. Never waits."""
        ...

    def announced(self, upstream: Upstream) -> Announced | None:
        """Return the inputs that one of the operator's own programs declares for this model; None for a provider, which
        validates its inputs itself. Never waits."""
        ...

    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        """Submit the job. When this returns, the provider has accepted the work, and it may cost money.

        What costs nothing (uploads, a place in a queue) comes first, then `link.sending`, then the request that buys.
        Raises Unknown where the answer to that request was lost.
        """
        ...

    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        """Wait for the result until `deadline` (event loop's clock). A failing poll never causes a second submit.

        Once the provider says that the job has succeeded, the adapter calls `link.succeeded`, and the rule of
        `providers/kit/results.py` applies: it returns the images or raises Unfetched. `wait` may be called again, also
        in another process where the handle is not `held`.
        """
        ...

    async def recover(self, sent: PendingSubmit) -> Handle | None:
        """Find out what became of a submit whose answer was lost, in this process or in another one.

        Returns the job's handle where the provider accepted it, None where it certainly did not. Never submits again,
        except under an idempotency key that the provider honours. Raises Unknown where it cannot be determined.
        """
        ...

    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        """Verify and read a request to the webhook's address; None where it is not certainly from the provider.

        Header names are in lower case.
        """
        ...

    async def cancel(self, handle: Handle) -> None:
        """Ask the provider to stop the job and wait until it has ended. Harmless for a job that has already ended."""
        ...

    async def start(self) -> None:
        """Start background tasks, such as health checks."""
        ...

    async def aclose(self) -> None:
        """Stop the background tasks. The shared HTTP client stays open: it belongs to the gateway."""
        ...


class BaseProvider(ABC):
    """A `Provider` with honest defaults: an adapter overrides what its provider can do.

    `key` is the API key, None where none is configured; `key_env` is the environment variable that it is read from. By
    default a provider with a key is ready, jobs cannot be cancelled, there are no webhooks, and a submit whose answer
    was lost stays Unknown, so that nothing is bought twice.
    """

    name: str
    cancels: bool = False

    def __init__(self, *, key: str | None = None, key_env: str = "") -> None:
        self._key = key
        self._key_env = key_env

    @property
    def queue_depth(self) -> int:
        return 0

    @property
    def missing_key(self) -> str:
        """The sentence for the operator about a key that is not configured."""
        return f"{self._key_env} is not set"

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        return (Readiness.READY, "") if self._key else (Readiness.OFF, self.missing_key)

    def announced(self, upstream: Upstream) -> Announced | None:
        return None

    @abstractmethod
    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle: ...

    @abstractmethod
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome: ...

    async def recover(self, sent: PendingSubmit) -> Handle | None:
        """Raise Unknown: the provider cannot be asked about a job whose id is not known."""
        raise Unknown(f"{self.name}: the answer to the submit was lost, and the provider cannot be asked for the job")

    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        """Return None: the provider sends no webhooks."""
        return None

    async def cancel(self, handle: Handle) -> None:  # noqa: B027 - a default, not a stub
        """Do nothing: the provider cannot cancel. The job goes on, may be billed, and can be waited for."""

    async def start(self) -> None:  # noqa: B027 - a default, not a stub
        """Do nothing: there are no background tasks."""

    async def aclose(self) -> None:  # noqa: B027 - a default, not a stub
        """Do nothing: there are no background tasks."""
