"""`darkroom serve`: starts and stops the gateway processes and the embedded worker together."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn
from prometheus_client import start_http_server

from gateway import process
from gateway.auth.first_key import FirstKey, ensure, keys_of, policy_of
from gateway.auth.keys import AuthPolicy
from gateway.auth.store import any_in_force
from gateway.http.server import ConnectionLimits, LimitedHttpProtocol
from gateway.ledger.open import prepare_ledger
from gateway.names import EMBEDDED
from gateway.settings import GatewaySettings
from gateway.settings.errors import ConfigError, ConfigProblem
from gateway.settings.loader import SHIPPED, load
from gateway.settings.provider_keys import check_keys, configured
from gateway.telemetry import metrics

# Longer than the 4 to 60 s for which clients and proxies keep idle connections, so that they close first and no
# request arrives on a connection that we are closing.
_KEEP_ALIVE_S = 75
# A process that does not answer the supervisor within this time, in seconds, is replaced. On a busy machine, importing
# the modules alone holds the interpreter for longer than the library's default of 5.
_WORKER_S = 60
# More than the connections that one process can serve.
_FILES = 65_536


def serve(host: str, port: int, workers: int) -> int:
    """Serve until SIGTERM or SIGINT. Raises ConfigError before anything is started."""
    config = load(Path(os.environ.get("DARKROOM_CONFIG", SHIPPED)), os.environ)
    check_keys(config.providers, os.environ)
    # Done before the processes start: an unusable database is reported in one sentence, and only one process migrates.
    keys = keys_of(os.environ)
    policy = policy_of(config, os.environ, keys)
    data = Path(os.environ.get("DARKROOM_DATA", ".darkroom"))
    engine = prepare_ledger(config.gateway, data)
    with engine.begin() as connection:
        registered = any_in_force(connection)
    if config.gateway.limits_url and importlib.util.find_spec("redis") is None:
        expected = "the extra `redis`: pip install '.[redis]' in the checkout"
        found = "a Redis address, and no Redis client is installed"
        raise ConfigError([ConfigProblem("gateway.toml", "gateway.limits_url", found, expected)])
    _check_exposure(host, policy, has_keys=registered or bool(keys))
    first = ensure(engine, data, make=policy is AuthPolicy.REQUIRED and not keys)
    engine.dispose()
    # uvicorn shuts down on a signal and then raises it again: this handler turns that into exit status 0.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _exit)
    with ExitStack() as stack:
        if workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
        if config.providers.local.workers == "embedded":
            from providers.worker.supervisor import EmbeddedWorker

            worker = EmbeddedWorker([f"--max-output-pixels={config.gateway.max_output_pixels}"])
            worker.start()
            stack.callback(worker.stop, config.gateway.grace_s)
            os.environ[EMBEDDED] = worker.url
        if config.gateway.metrics_port is not None:
            stack.callback(_expose_metrics(config.gateway.metrics_host, config.gateway.metrics_port))
        _raise_files()
        _announce(host, port, _about_keys(policy, first, configured(config.providers, os.environ)))
        uvicorn.run(
            "gateway.app:create",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            lifespan="on",
            http=protocol(config.gateway),
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            # `trusted_proxies` decides whose forwarded headers count; the library would always trust this machine.
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(config.gateway.grace_s),
            timeout_worker_healthcheck=_WORKER_S,
        )
    return 0


def protocol(settings: GatewaySettings) -> type[LimitedHttpProtocol]:
    """The `http` protocol class for uvicorn, in this process and its child processes."""
    patience = ConnectionLimits(
        header_timeout_s=settings.header_timeout_s,
        send_timeout_s=settings.send_timeout_s,
        min_answer_bytes_per_s=settings.min_answer_bytes_per_s,
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
        max_connections=process.bounded(settings.max_connections, process.mine()),
        max_connections_per_address=settings.max_connections_per_address,
    )
    # uvicorn only calls it; unlike a class defined here, a partial can be pickled for a child process.
    return cast("type[LimitedHttpProtocol]", partial(LimitedHttpProtocol, patience=patience))


def _expose_metrics(host: str, port: int) -> Callable[[], None]:
    """Serve the metrics of all processes on a separate port, from a thread; return a function that stops it."""
    try:
        server, thread = start_http_server(port, host, registry=metrics.collected())
    except OSError as error:
        where = f"{host}:{port}"
        raise ConfigError(
            [ConfigProblem("gateway.toml", "gateway.metrics_port", where, f"a free port ({error})")]
        ) from None

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def _raise_files() -> None:
    """Raise the limit of open files: each connection needs one, and the usual 1024 are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _exit(number: int, frame: FrameType | None) -> None:
    # Shutdown has begun: a second signal must not interrupt it.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    raise SystemExit(0)


def _check_exposure(host: str, policy: AuthPolicy, *, has_keys: bool) -> None:
    """Raise ConfigError if requests without a key would be served to other machines."""
    if policy is AuthPolicy.REQUIRED or (has_keys and policy is not AuthPolicy.OFF):
        return
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise ConfigError([ConfigProblem("--host", "", host, f"an address of this machine ({error})")]) from None
    if all(ipaddress.ip_address(address).is_loopback for address in addresses):
        return
    if policy is AuthPolicy.OFF:
        expected = "a loopback address such as 127.0.0.1, as anybody who can reach the server could use it"
        raise ConfigError([ConfigProblem("--host", "", f'{host} and --no-auth (or auth = "none")', expected)])
    raise ConfigError(
        [
            ConfigProblem(
                "--host", "", f"{host} and no API keys", "a loopback address such as 127.0.0.1, or API keys, "
                "set in DARKROOM_API_KEYS or created with `darkroom keys create`: without keys, anybody who can reach "
                "the server could use it",
            )
        ]
    )  # fmt: skip


def _about_keys(policy: AuthPolicy, first: FirstKey | None, clouds: Sequence[str]) -> str | None:
    """The line about API keys that is printed at the start. A new key is printed this once."""
    if policy is AuthPolicy.OFF:
        spends = f" and spend your money at {', '.join(clouds)}" if clouds else ""
        return f"No API key is required: anybody who reaches this port, directly or through a proxy, can use it{spends}"
    if first is None:
        return None
    if first.key is None:
        return f"API key: stored in {first.path}"
    reason = f"requests cost money at {', '.join(clouds)}" if clouds else 'auth = "required"'
    return f"API key: {first.key} (created now because {reason}; not shown again, stored in {first.path})"


def _announce(host: str, port: int, about_keys: str | None) -> None:
    shown = f"[{host}]" if ":" in host else host
    print(f"Darkroom is listening on http://{shown}:{port}/openai/v1 (models: /openai/v1/models)", file=sys.stderr)
    if about_keys is not None:
        print(about_keys, file=sys.stderr)
