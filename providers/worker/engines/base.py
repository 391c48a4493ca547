"""The contract of an engine: what turns a picture into another, in a thread of the worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | bytes
"""A picture is its bytes as they came, not looked into."""

Progress: TypeAlias = Callable[[str], None]
"""Adds a line to the logs of the prediction. May be called from the engine's thread."""

Cancelled: TypeAlias = Callable[[], bool]
"""Says whether the run is to end. Cheap; may be asked from any thread."""


class RunCancelled(Exception):
    """The engine saw that its run was cancelled, and ended it."""


class EngineFailure(Exception):
    """The run failed for a reason that the caller can understand, such as a picture that cannot be decoded."""


class InputRejected(Exception):
    """The run cannot be done with the value of the input `field`, as only the engine could tell."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[type[InputRejected], tuple[str, str]]:
        # Sent between processes, where the engine is on another machine.
        return InputRejected, (self.field, self.message)


class WeightsUnusable(Exception):
    """The engine cannot be started as it is configured: says what is missing or wrong, and what to do."""


class EngineBroken(Exception):
    """The engine cannot run anything any more, such as after a fault of its GPU; the worker takes no more work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One input of an engine.

    `minimum` and `maximum` are inclusive. A field that is not required and has no default is left out of the inputs
    where the caller does not give it.
    """

    type: Literal["picture", "string", "integer", "number", "boolean"]
    description: str
    required: bool = False
    default: Scalar | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What the operator allows: the pixels of one output picture."""

    max_output_pixels: int = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a run gave: an encoded picture, its media type, and its size in pixels where that is worth counting.

    `notes` are sentences for the caller about what was done otherwise than asked.
    """

    data: bytes = field(repr=False)
    mime: str
    pixels: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What an engine has taken of a device: its memory in bytes, and how many tiles it runs there at once."""

    name: str
    total_bytes: int
    used_bytes: int
    peak_bytes: int
    tile_batch: int


class Engine(ABC):
    """What a worker runs.

    `name` is the title of the OpenAPI document, by which gateways know the model; `inputs` are shown in their order.
    An engine that needs settings is made with them, as a mapping, and raises Unusable where they will not do.
    """

    name: str
    version: str
    inputs: Mapping[str, Field]

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        if options:
            raise WeightsUnusable(f"the engine {self.name} has no settings, so no {', '.join(sorted(options))}")

    @property
    def model(self) -> str:
        """What answers say was run: the engine, and its weights where it has any."""
        return self.name

    @property
    def slots(self) -> int | None:
        """How many predictions at a time suit it; None: as many as there are CPUs."""
        return None

    def devices(self) -> Sequence[Device]:
        """Return how it stands with its devices, for a page of metrics. May be called from any thread."""
        return ()

    @abstractmethod
    def load(self, limits: EngineLimits) -> None:
        """Make ready to run: called once, in a thread, before any run. What it raises is shown as SETUP_FAILED."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Value], progress: Progress, cancelled: Cancelled) -> Output:
        """Do the work, with inputs that were checked against `inputs`. Called from as many threads as there are slots.

        Asks `cancelled` between stages, so that a slot is free soon after, and raises Stopped. Raises EngineFailure,
        InputRejected and EngineBroken; anything else fails the prediction too, with the exception's own words.
        """


class Notes:
    """Collects notes for the caller, and adds each to the logs too."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: list[str] = []

    def __call__(self, note: str) -> None:
        self._progress(note)
        self._said.append(note)

    def on(self, output: Output) -> Output:
        """Return an output with what was noted."""
        return replace(output, notes=tuple(dict.fromkeys(self._said)))


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing: libraries write pages."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def stop_if(cancelled: Cancelled) -> None:
    """Raise Stopped if the run is to end."""
    if cancelled():
        raise RunCancelled
