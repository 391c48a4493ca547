"""Looking after one job in fal's queue: whether it has ended, and what came of it.

The queue has no word for failure. A job that failed is COMPLETED like any other, with an `error` in its status or
without one, and the error itself is the answer to the request for its result, with a status of its own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import httpx

from providers.base import Blocked, ProviderError, Rejected, Throttled, Undecodable, Unknown, Unusable
from providers.clock import CLOCK, Clock
from providers.fal.responses import NAME, at, cost, error_types, failure, pictures, reason, seconds
from providers.http.bodies import Json
from providers.http.client import Unanswered
from providers.kit.polling import Again
from providers.kit.progress import Forward, share

# An answer with its JSON, None where it is none. Asking raises Unanswered.
Asking: TypeAlias = "Callable[[], Awaitable[tuple[httpx.Response, Json]]]"

# FAILED and the like are in no document of fal's own, but in others; the result tells what they mean.
ENDED = frozenset({"COMPLETED", "FAILED", "ERROR", "CANCELED", "CANCELLED"})
GONE = frozenset({404, 410})

# How often a job is looked for that is not there, or an error is heard that nobody signed, before that is believed.
_TIMES = 3
# How many of the last lines of a log are looked at.
_LINES = 50
# How often an empty result is fetched.
_EMPTY = 2
# Said by fal's own machinery rather than by a model: it may be the question that failed, and not the job.
_AMBIGUOUS = frozenset({"internal_error"})


@dataclass(slots=True, kw_only=True)
class Doubt:
    """Something that is believed when it was heard three times, over `after_s` seconds at least."""

    after_s: float
    clock: Clock = CLOCK
    _heard: list[float] = field(default_factory=list)

    def settled(self) -> bool:
        """Hear it once more, and say whether that is enough."""
        self._heard.append(self.clock.now())
        return len(self._heard) >= _TIMES and self._heard[-1] - self._heard[0] >= self.after_s

    def clear(self) -> None:
        self._heard.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a job gave. `run_s` is fal's own measure of its run time in seconds."""

    answer: Json = field(repr=False)
    headers: httpx.Headers
    run_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The status that a job ended with: `answer` is all of it, `failed` whether it tells of an error."""

    answer: Json
    failed: bool


@dataclass(slots=True, kw_only=True)
class Watch:
    """Asks `status` and `response` about one job; `trouble` is what was wrong with the last answer.

    `status` is told whether to ask for `logs` as well, from which `tell` hears how much is done; after the first
    trouble they are left alone, for they may be what is too large. `usd` is the price of a unit in dollars.

    A job that is not found is given up as Unknown after three misses over `lost_after_s`: it may have been billed. As
    long is an error doubted that may be one of the asking, and not of the job.
    """

    status: Callable[[bool], Awaitable[tuple[httpx.Response, Json]]]
    response: Asking
    lost_after_s: float
    clock: Clock = CLOCK
    usd: str = ""
    logs: bool = False
    tell: Forward | None = None
    trouble: str = ""
    _missed: Doubt = field(init=False)
    _unsigned: Doubt = field(init=False)
    _empty: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._missed = Doubt(after_s=self.lost_after_s, clock=self.clock)
        self._unsigned = Doubt(after_s=self.lost_after_s, clock=self.clock)

    async def look(self) -> End | None:
        """Ask once whether the job has ended; None while it has not. Raises Unanswered, Again and Unknown."""
        with_logs, self.logs = self.logs, False
        response, answer = await self.status(with_logs)
        # 200 and 202 say less than the word does: IN_PROGRESS may fall back to IN_QUEUE, and there may be new words.
        if not response.is_success:
            raise self._again(response, answer)
        word = at(answer, "status")
        if not isinstance(word, str):
            self.trouble = "no status"
            raise Unanswered(f"{NAME}: the status has no status")
        self.trouble = ""
        self.logs = with_logs
        self._missed.clear()
        if self.tell and with_logs:
            self.tell(share(_text(at(answer, "logs"))))
        if word not in ENDED:
            return None
        return End(answer=answer, failed=bool(at(answer, "error") or at(answer, "error_type")))

    async def fetch(self, end: End) -> Result:
        """Ask once for the result of a job that has ended; raises what the job failed with, Unanswered and Again."""
        response, answer = await self.response()
        if response.is_success:
            return self._made(response, answer, end)
        # Where the result says nothing that can be read, the status may have.
        told = answer if at(answer, "detail") is not None or not end.failed else end.answer
        error = failure(response, told, now=time.time(), ended=True, usd=self.usd)
        if self._final(response, answer, end, error):
            raise error
        raise self._again(response, answer)

    def _made(self, response: httpx.Response, answer: Json, end: End) -> Result:
        if answer is None:
            raise Unanswered(f"{NAME}: the result is not JSON")
        if pictures(answer):
            run_s = seconds(at(end.answer, "metrics", "inference_time"))
            return Result(answer=answer, headers=response.headers, run_s=run_s)
        if error_types(answer) or reason(answer):
            raise failure(response, answer, now=time.time(), ended=True, usd=self.usd)
        self._empty += 1
        if self._empty < _EMPTY:
            raise Again
        bill = cost(response.headers, self.usd)
        raise Undecodable(f"{NAME}: the job succeeded without a picture", cost=bill)

    def _final(self, response: httpx.Response, answer: Json, end: End, error: ProviderError) -> bool:
        """Say whether an error is the job's own end, rather than trouble with asking for it: that job is paid for."""
        if response.status_code == 400 and "in progress" in reason(answer):
            return False
        if isinstance(error, Blocked | Rejected):
            return True
        if isinstance(error, Unusable | Throttled):
            return False
        # fal's runners write this header, its doors and other people's proxies do not.
        if end.failed or "x-fal-billable-units" in response.headers:
            return True
        if response.status_code in GONE or answer is None:
            return False
        return bool(error_types(answer) - _AMBIGUOUS) or self._unsigned.settled()

    def _again(self, response: httpx.Response, answer: Json) -> Exception:
        """Return what makes the loop ask again, or Unknown where the job was missed too often."""
        self.trouble = f"HTTP {response.status_code}"
        if response.status_code not in GONE:
            error = failure(response, answer, now=time.time(), ended=True)
            return Again(error.retry_after)
        if self._missed.settled():
            return Unknown(f"{NAME}: the job vanished", code=str(response.status_code))
        return Again(self.lost_after_s / _TIMES)


def _text(logs: Json) -> str:
    """Return the last lines of a log, which is a list of objects with a `message` each."""
    lines = [at(line, "message") for line in logs[-_LINES:]] if isinstance(logs, list) else []
    return "\n".join(line for line in lines if isinstance(line, str))
