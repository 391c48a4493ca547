"""A small world: simulated providers over real HTTP, a canary, and a gateway before them, all on the loopback."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import uvicorn
from openai import APIStatusError, OpenAI
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import override

from gateway.app import build
from gateway.cli.serve import protocol
from gateway.settings.loader import SHIPPED, Config, load
from providers.clock import CLOCK, Clock
from tests.simulators.base import Simulated, asking, wiring
from tests.simulators.clouds import borrowed
from tests.simulators.common import Served, serve, tiny
from tests.support.ports import listener

# Stands for the canary's `host:port` wherever it occurs in an address.
CANARY = "canary.invalid:1"
# Stands for the gateway's own `host:port`, as in its public address.
SELF = "self.invalid:1"
# Short, so that what hangs is soon over; breakers that never open, so that one request does not show in the next.
PATIENCE: Mapping[str, str] = {
    "DARKROOM_GATEWAY__DEADLINE_S": "10",
    "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "5",
    "DARKROOM_GATEWAY__SUBMIT_TIMEOUT_S": "2",
    "DARKROOM_GATEWAY__POLL_TIMEOUT_S": "1",
    "DARKROOM_GATEWAY__DOWNLOAD_TIMEOUT_S": "2",
    "DARKROOM_GATEWAY__GRACE_S": "1",
    "DARKROOM_GATEWAY__MAX_RESULT_BYTES": "2000000",
    "DARKROOM_GATEWAY__MAX_OUTPUT_PIXELS": "4000000",
    "DARKROOM_GATEWAY__MAX_INPUT_PIXELS": "4000000",
    "DARKROOM_GATEWAY__BREAKER_UNREACHED": "1000",
    "DARKROOM_GATEWAY__BREAKER_FAILURES": "1000",
    "DARKROOM_PROVIDERS__LOCAL__WORKERS": "[]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a caller got. `text` is the whole of it, headers included, to look for what must not be there."""

    status: int
    headers: Mapping[str, str]
    body: Any = field(repr=False)
    text: str = field(repr=False)

    @property
    def code(self) -> str | None:
        """The error's code; None for a good answer."""
        error = self.body.get("error")
        return error["code"] if error else None

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """Every attempt, whether the answer is good or bad."""
        holder = self.body.get("error", self.body)
        found: list[dict[str, Any]] = (holder.get("metadata") or {}).get("attempts", [])
        return found

    @property
    def story(self) -> list[str]:
        """Provider and outcome of each attempt."""
        return [f"{attempt['provider']} {attempt['outcome']}" for attempt in self.attempts]

    @property
    def images(self) -> list[bytes]:
        """The pictures' bytes, from their base64."""
        return [base64.b64decode(item["b64_json"], validate=True) for item in self.body["data"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A running gateway, the providers behind it by name, and where nobody should ever call."""

    url: str
    sims: Mapping[str, Simulated]
    canary: Canary
    stops: Mapping[str, ExitStack]

    def stop(self, name: str) -> None:
        """Take a provider off the net, in the middle of whatever it does."""
        self.stops[name].close()

    def edit(self, image: bytes | None = None, *, routing: Any = None, retries: int = 2, **fields: Any) -> Answer:
        """Call `images.edit` of the official SDK, its own retries included. `routing` goes into the header."""
        headers = {"x-darkroom-routing": routing} if isinstance(routing, str) else {}
        fields = {"model": "clarity-upscaler", "prompt": "a cup", "image": ("in.png", image or tiny()), **fields}
        with OpenAI(base_url=f"{self.url}/openai/v1", api_key="none", max_retries=retries, timeout=60) as client:
            try:
                raw = client.images.with_raw_response.edit(**fields, extra_headers=headers)
                response = raw.http_response
            except APIStatusError as error:
                response = error.response
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        return Answer(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=response.json(),
            text=f"{head}\n{response.text}",
        )

    def dry_run(self, **fields: Any) -> Any:
        """Ask which routes would be tried for a 24 x 16 picture."""
        given = {"model": "clarity-upscaler", "prompt": "a cup", "width": "24", "height": "16", **fields}
        files = {name: (None, str(value)) for name, value in given.items()}
        return httpx.post(f"{self.url}/openai/v1/images/edits?dry_run=true", files=files).json()

    def metric(self, name: str, *, key: str = "none", **labels: str) -> float:
        """The sum of all samples of this name that have these labels. `key` is the admin's, where there are keys."""
        answer = httpx.get(f"{self.url}/metrics", headers={"authorization": f"Bearer {key}"})
        families = text_string_to_metric_families(answer.text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def taken(self, name: str) -> int:
        """How many jobs a provider took."""
        return len(self.sims[name].books.taken)

    def billed(self, name: str) -> int:
        """How many jobs a provider bills."""
        return self.sims[name].books.billed

    def strayed(self) -> list[str]:
        """Every credential that came where none belongs, and every request to the canary."""
        found = list(self.canary.seen)
        for name, sim in self.sims.items():
            found += [f"a key at the delivery of {name}" for _ in sim.strays]
        return found


@dataclass(slots=True)
class Canary:
    """A listener at an address that nothing may follow. It writes down whoever comes."""

    url: str = ""
    seen: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Canary]:
        """Listen until the block ends."""

        async def anything(request: Request) -> Response:
            self.seen.append(f"{request.method} {request.url}")
            return Response(tiny(48, 32), media_type="image/png")

        methods = ["GET", "HEAD", "POST", "PUT", "DELETE"]
        with serve(Starlette(routes=[Route("/{path:path}", anything, methods=methods)])) as served:
            self.url = served.url
            yield self


class _Gateway(uvicorn.Server):
    """uvicorn in a thread: the signals are pytest's."""

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @override
    async def main_loop(self) -> None:
        while not self.should_exit:  # noqa: ASYNC110 - it is set from another thread
            await asyncio.sleep(0.02)


@contextmanager
def gateway(config: Path, environ: Mapping[str, str], *, clock: Clock = CLOCK) -> Iterator[Served]:
    """Serve the gateway's own application on a free port until the block ends, its lifespan included."""
    listening = listener()
    origin = f"127.0.0.1:{listening.getsockname()[1]}"
    environ = {name: text.replace(SELF, origin) for name, text in environ.items()}
    loaded = _loaded(config, environ)
    settings = uvicorn.Config(
        build(loaded, environ, clock=clock),
        http=protocol(loaded.gateway),
        lifespan="on",
        log_config=None,
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = _Gateway(settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the gateway did not start"
            thread.join(0.005)
        yield Served(url=f"http://{origin}", origin=origin)
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive(), "the gateway did not stop"
        listening.close()


def _loaded(folder: Path, environ: Mapping[str, str]) -> Config:
    """The config; the shipped one is read once for the same settings, as most gateways of the tests have those."""
    given = {name: text for name, text in environ.items() if name.startswith("DARKROOM_") and "__" in name}
    if folder == SHIPPED and not any(name.endswith("_FILE") for name in given):
        return _shipped(tuple(sorted(given.items())))
    return load(folder, environ)


@lru_cache(maxsize=64)
def _shipped(given: tuple[tuple[str, str], ...]) -> Config:
    return load(SHIPPED, dict(given))


@contextmanager
def world(
    *names: str,
    config: Path = SHIPPED,
    environ: Mapping[str, str] | None = None,
    allow: Iterable[str] = (),
    clock: Clock = CLOCK,
) -> Iterator[World]:
    """Start the named providers, a canary, and a gateway that knows them.

    `environ` wins over everything; CANARY in it is where the canary listens. `allow` are further origins, `host:port`,
    that the gateway may call. `clock` is what its waits and deadlines go by.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        canary = stack.enter_context(Canary().running())
        sims: dict[str, Simulated] = {}
        stops: dict[str, ExitStack] = {}
        for name in names:
            sims[name], stops[name] = stack.enter_context(borrowed(name))
        aimed = {
            name: text.replace(CANARY, canary.url.removeprefix("http://")) for name, text in (environ or {}).items()
        }
        settings = asking({**PATIENCE, **wiring(sims.values(), allow), "DARKROOM_DATA": folder, **aimed})
        served = stack.enter_context(gateway(config, settings, clock=clock))
        yield World(url=served.url, sims=sims, canary=canary, stops=stops)
