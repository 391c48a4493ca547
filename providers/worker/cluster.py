"""A worker over many machines: Cog's HTTP API in front of an engine that Ray Serve runs once per card.

A gateway sees one worker with as many slots as the maximum number of cards. Jobs beyond the running replicas wait in
Ray's queue, by which Ray decides to start more. A job whose replica dies is run again on another one.

`app` builds it: see deploy/ray/serve.yaml.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RequestCancelledError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from providers.worker.engines import base, create
from providers.worker.engines.images import lift_limit
from providers.worker.predictions import PredictionRunner
from providers.worker.server import WorkerApi
from providers.worker.settings import read

# How many times a job is tried if it loses its replica: the same image may well have caused that.
_TRIES = 3
_POLL_S = 0.1
# The interval of Ray's health checks. Until then, a replica with a fault is idle and could get the job again.
_HEALTH_S = 2.0
_MEBIBYTE = 1024 * 1024


class Arguments(BaseModel):
    """The `args` of the application in Ray Serve's config file.

    `engine` and `config` are those of `darkroom worker`; the file must exist on every machine. `num_gpus` and
    `num_cpus` are what one engine replica uses: a fraction if several share a card. A replica is added when jobs have
    waited for `upscale_delay_s` seconds, and removed after it was idle for `downscale_delay_s` seconds.
    """

    model_config = ConfigDict(extra="forbid")

    engine: str | None = None
    config: str | None = None
    max_output_pixels: int | None = Field(default=None, ge=1)
    max_body: int = Field(default=128 * _MEBIBYTE, ge=1)
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    upscale_delay_s: float = Field(default=10, ge=0)
    downscale_delay_s: float = Field(default=600, ge=0)
    num_gpus: float = Field(default=1, ge=0)
    num_cpus: float = Field(default=1, ge=0)
    drain_s: float = Field(default=300, ge=0)
    webhooks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A replica's description of its engine."""

    name: str
    version: str
    model: str
    inputs: Mapping[str, base.Field]


class Replica:
    """The engine on one card."""

    def __init__(self, arguments: Arguments) -> None:
        settings = read(Path(arguments.config) if arguments.config else None)
        name = arguments.engine or settings.engine
        lift_limit()
        self._engine = create(name, settings.options(name))
        self._engine.load(settings.limits(arguments.max_output_pixels))
        self._broken = ""

    def check_health(self) -> None:
        """Called by Ray, which replaces a replica that raises."""
        if self._broken:
            raise RuntimeError(self._broken)

    def describe(self) -> Description:
        engine = self._engine
        return Description(name=engine.name, version=engine.version, model=engine.model, inputs=dict(engine.inputs))

    async def run(self, inputs: Mapping[str, base.Value]) -> AsyncIterator[str | base.Output | Exception]:
        """Run the engine: yield its log lines, and finally its output or the exception that it raised."""
        loop, items, stop = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def emit(item: object) -> None:
            loop.call_soon_threadsafe(items.put_nowait, item)

        def work() -> None:
            try:
                emit(self._engine.run(inputs, emit, stop.is_set))
            except Exception as error:  # noqa: BLE001 - raised by the other side
                if isinstance(error, base.EngineBroken):
                    self._broken = str(error)
                emit(_portable(error))

        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            while True:
                item = await items.get()
                yield item
                if not isinstance(item, str):
                    return
        finally:
            # If the consumer has gone, the card is only free once the engine has noticed.
            stop.set()
            await asyncio.shield(running)


class Remote(base.Engine):
    """The engine as the gate sees it: it runs on a replica chosen by Ray."""

    def __init__(self, handle: Any, description: Description, slots: int) -> None:
        super().__init__()
        self._handle = handle
        self._description = description
        self._slots = slots
        self.name, self.version, self.inputs = description.name, description.version, description.inputs

    @property
    def model(self) -> str:
        return self._description.model

    @property
    def slots(self) -> int:
        return self._slots

    def load(self, limits: base.EngineLimits) -> None:
        """Do nothing: the gate starts when a replica has loaded."""

    def run(self, inputs: Mapping[str, base.Value], progress: base.Progress, cancelled: base.Cancelled) -> base.Output:
        for number in range(1, _TRIES + 1):
            try:
                return self._once(inputs, progress, cancelled)
            except (RayActorError, BackPressureError, base.EngineBroken) as error:
                base.stop_if(cancelled)
                # Only one replica is affected: Ray replaces it, and others exist.
                reason = str(error) if isinstance(error, base.EngineBroken) else type(error).__name__
                if number == _TRIES:
                    raise base.EngineFailure(f"the job's replica was lost {number} times: {reason}") from error
                progress(f"the replica was lost ({reason}); the job is run again on another one")
                time.sleep(3 * _HEALTH_S if isinstance(error, base.EngineBroken) else _POLL_S)
        raise AssertionError

    def _once(
        self, inputs: Mapping[str, base.Value], progress: base.Progress, cancelled: base.Cancelled
    ) -> base.Output:
        answer = self._handle.options(stream=True).run.remote(inputs)
        with _watched(answer, cancelled):
            try:
                for item in answer:
                    if isinstance(item, str):
                        progress(item)
                    elif isinstance(item, base.Output):
                        return item
                    else:
                        raise item
            except (RequestCancelledError, TaskCancelledError) as error:
                raise base.RunCancelled from error
            except RayTaskError as error:
                raise base.EngineFailure(f"the replica failed: {error.cause}") from error
        base.stop_if(cancelled)
        raise base.EngineFailure("the replica ended without an image")


def app(args: Mapping[str, object]) -> Any:
    """Build the application, with `args` as Arguments has them: `import_path: providers.worker.cluster:app`."""
    chosen = Arguments.model_validate(args)
    engine = serve.deployment(
        Replica,
        name="engine",
        # One job per card: the next one waits here, where it can be cancelled.
        max_ongoing_requests=1,
        max_queued_requests=chosen.max_replicas,
        autoscaling_config={
            "min_replicas": chosen.min_replicas,
            "max_replicas": chosen.max_replicas,
            "target_ongoing_requests": 1,
            "upscale_delay_s": chosen.upscale_delay_s,
            "downscale_delay_s": chosen.downscale_delay_s,
        },
        ray_actor_options={"num_gpus": chosen.num_gpus, "num_cpus": chosen.num_cpus},
        graceful_shutdown_timeout_s=chosen.drain_s,
        health_check_period_s=_HEALTH_S,
    )
    gate = serve.deployment(
        serve.ingress()(ReplicaGate),
        name="gate",
        # A single one, because it holds the predictions.
        num_replicas=1,
        # Health checks and cancels arrive in addition to the jobs, which the slots limit.
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=chosen.drain_s,
    )
    return gate.bind(engine.bind(chosen), chosen)


class ReplicaGate:
    """Cog's routes. Ray requests the app once a replica has described its engine."""

    def __init__(self, handle: Any, arguments: Arguments) -> None:
        self._handle, self._arguments = handle, arguments

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        description = await self._handle.describe.remote()
        slots = self._arguments.max_replicas
        worker = PredictionRunner(Remote(self._handle, description, slots), slots=slots, limits=base.EngineLimits())
        api = WorkerApi(
            worker, max_body=self._arguments.max_body, allow_webhooks=self._arguments.webhooks, allow_shutdown=False
        )
        return _sending_bytes(api.app)


@contextmanager
def _watched(answer: Any, cancelled: base.Cancelled) -> Iterator[None]:
    """Cancel the remote call when its job is cancelled: the thread waiting for its result cannot check that."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            if cancelled():
                answer.cancel()
                return

    watcher = threading.Thread(target=watch, name="watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _sending_bytes(app: ASGIApp) -> ASGIApp:
    """Convert memory views to bytes: Ray sends responses to another process and cannot pickle views."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if isinstance(body := message.get("body"), memoryview):
                message = {**message, "body": body.tobytes()}
            await send(message)

        await app(scope, receive, sent)

    return wrapped


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent between processes: one of the contract's, or an EngineFailure with its text."""
    if isinstance(error, base.InputRejected | base.EngineFailure | base.RunCancelled | base.EngineBroken):
        return error
    return base.EngineFailure(f"{type(error).__name__}: {error}")
