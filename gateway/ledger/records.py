"""The records of the ledger as frozen values, and their conversion to and from JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, cast, get_args

from gateway.auth.keys import Quota
from normalization.images.serialize import header_from, known, step_from, step_to
from normalization.values import Image, JoinAlpha, Size, Step, fields_of
from providers.base import Handle, PendingSubmit, Upstream
from providers.errors import Crowded, ProviderError, Unfetched, Unfinished, Unknown

State = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
Mode = Literal["plain", "stream", "background"]
Json: TypeAlias = "dict[str, Any]"

_KINDS: tuple[type[ProviderError], ...] = (*ProviderError.__subclasses__(), Crowded, Unfinished, Unfetched)
# A larger alpha channel is not stored with an attempt: an image that is processed after a restart is opaque then, with
# a note. The alpha channel of a drawing has a few kilobytes.
_MOST_ALPHA_BYTES = 4 << 20
# The marker in a stored handle that the job has succeeded and its images have to be downloaded.
_SUCCEEDED = "succeeded"
STATES: tuple[State, ...] = get_args(State)
GOING: frozenset[str] = frozenset({"submitting", "submitted"})
"""The states of a running attempt."""
ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job as it was requested. Times are in seconds since the epoch, `estimate` is in micro-dollars.

    `key` is the id of the client's API key, `quota` its limits. `params` are the parameters without images, `delivery`
    the form of the response: the API defines both, and the ledger only stores them.
    """

    id: str
    key: str
    fingerprint: str
    model: str
    mode: Mode
    params: Json = field(repr=False)
    delivery: Json
    wanted: int
    estimate: int
    created_at: float
    deadline_at: float
    arrived_at: float
    """When the request's headers had been read; `created_at` is when the whole request had been."""
    retry: int = 0
    """The SDK's retry count, 0 for a first call."""
    idempotency_key: str | None = None
    request_id: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    webhook_events: tuple[str, ...] = ()
    quota: Quota | None = None
    reserve: int = 0
    """The maximum cost in micro-dollars; 0 if that is the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """How the images of one call are processed: enough to do so in another process."""

    output: Size | None = None
    finish: tuple[Step, ...] = ()
    pictures_per_call: int = 1
    notes: tuple[str, ...] = ()
    degraded: bool = False
    seed: int | None = None
    """The seed that was sent; None if the route has none."""
    left_out: tuple[str, ...] = ()
    """Names of steps planned by a newer version that this version does not support."""

    def done(self) -> OutputSpec:
        """A copy to store once the images are processed: without the alpha channel of the client's image."""
        bare = tuple(replace(step, alpha=None) if isinstance(step, JoinAlpha) else step for step in self.finish)
        return replace(self, finish=bare)

    def to_json(self) -> Json:
        """As JSON."""
        return {
            "output": fields_of(self.output) if self.output else None,
            "finish": [_step_to_json(step) for step in self.finish],
            "pictures_per_call": self.pictures_per_call,
            "notes": list(self.notes),
            "degraded": self.degraded,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, kept: Json) -> OutputSpec:
        """Read the result of `to_json`, of this version or another one."""
        steps = [_step(step) for step in kept["finish"]]
        return cls(
            output=known(Size, kept["output"]) if kept["output"] else None,
            finish=tuple(step for step in steps if step is not None),
            pictures_per_call=kept["pictures_per_call"],
            notes=tuple(kept["notes"]),
            degraded=kept["degraded"],
            seed=kept.get("seed"),
            left_out=tuple(kept["finish"][at]["step"] for at, step in enumerate(steps) if step is None),
        )


def _step_to_json(step: Step) -> Json:
    alpha = step.alpha if isinstance(step, JoinAlpha) else None
    small = alpha is not None and len(alpha) <= _MOST_ALPHA_BYTES
    return step_to(step, base64.b64encode(alpha).decode() if alpha is not None and small else None)


def _step(kept: Json) -> Step | None:
    alpha = kept.get("alpha") if kept["step"] == "JoinAlpha" else None
    return step_from(kept, None if alpha is None else base64.b64decode(alpha))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A processed image, and the name of its file; None if it is not stored.

    `seed` is the seed that was sent for it, in the client's terms; None if its route has none.
    """

    image: Image
    file: str | None = None
    seed: int | None = None

    def to_json(self) -> Json:
        """As JSON: everything but the bytes."""
        beside = {"file": self.file, "bytes": len(self.image.data), "seed": self.seed}
        return {**beside, **fields_of(self.image.header)}


def picture_of(kept: Json, data: bytes) -> StoredImage:
    """A stored image, from its entry in the ledger and its bytes."""
    return StoredImage(image=Image(data=data, header=header_from(kept)), file=kept["file"], seed=kept.get("seed"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The report of one provider call. `cost` is in micro-dollars; `actual` is false if it is only the estimate."""

    provider: str
    model: str
    image: int
    outcome: str
    seconds: float
    cost: int = 0
    actual: bool = False
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """An attempt in the ledger: one call to a provider, running or ended."""

    id: str
    job: str
    number: int
    provider: str
    route: str
    model: str
    upstream: Upstream
    making: OutputSpec
    state: Literal["submitting", "submitted", "unknown", "ended"]
    estimate: int
    sent_at: float
    reserve: int = 0
    """The maximum cost in micro-dollars; 0 if that is the estimate. Not stored: it matters only before a submit."""
    sent: Mapping[str, str] | None = field(default=None, repr=False)
    heard: str | None = None
    handle: Handle | None = None
    outcome: str | None = None
    cost: int = 0
    actual: bool = False
    submitted_at: float | None = None
    ended_at: float | None = None
    message: str | None = None
    notes: tuple[str, ...] = ()
    files: tuple[Json, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether its provider is known to have reported success."""
        return self.handle is not None and _SUCCEEDED in self.handle.data

    def told(self) -> Attempt:
        """The attempt as it is reported to clients."""
        return Attempt(
            provider=self.provider,
            model=self.model or self.route,
            image=self.number,
            outcome=self.outcome or self.state,
            seconds=round(max(0.0, (self.ended_at or self.sent_at) - self.sent_at), 3),
            cost=self.cost,
            actual=self.actual,
            message=self.message,
        )

    def cause(self) -> ProviderError:
        """The error that it ended with."""
        kinds = {kind.__name__.lower(): kind for kind in _KINDS}
        kind = kinds.get(self.outcome or "", Unknown)
        taken = self.handle is not None
        return kind(self.message or "", cost=self.cost if taken else None, unbilled=not taken and not self.cost)

    def as_sent(self) -> PendingSubmit:
        """What an adapter needs to find the attempt's job."""
        return PendingSubmit(
            id=self.id, upstream=self.upstream, at=self.sent_at, data=self.sent or {}, heard=self.heard
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job in the ledger."""

    order: JobSpec
    state: State
    cost: int
    owner: str | None = None
    caller: str | None = None
    ended_at: float | None = None
    progress: float | None = None
    result: Json | None = None
    error: Json | None = None
    cancel_asked: bool = False
    kills: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def picture_bytes(self) -> int:
        """The size of all its images in bytes."""
        return sum(kept["bytes"] for kept in (self.result or {}).get("pictures", ()))

    @property
    def wants_more(self) -> bool:
        """Whether it ended with fewer images than requested: attempts of unknown outcome may still be found."""
        given = len((self.result or {}).get("pictures", ()))
        return self.state == "failed" or (self.state == "completed" and given < self.order.wanted)

    @property
    def spent_nothing(self) -> bool:
        """Whether it ended without an image and without a bill: then the same call may start a new job."""
        return self.state in ("failed", "cancelled") and not (self.error or {}).get("billed", True)


class AllFailed(Exception):
    """No route returned an image. `causes` are the errors in order, at least one."""

    def __init__(self, causes: Sequence[ProviderError], attempts: Sequence[Attempt]) -> None:
        super().__init__("; ".join(cause.message for cause in causes))
        self.causes = tuple(causes)
        self.attempts = tuple(attempts)

    def to_json(self) -> Json:
        """The causes as JSON; the attempts are stored separately."""
        return {
            "kind": "failed",
            "billed": any(cause.billed is not False for cause in self.causes),
            "causes": [
                {
                    "error": type(cause).__name__,
                    "message": cause.told,
                    "retry_after": cause.retry_after,
                    "billed": cause.billed,
                    "cost": cause.cost,
                }
                for cause in self.causes
            ],
        }

    @classmethod
    def from_json(cls, kept: Json, attempts: Sequence[Attempt]) -> AllFailed:
        """Read the result of `to_json`."""
        return cls([_cause(cause) for cause in kept["causes"]], attempts)


class JobCancelled(Exception):
    """The job was cancelled. `attempts` include what was billed nevertheless."""

    def __init__(self, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__("the job was cancelled")
        self.attempts = tuple(attempts)


class JobInterrupted(Exception):
    """The server ended before any provider had accepted the job: nothing was bought."""


def _cause(kept: Json) -> ProviderError:
    kinds = {kind.__name__: kind for kind in _KINDS}
    # Another version may have written an error that is unknown here: then it may have been billed.
    cause = kinds.get(kept["error"], Unknown)(kept["message"], retry_after=kept["retry_after"])
    cause.billed, cause.cost = kept["billed"], kept["cost"]
    return cause


def handle_to_json(handle: Handle) -> Json:
    """A handle as JSON."""
    return {"provider": handle.provider, "id": handle.id, "data": dict(handle.data), "held": handle.held}


def succeeded(handle: Handle) -> Handle:
    """A handle marked as succeeded."""
    return replace(handle, data={**handle.data, _SUCCEEDED: "yes"})


def handle_of(kept: Json | None) -> Handle | None:
    """Read the result of `handle_to_json`."""
    return known(Handle, kept) if kept else None


def upstream_to_json(upstream: Upstream) -> Json:
    """An upstream as JSON."""
    return {"model": upstream.model, "options": cast("Json", dict(upstream.options))}
