"""What the ledger keeps, as frozen values, and how they become JSON and are read back."""

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
# A larger alpha channel is not kept beside an attempt: a picture that is finished after a restart is opaque then, and
# says so. That of a drawing has a few kilobytes.
_MOST_ALPHA_BYTES = 4 << 20
# What stands in a stored handle of a job that has succeeded and whose pictures are to be fetched.
_SUCCEEDED = "succeeded"
STATES: tuple[State, ...] = get_args(State)
GOING: frozenset[str] = frozenset({"submitting", "submitted"})
"""The states of an attempt that goes on."""
ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job as it was asked for. Times are in seconds since the epoch, `estimate` is in micro-dollars.

    `key` is the id of the caller's API key, `quota` what the ledger holds it to. `params` are the parameters
    without pictures, `delivery` how the answer is to be given: both are the front door's, and only kept here.
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
    """When the request's headers had been read. The job is created once the whole of it has been."""
    retry: int = 0
    """Which repetition of a call by its SDK this is, 0 for a first call."""
    idempotency_key: str | None = None
    request_id: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    webhook_events: tuple[str, ...] = ()
    quota: Quota | None = None
    reserve: int = 0
    """What it may cost, in micro-dollars; 0 where that is the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """What has to become of the pictures of one call: enough to finish them in another process."""

    output: Size | None = None
    finish: tuple[Step, ...] = ()
    pictures_per_call: int = 1
    notes: tuple[str, ...] = ()
    degraded: bool = False
    seed: int | None = None
    """The seed that was sent for them; None where the route has none."""
    left_out: tuple[str, ...] = ()
    """Names of steps that only a newer version knows, which planned them."""

    def done(self) -> OutputSpec:
        """What is kept of it once the pictures are finished: no alpha channel of the caller's picture."""
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
        """Read back what `to_json` gave, here or in another version."""
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
    """A finished picture, and the name of the file it is kept in; None where it could not be kept.

    `seed` is what was sent for it, as a caller would give it; None where its route has none.
    """

    image: Image
    file: str | None = None
    seed: int | None = None

    def to_json(self) -> Json:
        """As JSON: everything but the bytes."""
        beside = {"file": self.file, "bytes": len(self.image.data), "seed": self.seed}
        return {**beside, **fields_of(self.image.header)}


def picture_of(kept: Json, data: bytes) -> StoredImage:
    """A picture that was kept, with its bytes."""
    return StoredImage(image=Image(data=data, header=header_from(kept)), file=kept["file"], seed=kept.get("seed"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One upstream call as it went. `cost` is in micro-dollars, `actual` false where it is only the estimate."""

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
    """An attempt as the ledger has it: a call that was, or is, at a provider."""

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
    """What it may cost, in micro-dollars; 0 where that is the estimate. It is not kept: it counts before a submit."""
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
        """Whether its provider is known to have said that the job has succeeded."""
        return self.handle is not None and _SUCCEEDED in self.handle.data

    def told(self) -> Attempt:
        """As callers are told of it."""
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
        """What an adapter needs to find it."""
        return PendingSubmit(
            id=self.id, upstream=self.upstream, at=self.sent_at, data=self.sent or {}, heard=self.heard
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as the ledger has it."""

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
        """How many bytes its pictures have together."""
        return sum(kept["bytes"] for kept in (self.result or {}).get("pictures", ()))

    @property
    def wants_more(self) -> bool:
        """Whether it ended with fewer pictures than it was to give: what is unknown of it may have been found since."""
        given = len((self.result or {}).get("pictures", ()))
        return self.state == "failed" or (self.state == "completed" and given < self.order.wanted)

    @property
    def spent_nothing(self) -> bool:
        """Whether it ended without a picture and without a bill: then the same call may be tried anew."""
        return self.state in ("failed", "cancelled") and not (self.error or {}).get("billed", True)


class AllFailed(Exception):
    """No route gave a picture. `causes` are the errors in the order they came, at least one."""

    def __init__(self, causes: Sequence[ProviderError], attempts: Sequence[Attempt]) -> None:
        super().__init__("; ".join(cause.message for cause in causes))
        self.causes = tuple(causes)
        self.attempts = tuple(attempts)

    def to_json(self) -> Json:
        """The causes as JSON: the attempts are kept for themselves."""
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
        """Read back what `to_json` gave."""
        return cls([_cause(cause) for cause in kept["causes"]], attempts)


class JobCancelled(Exception):
    """The job was cancelled. `attempts` tell what was billed all the same."""

    def __init__(self, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__("the job was cancelled")
        self.attempts = tuple(attempts)


class JobInterrupted(Exception):
    """The server ended before any provider had taken the job: nothing was bought."""


def _cause(kept: Json) -> ProviderError:
    kinds = {kind.__name__: kind for kind in _KINDS}
    # A word of another version: what is not known may have been billed.
    cause = kinds.get(kept["error"], Unknown)(kept["message"], retry_after=kept["retry_after"])
    cause.billed, cause.cost = kept["billed"], kept["cost"]
    return cause


def handle_to_json(handle: Handle) -> Json:
    """A handle as JSON."""
    return {"provider": handle.provider, "id": handle.id, "data": dict(handle.data), "held": handle.held}


def succeeded(handle: Handle) -> Handle:
    """A handle that says that its job has succeeded."""
    return replace(handle, data={**handle.data, _SUCCEEDED: "yes"})


def handle_of(kept: Json | None) -> Handle | None:
    """Read back what `handle_to_json` gave."""
    return known(Handle, kept) if kept else None


def upstream_to_json(upstream: Upstream) -> Json:
    """An upstream as JSON."""
    return {"model": upstream.model, "options": cast("Json", dict(upstream.options))}
