"""Predictions: run in slots, each in a thread of the engine."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import pybase64

from providers.worker.answers import WorkerError, around, to_json
from providers.worker.engines.base import (
    Engine,
    EngineBroken,
    EngineFailure,
    EngineLimits,
    InputRejected,
    RunCancelled,
    Value,
)
from providers.worker.metrics import Tally

LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class PredictionEnd:
    """How a run ended. `output` is the image's data URI, in pieces that need no escaping in JSON."""

    status: Literal["succeeded", "failed", "canceled"]
    output: tuple[bytes, ...] = field(default=(), repr=False)
    error: str | None = None
    unfit: InputRejected | None = None
    seconds: float = 0.0
    pixels: int = 0
    notes: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Prediction:
    """One prediction. `shown` is its input without images, for responses that echo it; `model` is what runs it."""

    id: str
    model: str
    inputs: Mapping[str, Value] = field(repr=False)
    shown: Mapping[str, object] = field(repr=False)
    logs: list[str] = field(default_factory=list)
    end: PredictionEnd | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    completed_at: datetime | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is news to report; cleared by the reporter."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to ask the engine to stop the run."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> str:
        """The status, in Cog's terms."""
        if self.end:
            return self.end.status
        return "processing" if self.started_at else "starting"

    def conclude(self, end: PredictionEnd) -> None:
        """Record the end in one step, on the event loop, where it is read."""
        self.end, self.completed_at = end, datetime.now(UTC)
        # Frees most of its memory: sending the response may still take long.
        self.inputs = {}
        self.ended.set()
        self.changed.set()

    def answer(self, *, echo: bool = False) -> list[bytes]:
        """Return the prediction as JSON, in pieces; with its input if `echo`."""
        times = {"created_at": self.created_at, "started_at": self.started_at, "completed_at": self.completed_at}
        body: dict[str, object] = {
            "id": self.id,
            "model": self.model,
            "status": self.status,
            "logs": "".join(f"{line}\n" for line in self.logs),
            "metrics": {"predict_time": self.end.seconds} if self.end else {},
        }
        body |= {name: moment.isoformat() for name, moment in times.items() if moment}
        if echo:
            body["input"] = self.shown
        if self.end and self.end.notes:
            body["notes"] = list(self.end.notes)
        if self.end and self.end.error is not None:
            body["error"] = self.end.error
        if self.end and self.end.unfit:
            where = ["body", "input", self.end.unfit.field]
            body["detail"] = [{"loc": where, "msg": self.end.unfit.message, "type": "value_error"}]
        return around(body, "output", self.end.output) if self.end and self.end.output else [to_json(body)]


class Setup:
    """The state of loading the engine, as shown by `/health-check`."""

    def __init__(self) -> None:
        self.status: Literal["starting", "succeeded", "failed"] = "starting"
        self.logs = ""
        self._started_at = datetime.now(UTC)
        self._completed_at: datetime | None = None

    def end(self, status: Literal["succeeded", "failed"], logs: str) -> None:
        self.status, self.logs, self._completed_at = status, logs, datetime.now(UTC)

    def describe(self) -> dict[str, object]:
        times = {"started_at": self._started_at, "completed_at": self._completed_at}
        shown = {name: moment.isoformat() for name, moment in times.items() if moment}
        return {**shown, "status": self.status, "logs": self.logs}


class PredictionRunner:
    """An engine and its slots. For one event loop.

    A slot is taken before a request's body is read, so that the slots also limit the memory in use.
    """

    def __init__(self, engine: Engine, *, slots: int, limits: EngineLimits) -> None:
        self.engine = engine
        self.slots = slots
        self.taken = 0
        self.setup = Setup()
        self.tally = Tally()
        self.running: dict[str, Prediction] = {}
        self._limits = limits
        self._broken = False
        self._leaving = False
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="engine")
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def status(self) -> str:
        """The worker's status, in Cog's terms."""
        if self._broken:
            return "DEFUNCT"
        if self.setup.status != "succeeded":
            return "STARTING" if self.setup.status == "starting" else "SETUP_FAILED"
        return "BUSY" if self.taken >= self.slots else "READY"

    async def load(self) -> None:
        """Load the engine; if that fails, the worker keeps running and reports why."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self.engine.load, self._limits)
        except Exception as error:
            LOGGER.exception("cannot load the engine %s", self.engine.name)
            self.setup.end("failed", f"{type(error).__name__}: {error}")
        else:
            self.setup.end("succeeded", f"{self.engine.model} is loaded, version {self.engine.version}")
            LOGGER.info("%s is ready", self.engine.model)

    def take(self) -> None:
        """Take a slot. Raises WorkerError: 503 while no work is accepted, 409 if all slots are taken."""
        if self._leaving:
            raise _failed(503, "The worker is shutting down.")
        if self.status not in {"READY", "BUSY"}:
            raise _failed(503, _WHY_NOT[self.status])
        if self.taken >= self.slots:
            raise _failed(409, "At capacity - all prediction slots busy")
        self.taken += 1

    def release(self) -> None:
        """Return a slot that was taken but not used."""
        self.taken -= 1

    def begin(self, prediction: Prediction) -> None:
        """Run a prediction in the slot that was taken for it."""
        self.running[prediction.id] = prediction
        self.follow(asyncio.create_task(self._work(prediction)))

    def follow(self, task: asyncio.Task[None]) -> None:
        """Include this task in the wait before shutdown."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self, id: str) -> bool:  # noqa: A002 - the name it has on the wire
        """Ask a running prediction to stop; False if none has this id."""
        prediction = self.running.get(id)
        if prediction is not None:
            prediction.stop.set()
        return prediction is not None

    def leave(self, grace: float) -> None:
        """Stop accepting work; predictions still running after `grace` seconds are cancelled."""
        self._leaving = True
        asyncio.get_running_loop().call_later(grace, self.cancel_all)

    def cancel_all(self) -> None:
        for prediction in self.running.values():
            prediction.stop.set()

    async def drain(self, seconds: float) -> bool:
        """Wait at most `seconds` until all predictions have ended and been reported. False if a run does not end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self._pool.shutdown(wait=False)
        return not self.running

    async def _work(self, prediction: Prediction) -> None:
        loop = asyncio.get_running_loop()
        prediction.started_at = datetime.now(UTC)
        prediction.changed.set()

        def progress(line: str) -> None:
            prediction.logs.append(line)
            loop.call_soon_threadsafe(prediction.changed.set)

        end = PredictionEnd(status="failed", error="the run was interrupted")
        try:
            end = await loop.run_in_executor(self._pool, self._perform, prediction, progress)
        finally:
            prediction.conclude(end)
            self.tally.count(end.status, end.seconds, end.pixels)
            del self.running[prediction.id]
            self.taken -= 1

    def _perform(self, prediction: Prediction, progress: Callable[[str], None]) -> PredictionEnd:
        """Run the engine, in its thread, and return how it ended."""
        began = time.monotonic()
        end = PredictionEnd(status="failed")
        try:
            output = self.engine.run(prediction.inputs, progress, prediction.stop.is_set)
            end.seconds = time.monotonic() - began
            end.output = (to_json_text(f"data:{output.mime};base64,"), pybase64.b64encode(output.data))
            end.pixels, end.notes = output.pixels, output.notes
            end.status = "succeeded"
        except RunCancelled:
            end.status = "canceled"
        except InputRejected as error:
            end.error, end.unfit = f"{error.field}: {error.message}", error
        except EngineFailure as error:
            end.error = str(error)
        except EngineBroken as error:
            self._broken = True
            end.error = str(error)
            LOGGER.exception("the engine %s is broken; no more work is accepted", self.engine.name)
        except Exception as error:
            end.error = f"{type(error).__name__}: {error}"
            LOGGER.exception("a prediction failed")
        end.seconds = end.seconds or time.monotonic() - began
        return end


def to_json_text(text: str) -> bytes:
    """Return `text` escaped for use within a JSON string."""
    return to_json({"": text})[5:-2]


_WHY_NOT = {
    "STARTING": "Setup has not finished yet. Wait until it has finished, or GET /health-check for status.",
    "SETUP_FAILED": "Setup failed. GET /health-check for the reason.",
    "DEFUNCT": "The engine is broken. Restart the worker.",
}


def _failed(status: int, message: str) -> WorkerError:
    return WorkerError(status, {"error": message, "status": "failed"})
