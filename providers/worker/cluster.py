"""A worker over many machines: Cog's HTTP API before an engine that Ray Serve runs once a card.

To a gateway it is one worker with as many slots as there may be cards. What it sends beyond those that are up waits in
Ray's own queue, which is what Ray starts more by. A job whose replica dies is run again on another.

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

# How often a job that lost its replica is run again. The next is as likely to be lost by the same picture.
_TRIES = 3
_POLL_S = 0.1
# How often Ray asks a replica how it is. One with a fault is free at once, and would be given the job again.
_HEALTH_S = 2.0
_MEBIBYTE = 1024 * 1024


class Arguments(BaseModel):
    """The `args` of the application in Ray Serve's config file.

    `engine` and `config` are those of `darkroom worker`; the file has to be on every machine. `num_gpus` and `num_cpus`
    are what one replica of the engine takes: a fraction where several share a card. Another replica is started when
    jobs have waited for `upscale_delay_s`, and one ended that had none for `downscale_delay_s`.
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
    """What a replica tells of its engine."""

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
        """Asked by Ray, which ends a replica that raises, and starts another."""
        if self._broken:
            raise RuntimeError(self._broken)

    def describe(self) -> Description:
        engine = self._engine
        return Description(name=engine.name, version=engine.version, model=engine.model, inputs=dict(engine.inputs))

    async def run(self, inputs: Mapping[str, base.Value]) -> AsyncIterator[str | base.Output | Exception]:
        """Run the engine: lines of its log as they come, and in the end its output, or what it raised."""
        loop, said, stop = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def tell(item: object) -> None:
            loop.call_soon_threadsafe(said.put_nowait, item)

        def work() -> None:
            try:
                tell(self._engine.run(inputs, tell, stop.is_set))
            except Exception as error:  # noqa: BLE001 - for the other side to raise
                if isinstance(error, base.EngineBroken):
                    self._broken = str(error)
                tell(_portable(error))

        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            while True:
                item = await said.get()
                yield item
                if not isinstance(item, str):
                    return
        finally:
            # Whoever asked is gone: the card is free only when the engine has seen it.
            stop.set()
            await asyncio.shield(running)


class Remote(base.Engine):
    """The engine as the gate sees it: it runs on whatever replica Ray chooses."""

    def __init__(self, handle: Any, told: Description, slots: int) -> None:
        super().__init__()
        self._handle = handle
        self._told = told
        self._slots = slots
        self.name, self.version, self.inputs = told.name, told.version, told.inputs

    @property
    def model(self) -> str:
        return self._told.model

    @property
    def slots(self) -> int:
        return self._slots

    def load(self, limits: base.EngineLimits) -> None:
        """Nothing: the gate starts when a replica has loaded."""

    def run(self, inputs: Mapping[str, base.Value], progress: base.Progress, cancelled: base.Cancelled) -> base.Output:
        for number in range(1, _TRIES + 1):
            try:
                return self._once(inputs, progress, cancelled)
            except (RayActorError, BackPressureError, base.EngineBroken) as error:
                base.stop_if(cancelled)
                # The card of one replica: there are others, and this one is replaced.
                why = str(error) if isinstance(error, base.EngineBroken) else type(error).__name__
                if number == _TRIES:
                    raise base.EngineFailure(f"the job was lost {number} times: {why}") from error
                progress(f"the replica was lost ({why}); the job is run again on another")
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
        raise base.EngineFailure("the replica ended without a picture")


def app(args: Mapping[str, object]) -> Any:
    """Build the application, with `args` as Arguments has them: `import_path: providers.worker.cluster:app`."""
    chosen = Arguments.model_validate(args)
    engine = serve.deployment(
        Replica,
        name="engine",
        # One job a card: the next waits here, where it can be cancelled.
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
        # It holds the predictions, so there is one.
        num_replicas=1,
        # Health checks and cancels come beside the jobs; how many those are, its slots say.
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=chosen.drain_s,
    )
    return gate.bind(engine.bind(chosen), chosen)


class ReplicaGate:
    """Cog's routes. Ray asks it for the app once it is made, which is when a replica has told what it runs."""

    def __init__(self, handle: Any, arguments: Arguments) -> None:
        self._handle, self._arguments = handle, arguments

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        told = await self._handle.describe.remote()
        slots = self._arguments.max_replicas
        worker = PredictionRunner(Remote(self._handle, told, slots), slots=slots, limits=base.EngineLimits())
        api = WorkerApi(
            worker, max_body=self._arguments.max_body, allow_webhooks=self._arguments.webhooks, allow_shutdown=False
        )
        return _sending_bytes(api.app)


@contextmanager
def _watched(answer: Any, cancelled: base.Cancelled) -> Iterator[None]:
    """Cancel a call when its job is: what waits for it only hears of that from the other side."""
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
    """Ray sends what an app answers to another process, and cannot take the views that a server would."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if isinstance(body := message.get("body"), memoryview):
                message = {**message, "body": body.tobytes()}
            await send(message)

        await app(scope, receive, sent)

    return wrapped


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: one of the contract's, or a Failure with the words of any other."""
    if isinstance(error, base.InputRejected | base.EngineFailure | base.RunCancelled | base.EngineBroken):
        return error
    return base.EngineFailure(f"{type(error).__name__}: {error}")
