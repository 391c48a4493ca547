"""The worker process: command line, socket and signals."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from providers.worker.engines import SHIPPED, create
from providers.worker.engines.base import EngineLimits, WeightsUnusable
from providers.worker.predictions import PredictionRunner
from providers.worker.server import WorkerApi
from providers.worker.settings import VARIABLE, read

LOGGER = logging.getLogger("worker")
# Longer than the 4 to 60 s for which clients keep idle connections, so that they close first.
_KEEP_ALIVE_S = 75
# How long a cancelled run may take to stop.
_LAST_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `darkroom worker` and `python -m providers.worker`."""
    mebibyte = 1024 * 1024
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=5000, help="port to listen on; 0 is any (default: %(default)s)")
    parser.add_argument("--fd", type=_count, help="listen on this inherited socket instead")
    parser.add_argument("--parent-fd", type=_count, help="shut down when this inherited pipe is closed")
    parser.add_argument(
        "--config", type=Path, help=f"the config file (default: {VARIABLE}, or the shipped worker.toml)"
    )
    engines = ", ".join(SHIPPED)
    parser.add_argument("--engine", help=f"one of {engines}, or module:Class (default: the config's)")
    parser.add_argument(
        "--slots", type=_positive, help="concurrent predictions (default: the config's, else one per card or CPU)"
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=30.0,
        help="seconds for running predictions to finish at shutdown (default: %(default)g)",
    )
    parser.add_argument(
        "--max-body", type=_positive, default=128 * mebibyte, help="maximum bytes of a request (default: %(default)s)"
    )
    parser.add_argument(
        "--max-output-pixels",
        type=_positive,
        help=f"maximum pixels of an output image (default: the config's, or {EngineLimits().max_output_pixels})",
    )
    parser.add_argument(
        "--webhooks", action="store_true", help="allow clients to set a webhook URL for their predictions"
    )


def run(argv: Sequence[str] | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT; return its exit status: 2 for an invalid command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["weights"]:
        from providers.worker import fetch

        return fetch.run(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="darkroom worker",
        description="Run a local worker, which serves an engine over Cog's HTTP API.",
        epilog="To list and fetch the weights of an engine: darkroom worker weights --help",
    )
    add_arguments(parser)
    return main(parser.parse_args(arguments))


def main(args: argparse.Namespace) -> int:
    """Serve with arguments that `add_arguments` declared; return the exit status.

    0 after a clean shutdown; 1 if it cannot listen, or a run did not stop; 2 if the engine does not exist or its
    configuration is unusable.
    """
    began = time.monotonic()
    _log_to_stderr()
    # Imported here, because other modules import this one for its command line.
    from providers.worker.engines.images import lift_limit

    lift_limit()
    try:
        settings = read(args.config)
        name = args.engine or settings.engine
        engine = create(name, settings.options(name))
    except WeightsUnusable as error:
        LOGGER.error("%s", error)
        return 2
    try:
        listening = _listen(args)
    except OSError as error:
        where = f"{args.host} port {args.port}" if args.fd is None else f"file descriptor {args.fd}"
        LOGGER.error("cannot listen on %s: %s", where, error.strerror or error)
        return 1
    slots = args.slots or settings.slots or engine.slots or _cpus()
    worker = PredictionRunner(engine, slots=slots, limits=settings.limits(args.max_output_pixels))
    api = WorkerApi(worker, max_body=args.max_body, allow_webhooks=args.webhooks)
    config = uvicorn.Config(
        api.app,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(args.grace + _LAST_S),
    )
    server = _Server(config, worker, api, grace=args.grace, parent=args.parent_fd, began=began)
    server.run(sockets=[listening])
    if server.drained and worker.setup.status != "starting":
        return 0 if server.started else 1
    # A thread cannot be stopped from outside, and Python would wait for it.
    LOGGER.error("%s did not stop in time; exiting without waiting for it", engine.name)
    os._exit(0 if server.drained else 1)


class _Server(uvicorn.Server):
    """A server that finishes running predictions before it exits, on a signal or when its parent process ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        worker: PredictionRunner,
        api: WorkerApi,
        *,
        grace: float,
        parent: int | None,
        began: float,
    ) -> None:
        super().__init__(config)
        self.drained = True
        self._worker = worker
        self._api = api
        self._grace = grace
        self._parent = parent
        self._began = began
        self._exit_by = 0.0
        self._asked: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's handlers raise the signal again after the shutdown, which would replace exit status 0.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._shut_down)
        if self._parent is not None:
            loop.add_reader(self._parent, self._orphaned)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        self._asked = asyncio.create_task(self._on_request())
        for listening in sockets or []:
            host, port = listening.getsockname()[:2]
            seconds = time.monotonic() - self._began
            name, slots = self._worker.engine.name, self._worker.slots
            LOGGER.info("%s is listening on %s port %s with %s slots (%.2f s)", name, host, port, slots, seconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Closes the socket and waits for pending responses, then for predictions without a connection.
        await super().shutdown(sockets)
        self.drained = await self._worker.drain(self._seconds_left() + _LAST_S)

    async def _on_request(self) -> None:
        await self._api.leave.wait()
        self._shut_down()

    def _orphaned(self) -> None:
        assert self._parent is not None
        asyncio.get_running_loop().remove_reader(self._parent)
        LOGGER.info("the parent process has ended")
        self._shut_down()

    def _shut_down(self) -> None:
        if self.should_exit:
            # A second request: do not wait any longer.
            self._worker.cancel_all()
            return
        self.should_exit = True
        self._exit_by = time.monotonic() + self._grace
        self._worker.leave(self._grace)

    def _seconds_left(self) -> float:
        return max(0.0, self._exit_by - time.monotonic())


class _OneLine(logging.Formatter):
    """Writes a message, with its traceback, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(line.rstrip() for line in super().format(record).splitlines() if line.strip())


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("worker: %(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # "Started server process" and the like.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _listen(args: argparse.Namespace) -> socket.socket:
    if args.fd is not None:
        return socket.socket(fileno=args.fd)
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    return socket.create_server((args.host, args.port), family=family, backlog=2048)


def _cpus() -> int:
    """The number of CPUs that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _port(text: str) -> int:
    if not 0 <= (number := int(text)) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return number


def _seconds(text: str) -> float:
    # The comparison also rejects nan.
    if not 0 <= (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return number


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
