"""The composition root: builds the State, lists the routes, and shuts down gracefully within the grace time."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway import process, registry
from gateway.api.openapi import pages
from gateway.api.routes import routers
from gateway.auth.authenticator import Authenticator
from gateway.auth.first_key import keys_of, policy_of
from gateway.auth.keys import AuthPolicy, StaticKeys
from gateway.auth.rate_limits import RateLimiter
from gateway.http import image_urls
from gateway.http.admission import AdmissionControl
from gateway.http.auth import AuthenticationMiddleware, guarded_paths
from gateway.http.errors import ApiError, on_api_error, on_crash, on_http_exception, on_validation_error
from gateway.http.middleware import CorsMiddleware, RequestMiddleware
from gateway.imaging.pool import ImagePool, InputLimits
from gateway.imaging.processes import DecoderProcesses, ProcessLimits
from gateway.jobs.attempts import AttemptRunner
from gateway.jobs.context import Address
from gateway.jobs.errors import DisconnectPolicy
from gateway.jobs.executor import Executor
from gateway.jobs.manager import JobManager
from gateway.jobs.received import Received, spools
from gateway.jobs.recovery import RecoveryLoop
from gateway.ledger.open import open_ledger
from gateway.ledger.reports import Reports
from gateway.process import return_what_is_freed, tend
from gateway.routing.breaker import Breakers
from gateway.routing.pricing import MICROS, RunStatsStore
from gateway.settings import GatewaySettings
from gateway.settings.loader import SHIPPED, Config, load
from gateway.settings.types import secret_text
from gateway.state import State
from gateway.storage import FileStorage, open_store
from gateway.telemetry import metrics
from gateway.telemetry.logs import event, set_up
from gateway.webhooks.sender import CONNECTIONS, WebhookSender
from gateway.webhooks.signing import SigningKeys, open_secrets
from providers.base import Provider
from providers.clock import CLOCK, Clock
from providers.http import client as http
from providers.http.client import VERSION
from providers.http.download import downloads_client, untrusted_client
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from providers.memory import MemoryBudget

# Of the grace time: for whom a job is still finished, and until when everything else has to be handed over. What is
# left is for the answers, for the last writes, and for the server itself.
_FINISH, _LAST = 0.7, 0.9


class GracefulShutdown:
    """Handles the termination signal before the server does: the server waits for requests, and those wait for jobs.

    Signals are only delivered to the main thread; elsewhere the shutdown begins with `finish`.
    """

    def __init__(self, jobs: JobManager, keeper: RecoveryLoop, grace_s: float) -> None:
        self._jobs = jobs
        self._keeper = keeper
        self._grace_s = grace_s
        self._began: float | None = None
        self._before: dict[int, Any] = {}
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._heard:
                signal.signal(number, before)

    async def finish(self) -> None:
        """Wait for the jobs, or hand them over to other processes once the grace time is used up."""
        self._begin()
        assert self._began is not None
        await self._keeper.close(self._began + _FINISH * self._grace_s, self._began + _LAST * self._grace_s)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin)
        before = self._before[number]
        if callable(before):
            before(number, frame)

    def _begin(self) -> None:
        if self._began is None:
            self._began = self._jobs.clock.now()
            self._jobs.leaving.set()
            # Handlers that wait for a job are sent away then: the server waits for them.
            self._loop.call_later(_FINISH * self._grace_s, self._jobs.shutting_down.set)


_LAG_INTERVAL_S = 0.25
# Under the 5 seconds after which common servers close an idle connection.
_KEEPALIVE_S = 4.0
# A decoder by itself, and what it needs for a pixel: before, after, and the steps between.
_DECODER_BYTES, _DECODER_PIXEL_BYTES = 512 << 20, 24


def create() -> ASGIApp:
    """The application, configured by the environment, as the server loads it."""
    set_up()
    return_what_is_freed()
    config = load(Path(os.environ.get("DARKROOM_CONFIG", SHIPPED)), os.environ)
    return build(config, os.environ)


def build(config: Config, environ: Mapping[str, str], *, clock: Clock = CLOCK) -> ASGIApp:
    """The application for a config. Nothing is opened before its lifespan begins.

    Raises ConfigError.
    """
    keys = keys_of(environ)
    policy = policy_of(config, environ, keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(config, environ, keys, policy, clock) as state:
            app.state.darkroom = state
            yield

    settings = config.gateway
    served = routers(metrics=settings.metrics_port is None)
    app = FastAPI(
        # The document is made here, with its own rights.
        openapi_url=None,
        exception_handlers={
            ApiError: on_api_error,
            RequestValidationError: on_validation_error,
            HTTPException: on_http_exception,
            Exception: on_crash,
        },
    )
    app.router = AuthenticationMiddleware(  # type: ignore[assignment]  # it routes, and declares nothing itself
        guarded_paths([*served, pages(config, VERSION, served)] if settings.docs else served),
        lifespan=lifespan,
        authenticator=lambda: app.state.darkroom.authenticator,
        hosts=settings.allowed_hosts,
    )
    inner: ASGIApp = app
    if settings.cors_origins:
        inner = CorsMiddleware(inner, settings.cors_origins)
    return RequestMiddleware(inner, settings)


@asynccontextmanager
async def running(
    config: Config, environ: Mapping[str, str], keys: StaticKeys, policy: AuthPolicy, clock: Clock = CLOCK
) -> AsyncIterator[State]:
    """A State with everything open, and its background tasks running."""
    settings = config.gateway
    async with AsyncExitStack() as stack:
        stack.callback(metrics.forget_process)
        url_policy = UrlPolicy(allow=frozenset(settings.url_allow))
        client = await stack.enter_async_context(http.client())
        downloads = await stack.enter_async_context(downloads_client(url_policy))
        strangers = _strangers(settings)
        callers = await stack.enter_async_context(
            untrusted_client(strangers, accept="*/*", max_connections=CONNECTIONS, keepalive_s=_KEEPALIVE_S)
        )
        images = await stack.enter_async_context(downloads_client(strangers, max_connections=image_urls.CONNECTIONS))
        imaging = ImagePool(
            max_pixels=settings.max_in_flight_pixels,
            max_waiting=settings.max_waiting_pixels,
            limits=InputLimits(max_pixels=settings.max_input_pixels, max_side=settings.max_side),
            max_result_pixels=settings.max_output_pixels,
            decoders=DecoderProcesses(_bounds(settings)) if settings.image_isolation == "process" else None,
        )
        stack.callback(imaging.close)
        providers = registry.build(
            registry.ProviderParts(
                config=config,
                environ=environ,
                http=client,
                downloads=downloads,
                url_policy=url_policy,
                pace=Pace(clock),
            )
        )
        for provider in providers.values():
            await provider.start()
            stack.push_async_callback(provider.aclose)
        data = Path(environ.get("DARKROOM_DATA", ".darkroom"))
        ttl = timedelta(seconds=settings.files_ttl_s)
        store = open_store(settings.files_url, data)
        stored = FileStorage(store, ttl=ttl)
        received = Received(spools(store if settings.files_url else None, data))
        ledger = await stack.enter_async_context(open_ledger(settings, data))
        rates = RateLimiter(secret_text(settings.limits_url))
        stack.push_async_callback(rates.aclose)
        authenticator = Authenticator(
            keys,
            ledger.database,
            rates,
            policy=policy,
            cache_s=settings.key_cache_s,
        )
        breakers = Breakers(settings.breaker(), time.monotonic)
        learning = RunStatsStore()
        executor = Executor(
            calls=AttemptRunner(
                providers=providers,
                attempt_timeout=settings.attempt_timeout_s,
                late=settings.late_result_s,
                clock=clock,
                room=MemoryBudget(settings.max_in_flight_result_bytes),
            ),
            imaging=imaging,
            breakers=breakers,
            learning=learning,
            keep=stored.keep,
            load=stored.load,
            received=received,
            max_duplicate=int(settings.max_duplicate_usd * MICROS)
            if settings.on_unknown_outcome == "failover"
            else None,
        )
        reports = Reports(ledger.database, key_ttl_s=settings.idempotency_ttl_s, join_window_s=settings.join_window_s)
        secrets = await open_secrets(ledger.database, secret_text(settings.webhook_secret))
        jobs = JobManager(executor, ledger, rules=_rules(config), address=_address(settings.public_url, secrets))
        postman = WebhookSender(ledger.database, callers, strangers, secrets, messages_ready=ledger.messages_ready)
        # It ends after the jobs: their callers are told as well.
        stack.push_async_callback(_stop, asyncio.create_task(tend("postman", postman.run)))
        keeper = RecoveryLoop(jobs, lease_s=settings.lease_s)
        # So does this: a process that ends has its jobs, and renews its lease, until it has handed them over.
        stack.push_async_callback(_stop, asyncio.create_task(tend("jobs", keeper.keep)))
        beside: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "sweep": stored.sweep_for_ever,
            "sweep received": partial(received.sweep_for_ever, ttl),
            "watch": partial(_watch, providers),
            "purge": partial(reports.purge_for_ever, settings.ledger_ttl_s, settings.parameters_ttl_s),
        }
        closing = stack.enter_context(GracefulShutdown(jobs, keeper, settings.grace_s))
        stack.push_async_callback(closing.finish)
        for name, work in beside.items():
            stack.push_async_callback(_stop, asyncio.create_task(tend(name, work)))
        # anyio imports its half of asyncio with its first call: 25 ms that would keep the loop from the first jobs.
        await anyio.to_thread.run_sync(int)
        # What is there now stays: without this a full collection holds the event loop for tens of milliseconds.
        gc.collect()
        gc.freeze()
        # A call makes thousands of objects, hardly any in circles: the usual threshold looks seven times as often.
        gc.set_threshold(5000, 10, 10)
        most_jobs = process.bounded(settings.max_jobs, process.mine())
        if most_jobs < settings.max_jobs:
            event("server.few_handles", logging.WARNING, handles=process.mine(), jobs=most_jobs)
        yield State(
            config=config,
            authenticator=authenticator,
            load=AdmissionControl(
                max_bytes=settings.max_in_flight_bytes, max_jobs=most_jobs, jobs=lambda: jobs.of_keys
            ),
            providers=providers,
            imaging=imaging,
            files=stored,
            received=received,
            jobs=jobs,
            reports=reports,
            secrets=secrets,
            fetching=image_urls.ImageFetcher(client=images, url_policy=strangers, settings=settings),
            breakers=breakers,
            learning=learning,
        )


def _bounds(settings: GatewaySettings) -> ProcessLimits:
    """A decoder's limits: it may hold its largest image several times over, as samples and as files."""
    most = max(settings.max_input_pixels, settings.max_output_pixels)
    return ProcessLimits(timeout_s=settings.image_timeout_s, memory_bytes=_DECODER_BYTES + _DECODER_PIXEL_BYTES * most)


def _strangers(settings: GatewaySettings) -> UrlPolicy:
    """The rules for URLs that clients send."""
    return UrlPolicy(
        allow=frozenset(settings.url_allow),
        http=settings.url_http,
        ports=frozenset(settings.url_ports),
        hosts=frozenset(settings.url_hosts_allow),
        denied=frozenset(settings.url_hosts_deny),
        discreet=True,
    )


def _rules(config: Config) -> DisconnectPolicy:
    usual = config.gateway.on_disconnect
    by_model = {model.id: model.on_disconnect or usual for model in config.models.values()}
    return DisconnectPolicy(on_disconnect=by_model)


def _address(public_url: str | None, secrets: SigningKeys) -> Address:
    """Where providers send webhooks: nowhere, unless they can reach this server."""
    if public_url is None:
        return lambda provider, attempt: None
    return lambda provider, attempt: public_url + secrets.path(provider, attempt)


async def _watch(providers: Mapping[str, Provider]) -> None:
    """Measure the event loop's lag and the length of the providers' queues."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_INTERVAL_S
        await asyncio.sleep(_LAG_INTERVAL_S)
        metrics.LAG.observe(max(0.0, loop.time() - due))
        for name, provider in providers.items():
            metrics.QUEUE.labels(name).set(provider.queue_depth)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
