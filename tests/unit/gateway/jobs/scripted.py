"""Providers that do as a test says, and an executor over them."""

import asyncio
import io
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from PIL import Image as Pillow

from gateway.imaging.pool import ImagePool
from gateway.jobs.attempts import AttemptRunner
from gateway.jobs.executor import Executor
from gateway.ledger.records import Json, StoredImage
from gateway.routing.breaker import Breakers, BreakerSettings
from gateway.routing.pricing import Estimate, RunStatsStore
from gateway.routing.selection import Candidate, RouteHealth
from gateway.settings.loader import SHIPPED, load
from normalization.values import Image, Plan, Size, Transcode
from providers.base import (
    NO_CONTEXT,
    AttemptContext,
    Handle,
    Outcome,
    PendingSubmit,
    Readiness,
    Upstream,
    UpstreamJob,
    WebhookEvent,
)
from providers.clock import CLOCK, Clock
from providers.errors import ProviderError, Unfinished, Unknown

MODEL = load(SHIPPED, {}).models["lanczos-bp"]
ROUTE = MODEL.routes["local"]


def png(width: int = 8, height: int = 8) -> bytes:
    """A small picture."""
    out = io.BytesIO()
    Pillow.new("RGB", (width, height), "teal").save(out, "png")
    return out.getvalue()


@dataclass(eq=False)
class Scripted:
    """A provider that gives one prepared answer for each wait, in the order of the waits.

    `hold` keeps waits from ending, `hold_submit` submits from being answered after the job was taken. `found` is
    what `recover` gives.
    """

    name: str
    answers: deque[bytes | ProviderError]
    cost: int | None = None
    cancels: bool = True
    held: bool = False
    jobs: list[UpstreamJob] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    waited: list[str] = field(default_factory=list)
    hold: asyncio.Event | None = None
    hold_submit: asyncio.Event | None = None
    hold_upload: asyncio.Event | None = None
    lost: ProviderError | None = None
    losing: set[int] = field(default_factory=set)
    found: Handle | ProviderError | None = None
    sought: list[PendingSubmit] = field(default_factory=list)
    queue_depth: int = 0
    clock: Clock = CLOCK

    def readiness(self, upstream: Upstream) -> tuple[Readiness, str]:
        return Readiness.READY, ""

    def announced(self, upstream: Upstream) -> None:
        return None

    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        if self.hold_upload is not None:
            await self.hold_upload.wait()
        await link.sending({"for": job.id})
        self.jobs.append(job)
        if self.hold_submit is not None:
            await self.hold_submit.wait()
        if self.lost is not None:
            raise self.lost
        if job.payload.get("number") in self.losing:
            raise Unknown("lost")
        return Handle(provider=self.name, id=job.id, held=self.held)

    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        self.waited.append(handle.id)
        answer = self.answers.popleft()
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.answers.appendleft(answer)
                raise
        if isinstance(answer, Unfinished):
            await self.clock.sleep(max(0.0, deadline - self.clock.now()))
        if isinstance(answer, ProviderError):
            raise answer
        return Outcome(images=(answer,), cost=self.cost)

    async def recover(self, sent: PendingSubmit) -> Handle | None:
        self.sought.append(sent)
        if isinstance(self.found, ProviderError):
            raise self.found
        return self.found

    async def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> WebhookEvent | None:
        return WebhookEvent(id=body.decode())

    async def cancel(self, handle: Handle) -> None:
        self.cancelled.append(handle.id)
        if self.hold is not None:
            self.hold.set()

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


def provider(name: str, *answers: bytes | ProviderError, cost: int | None = None) -> Scripted:
    """A scripted provider."""
    return Scripted(name, deque(answers), cost)


def candidates(names: Iterable[str], *, n: int = 1, micros: int = 30_000) -> list[Candidate]:
    """One candidate for each provider, with n calls."""
    calls = tuple({"number": number} for number in range(n))
    plan = Plan(calls=calls, output=Size(width=8, height=8), finish=(Transcode(format="png"),))
    return [
        Candidate(
            model="made-up",
            route=ROUTE.model_copy(update={"name": name, "provider": name}),
            plan=plan,
            cost=Estimate(micros=micros * n, most=micros * n),
            condition=RouteHealth(readiness=Readiness.READY),
        )
        for name in names
    ]


class Shelf:
    """Where finished pictures are kept, in memory."""

    def __init__(self) -> None:
        self.files: dict[str, Image] = {}

    async def keep(self, image: Image) -> str | None:
        name = f"file-{len(self.files)}"
        self.files[name] = image
        return name

    async def load(self, kept: Json) -> StoredImage | None:
        image = self.files.get(kept["file"])
        return StoredImage(image=image, file=kept["file"]) if image else None


def executing(
    imaging: ImagePool,
    *providers: Scripted,
    shelf: Shelf | None = None,
    attempt_timeout: float = 0.1,
    clock: Clock = CLOCK,
) -> Executor:
    """An executor over these providers; all of them go by its clock."""
    shelf = shelf or Shelf()
    for one in providers:
        one.clock = clock
    return Executor(
        calls=AttemptRunner(
            providers={p.name: p for p in providers}, attempt_timeout=attempt_timeout, late=0.3, clock=clock
        ),
        imaging=imaging,
        breakers=Breakers(BreakerSettings(), time.monotonic),
        learning=RunStatsStore(),
        keep=shelf.keep,
        load=shelf.load,
    )
