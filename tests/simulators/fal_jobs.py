"""The jobs of a simulated fal: what a scripted word makes of one, and how it stands as time passes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulators.fal_models import Made, Shape

_POLICY = {
    "detail": [
        {
            "loc": ["body", "prompt"],
            "msg": "The content could not be processed because it contained material flagged by a content checker.",
            "type": "content_policy_violation",
            "url": "https://docs.fal.ai/errors/#content_policy_violation",
            "input": "the prompt that nobody may see",
        }
    ]
}
_INTERNAL = {"detail": [{"loc": ["body"], "msg": "Internal server error", "type": "internal_server_error"}]}
# What a job's word lets its result be: status and body.
ENDS: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "FAILED": (500, _INTERNAL),
    "POLICY": (422, _POLICY),
    "POLICY_TEXT": (422, {"detail": "Content policy violation: the prompt that nobody may see"}),
    "NO_MEDIA": (422, {"detail": [{"loc": ["body"], "msg": "No media generated", "type": "no_media_generated"}]}),
    "DOWNSTREAM": (400, {"detail": [{"loc": ["body"], "msg": "Downstream", "type": "downstream_service_error"}]}),
    "GPU": (503, {"detail": "GPU error"}),
    "SLOW_START": (504, {"detail": "Request timed out", "error_type": "request_timeout"}),
    "RUNNER": (503, {"detail": "Runner disconnected", "error_type": "runner_disconnected"}),
}
_CANCELLED = (499, {"detail": "Request cancelled by the client", "error_type": "client_cancelled"})
# What changes a job in other ways than its end: see `FalAi`.
WAYS = frozenset({"STUCK", "VANISHED", "EMPTY", "EMPTY_ONCE", "MOVED", "LOST", "REGRESS", "UNSTOPPABLE", "STUBBORN"})


@dataclass(slots=True, kw_only=True)
class Task:
    """One request in the queue, which waits for `queue_s` and runs for `run_s`. Its `word` is explained at `FalAi`."""

    id: str
    app: str
    model: str
    begun: float
    queue_s: float
    run_s: float
    made: Made
    given: Any = field(repr=False)
    shape: Shape
    word: str = ""
    quiet: bool = False
    cancelled: bool = False
    removed: bool = False
    looks: int = 0
    sent: float = field(default_factory=time.time)
    """When it came, in seconds of the wall clock."""

    def state(self) -> str:
        """Return its status as fal says it. Asking counts: some words last for a look or two."""
        self.looks += 1
        if self.word == "REGRESS" and self.looks <= 2:
            return ("IN_PROGRESS", "IN_QUEUE")[self.looks - 1]
        if self.word and self.word not in ENDS and self.word not in WAYS and self.looks == 1:
            return self.word
        if self.done():
            return "COMPLETED"
        return "IN_QUEUE" if time.monotonic() - self.begun < self.queue_s else "IN_PROGRESS"

    def done(self) -> bool:
        if self.word == "STUBBORN" or (self.word == "STUCK" and not self.cancelled):
            return False
        return self.cancelled or time.monotonic() - self.begun >= self.queue_s + self.run_s

    def logs(self) -> list[dict[str, str]]:
        """Return what its model has written so far: a progress bar for each tenth, as tqdm draws it."""
        ran = time.monotonic() - self.begun - self.queue_s
        tenths = 10 if self.run_s == 0 else max(0, min(10, int(10 * ran / self.run_s)))
        lines = [f"{10 * n:3d}%|{'#' * n:10}| {n}/10 [00:0{n % 10}<00:01]" for n in range(tenths + 1)]
        more = {"timestamp": "2026-02-17T10:30:01.123Z", "level": "STDERR", "source": "USER"}
        return [{"message": line, **more} for line in lines]

    def end(self) -> tuple[int, Mapping[str, Any]]:
        """Return status and body of what its result is, 200 for a picture."""
        return _CANCELLED if self.cancelled else (self.made.status, self.made.body)
