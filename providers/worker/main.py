"""The process of a worker: its command line, its socket, its signals."""

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
# Longer than the 4 to 60 s for which clients keep idle connections: they close first, not we under their next job.
_KEEP_ALIVE_S = 75
# How long a cancelled run is given to see that it is.
_LAST_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `darkroom worker` and `python -m providers.worker` take."""
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
        "--slots", type=_positive, help="predictions at a time (default: the config's; or the CPUs, or one a card)"
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=30.0,
        help="seconds to finish what runs when told to stop (default: %(default)g)",
    )
    parser.add_argument(
        "--max-body", type=_positive, default=128 * mebibyte, help="bytes of a request (default: %(default)s)"
    )
    parser.add_argument(
        "--max-output-pixels",
        type=_positive,
        help=f"pixels of a picture that is made (default: the config's, or {EngineLimits().max_output_pixels})",
    )
    parser.add_argument(
        "--webhooks", action="store_true", help="allow callers to name an address that is told of their prediction"
    )


def run(argv: Sequence[str] | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT; return its exit status. What is wrong with the command line is 2."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["weights"]:
        from providers.worker import fetch

        return fetch.run(given[1:])
    parser = argparse.ArgumentParser(
        prog="darkroom worker",
        description="A local worker: Cog's HTTP API.",
        epilog="What an engine needs in weights, and how to get them: darkroom worker weights --help",
    )
    add_arguments(parser)
    return main(parser.parse_args(given))


def main(args: argparse.Namespace) -> int:
    """Serve with arguments that `add_arguments` declared; return the exit status.

    0 after a shutdown in which everything was answered, 1 where it cannot listen or a run had to be left behind, 2
    where there is no such engine, or it cannot be used as it is configured.
    """
    began = time.monotonic()
    _log_to_stderr()
    # Not with the command line, which others read as well.
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
    # A thread cannot be ended from outside, and Python would wait for it.
    LOGGER.error("%s does not end; it is left behind", engine.name)
    os._exit(0 if server.drained else 1)


class _Server(uvicorn.Server):
    """A server that finishes what runs before it leaves, when it is told to or when its parent is gone."""

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
        self._leave_by = 0.0
        self._asked: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own raise the signal again after the shutdown, which ends the process with the signal and not 0.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
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
            LOGGER.info("%s listens on %s port %s with %s slots (%.2f s)", name, host, port, slots, seconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Closes the socket, and waits for the answers that are owed on connections; then for what has none.
        await super().shutdown(sockets)
        self.drained = await self._worker.drain(self._seconds_left() + _LAST_S)

    async def _on_request(self) -> None:
        await self._api.leave.wait()
        self._leave()

    def _orphaned(self) -> None:
        assert self._parent is not None
        asyncio.get_running_loop().remove_reader(self._parent)
        LOGGER.info("the parent process is gone")
        self._leave()

    def _leave(self) -> None:
        if self.should_exit:
            # Told twice: whoever asks does not want to wait.
            self._worker.cancel_all()
            return
        self.should_exit = True
        self._leave_by = time.monotonic() + self._grace
        self._worker.leave(self._grace)

    def _seconds_left(self) -> float:
        return max(0.0, self._leave_by - time.monotonic())


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
    """How many CPUs this process may use, which can be fewer than the machine has."""
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
    # Not so for nan.
    if not 0 <= (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a length of time in seconds")
    return number


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
