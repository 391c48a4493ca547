"""One simulated prediction: what it is at any moment, and what it costs."""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

ENDED = frozenset({"succeeded", "failed", "canceled", "aborted"})


@dataclass
class Prediction:
    """A prediction of one run. Times are in seconds; `word` is what becomes of it, "" for success.

    `fails` and `nsfw` end as failed, `stuck` never ends, `vanishes` is not found once it runs, `empty` and `removed`
    succeed without output, `stranger` has a status that nobody documented before it succeeds, `bare` tells no metrics
    the first time it is done, `back` goes back from succeeded to processing once.
    """

    model: str
    version: str
    input: dict[str, Any]
    boot_s: float
    run_s: float
    cancel_after_s: float = math.inf
    word: str = ""
    output: Any = None
    inline: Any = None
    webhook: str | None = None
    events: tuple[str, ...] = ()
    """What the webhook is told of."""
    id: str = field(default_factory=lambda: secrets.token_hex(13))
    created: float = field(default_factory=time.monotonic)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    cancelled: float = math.inf
    looks: int = 0
    """How often it was asked for since it is done."""

    @property
    def _started(self) -> float:
        return self.created + self.boot_s

    @property
    def _stopped(self) -> float:
        return min(self.cancelled, self.created + self.cancel_after_s)

    @property
    def _done(self) -> float:
        return math.inf if self.word == "stuck" else self._started + self.run_s

    @property
    def age(self) -> float:
        return time.monotonic() - self.created

    @property
    def ended(self) -> float:
        """When it ends, as things stand."""
        return min(self._done, self._stopped)

    @property
    def status(self) -> str:
        now = time.monotonic()
        if now >= self.ended:
            if self._done <= self._stopped:
                return "failed" if self.word in {"fails", "nsfw"} else "succeeded"
            aborted = self._stopped < self._started and self.cancelled > self._stopped
            return "aborted" if aborted else "canceled"
        if now < self._started:
            return "starting"
        return "warming-up" if self.word == "stranger" else "processing"

    @property
    def vanished(self) -> bool:
        return self.word == "vanishes" and time.monotonic() >= self._started

    @property
    def predict_time(self) -> float:
        """The seconds it has run, or will have."""
        return max(0.0, min(self.ended, time.monotonic()) - self._started)

    @property
    def error(self) -> str | None:
        if self.status != "failed":
            return None
        if self.word == "nsfw":
            return "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
        return "CUDA out of memory. Tried to allocate 20.00 GiB."

    @property
    def logs(self) -> str:
        """What the model has printed so far: a bar of tqdm, a line for each twentieth."""
        now = min(self.ended, time.monotonic())
        if now < self._started:
            return ""
        done = 20 if now >= self._done else min(19, int(20 * (now - self._started) / self.run_s))
        lines = [f"{5 * n:3d}%|{'█' * (n // 2):<10}| {n}/20 [00:00<00:00, 9.87it/s]" for n in range(done + 1)]
        return "\n".join(["Running prediction", *lines, ""])

    def shown(self, base_url: str, *, looked: bool = True) -> dict[str, Any]:
        """The object that the API answers with. Timestamps have nine digits, as its own do.

        A webhook has the same object, and is no look.
        """
        status = self.status
        ended = status in ENDED
        self.looks += ended and looked
        back = self.word == "back" and self.looks == 1
        if back:
            status, ended = "processing", False
        url = f"{base_url}/v1/predictions/{self.id}"
        made: dict[str, Any] = {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            "input": self.input,
            "logs": self.logs,
            "output": self.output if status == "succeeded" and self.word not in {"empty", "removed"} else None,
            "data_removed": self.word == "removed" and ended,
            "error": self.error,
            "status": status,
            "created_at": self._stamp(self.created),
            "urls": {"get": url, "cancel": f"{url}/cancel", "web": f"https://replicate.com/p/{self.id}"},
        }
        if self.webhook:
            made["webhook"] = self.webhook
        if status != "starting":
            made["started_at"] = self._stamp(self._started)
        if ended:
            made["completed_at"] = self._stamp(self.ended)
            if not (self.word == "bare" and self.looks == 1):
                total = self.ended - self.created
                made["metrics"] = {"predict_time": round(self.predict_time, 6), "total_time": round(total, 6)}
        return made

    def shown_in_time(self, base_url: str) -> dict[str, Any]:
        """The answer to a submit that was held open till the output was there: it says that it is at work still."""
        made = self.shown(base_url)
        if made["output"] is not None:
            made |= {"status": "processing", "output": self.inline}
            for key in ("started_at", "completed_at", "metrics"):
                made.pop(key, None)
        return made

    def _stamp(self, moment: float) -> str:
        at = self.created_at + timedelta(seconds=moment - self.created)
        return at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def file_object(name: str, kind: str, data: bytes, base_url: str) -> dict[str, Any]:
    """What the Files API answers for an upload."""
    now = datetime.now(UTC)
    key = secrets.token_urlsafe(24)
    return {
        "id": key,
        "name": name,
        "content_type": kind,
        "size": len(data),
        "etag": hashlib.md5(data).hexdigest(),
        "checksums": {"sha256": hashlib.sha256(data).hexdigest(), "md5": hashlib.md5(data).hexdigest()},
        "metadata": {},
        "created_at": now.isoformat(),
        "expires_at": (now + timedelta(days=1)).isoformat(),
        "urls": {"get": f"{base_url}/v1/files/{key}"},
    }
