"""A link that writes down what an adapter says, and a place that webhooks come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import override

from providers.base import AttemptContext
from providers.clock import CLOCK, Clock
from providers.errors import ProviderError
from tests.simulators.common import serve


class Told(AttemptContext):
    """Writes down notes, shares and naps. `before` is called when a note is given, and may raise."""

    def __init__(self, *, webhook: str | None = None, before: Callable[[], None] = lambda: None) -> None:
        self.webhook = webhook
        self.before = before
        self.notes: list[dict[str, str]] = []
        self.shares: list[float] = []
        self.naps: list[float] = []

    @override
    async def sending(self, data: Mapping[str, str]) -> None:
        self.before()
        self.notes.append(dict(data))

    @override
    def progress(self, share: float) -> None:
        self.shares.append(share)

    @override
    async def sleep(self, seconds: float, clock: Clock = CLOCK) -> None:
        self.naps.append(seconds)
        await clock.sleep(min(seconds, 0.05))


class Refused(Exception):
    """The note could not be written down."""


def refuse() -> None:
    raise Refused


def free_of_charge(error: ProviderError) -> bool:
    """Whether an error says that nothing was paid."""
    return error.cost == 0 and error.billed is False


class Letterbox:
    """What came to `url`. The first requests are answered with `refusals`."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.refusals: list[int] = []

    async def take(self, request: Request) -> Response:
        self.got.append((dict(request.headers), await request.body()))
        return Response(status_code=self.refusals.pop(0) if self.refusals else 200)


@contextmanager
def letterbox() -> Iterator[Letterbox]:
    """Serve a place for webhooks until the block ends."""
    box = Letterbox()
    with serve(Starlette(routes=[Route("/hooks/{secret}", box.take, methods=["POST"])])) as served:
        box.url = f"{served.url}/hooks/a?b=c&d"
        yield box
