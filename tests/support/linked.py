"""Who orders a job, and the door that its webhooks come to, as the tests of several adapters need them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import override

from providers.base import AttemptContext, Handle, PendingSubmit, Provider, UpstreamJob
from providers.clock import CLOCK, Clock
from providers.errors import ProviderError
from tests.simulators.common import serve
from tests.support.fake_cog import until


class Refused(Exception):
    """What `sending` raises where nothing may be bought."""


class Told(AttemptContext):
    """A link that writes down what it is told. With `refuses` nothing may be sent."""

    def __init__(self, webhook: str | None = None, *, refuses: bool = False) -> None:
        self.webhook = webhook
        self.refuses = refuses
        self.sent: list[Mapping[str, str]] = []
        self.at_sending: list[int] = []
        self.shares: list[float] = []
        self.slept = 0

    @override
    async def sending(self, data: Mapping[str, str]) -> None:
        self.sent.append(json.loads(json.dumps(data)))
        if self.refuses:
            raise Refused

    @override
    def progress(self, share: float) -> None:
        self.shares.append(share)

    @override
    async def sleep(self, seconds: float, clock: Clock = CLOCK) -> None:
        self.slept += 1
        await clock.sleep(seconds)


async def crashed(provider: Provider, job: UpstreamJob, link: Told, arrived: Callable[[], object]) -> PendingSubmit:
    """Submit a job and die once it has arrived, before its answer. What is left is what was written down."""
    at = time.time()
    task = asyncio.create_task(provider.submit(job, link))
    await until(arrived)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return PendingSubmit(id=job.id, upstream=job.upstream, at=at, data=link.sent[0])


def stored(handle: Handle | None) -> Handle:
    """A handle that was written down and read again."""
    assert handle is not None
    data = json.loads(json.dumps(dict(handle.data)))
    assert all(isinstance(value, str) for value in data.values())
    return Handle(provider=handle.provider, id=handle.id, data=data, held=handle.held)


def bill(error: ProviderError) -> tuple[int | None, bool | None]:
    """What an error says of money: the micro-dollars, and whether any were spent."""
    return error.cost, error.billed


@dataclass
class Door:
    """What came to a webhook's address. `status` is how it is answered."""

    url: str = ""
    status: int = 200
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def events(self, name: str) -> list[object]:
        """What the messages say under a name."""
        return [json.loads(body).get(name) for _, body in list(self.came)]


@contextmanager
def door() -> Iterator[Door]:
    """Serve a door until the block ends."""
    made = Door()

    async def endpoint(request: Request) -> Response:
        made.came.append((dict(request.headers), await request.body()))
        return Response(status_code=made.status)

    with serve(Starlette(routes=[Route("/hooks/{name}", endpoint, methods=["POST"])])) as served:
        made.url = f"{served.url}/hooks/attempt-1"
        yield made
