"""One job for a Cog worker, as this process has it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from normalization.values import Value
from providers.base import Handle, Job
from providers.http.bodies import encoded_size
from providers.local.pool import Turn
from providers.local.responses import Made
from providers.local.workers import NAME, Worker

# Old servers repeat the whole input in each webhook: for larger pictures nobody asks for any.
_WEBHOOK_INPUT_BYTES = 1_000_000


@dataclass(slots=True, eq=False)
class Run:
    """A job, wherever it is."""

    job: Job
    turn: Turn
    id: str
    """Its id at the worker; another one when it is run again."""
    worker: Worker | None
    """Whose slot it holds; None while it waits to be let in again."""
    webhook: str | None = None
    stopping: bool = False
    expiry: asyncio.TimerHandle | None = None
    task: asyncio.Task[Made] = field(init=False)

    @property
    def handle(self) -> Handle:
        return Handle(provider=NAME, id=self.job.id, data={"worker": self.worker.url if self.worker else ""}, held=True)

    def webhook_at(self, worker: Worker) -> dict[str, Value]:
        """Return what a request to a worker says of the webhook: nothing, where that worker takes none."""
        if not self.webhook or not worker.webhooks or encoded_size(self.job.payload) > _WEBHOOK_INPUT_BYTES:
            return {}
        # Of the end, and of the output, the held answer tells.
        return {"webhook": self.webhook, "webhook_events_filter": ["start", "logs"]}
