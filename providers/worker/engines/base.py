"""The contract of an engine, which turns one image into another in a thread of the worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | bytes
"""An image is its bytes as received, not inspected."""

Progress: TypeAlias = Callable[[str], None]
"""Adds a line to the logs of the prediction. May be called from the engine's thread."""

Cancelled: TypeAlias = Callable[[], bool]
"""Whether the run should stop. Cheap; may be called from any thread."""


class RunCancelled(Exception):
    """The engine stopped a run because it was cancelled."""


class EngineFailure(Exception):
    """The run failed for a reason that concerns the client, such as an image that cannot be decoded."""


class InputRejected(Exception):
    """The engine rejects the value of the input `field`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[type[InputRejected], tuple[str, str]]:
        # Pickled when the engine runs on another machine.
        return InputRejected, (self.field, self.message)


class WeightsUnusable(Exception):
    """The engine cannot start with its configuration: the message says what is wrong and what to do."""


class EngineBroken(Exception):
    """The engine cannot run anymore, for example after a GPU fault; the worker accepts no more work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One input of an engine.

    `minimum` and `maximum` are inclusive. An optional field without a default is absent from the inputs if
    the client does not set it.
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
    """The operator's limits: the pixels of one output image."""

    max_output_pixels: int = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The result of a run: an encoded image, its media type, and its pixels for the metrics (0: not counted).

    `notes` are sentences for the client about deviations from the request.
    """

    data: bytes = field(repr=False)
    mime: str
    pixels: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An engine's use of a device: memory in bytes, and the number of tiles processed at once."""

    name: str
    total_bytes: int
    used_bytes: int
    peak_bytes: int
    tile_batch: int


class Engine(ABC):
    """An engine that a worker runs.

    `name` is the title of the OpenAPI document, by which gateways identify the model; `inputs` keep their order. An
    engine with settings receives them as a mapping, and raises WeightsUnusable if they are invalid.
    """

    name: str
    version: str
    inputs: Mapping[str, Field]

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        if options:
            raise WeightsUnusable(f"the engine {self.name} has no settings; remove {', '.join(sorted(options))}")

    @property
    def model(self) -> str:
        """The model named in responses: the engine, and its weights if any."""
        return self.name

    @property
    def slots(self) -> int | None:
        """The suitable number of concurrent predictions; None: the number of CPUs."""
        return None

    def devices(self) -> Sequence[Device]:
        """Return the state of its devices, for metrics. May be called from any thread."""
        return ()

    @abstractmethod
    def load(self, limits: EngineLimits) -> None:
        """Prepare to run: called once, in a thread, before any run. An exception is reported as SETUP_FAILED."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Value], progress: Progress, cancelled: Cancelled) -> Output:
        """Run with inputs that were validated against `inputs`. Called from one thread per slot.

        Checks `cancelled` between stages, so that the slot is soon free, and then raises RunCancelled. Raises
        EngineFailure, InputRejected and EngineBroken; any other exception also fails the prediction, with its text.
        """


class Notes:
    """Collects notes for the client, and also adds each to the logs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._notes: list[str] = []

    def __call__(self, note: str) -> None:
        self._progress(note)
        self._notes.append(note)

    def on(self, output: Output) -> Output:
        """Return the output with the collected notes."""
        return replace(output, notes=tuple(dict.fromkeys(self._notes)))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name: some libraries write pages of text."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def stop_if(cancelled: Cancelled) -> None:
    """Raise RunCancelled if the run should stop."""
    if cancelled():
        raise RunCancelled
