"""fal's queue: a job's way from its submit to its result.

The queue has no word for failure. A job that failed is COMPLETED like any other, with an `error` in its status or
without one, and the error itself is the answer to the request for its result, with a status of its own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import quote

import httpx

from providers.base import NO_CONTEXT, AttemptContext, Handle
from providers.clock import CLOCK, Clock
from providers.errors import Blocked, Expired, ProviderError, Rejected, Throttled, Undecodable, Unknown, Unusable
from providers.fal.api import FalApi, loose_json
from providers.fal.responses import (
    NAME,
    addresses,
    at,
    cost,
    error_types,
    failure,
    images,
    is_request_id,
    reason,
    request_id,
    seconds,
    torn_request_id,
)
from providers.http.bodies import Body, Json
from providers.http.errors import NoAnswer, retry_after
from providers.kit.polling import MonotonicProgress, Pace, PollAgain, parse_progress, poll

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
class Confirmation:
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
class QueueResult:
    """What a job gave. `run_s` is fal's own measure of its run time in seconds."""

    answer: Json = field(repr=False)
    headers: httpx.Headers
    run_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEnd:
    """The status that a job ended with: `answer` is all of it, `failed` whether it tells of an error."""

    answer: Json
    failed: bool


@dataclass(slots=True, kw_only=True)
class JobPoller:
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
    tell: MonotonicProgress | None = None
    trouble: str = ""
    _missed: Confirmation = field(init=False)
    _unsigned: Confirmation = field(init=False)
    _empty: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._missed = Confirmation(after_s=self.lost_after_s, clock=self.clock)
        self._unsigned = Confirmation(after_s=self.lost_after_s, clock=self.clock)

    async def look(self) -> QueueEnd | None:
        """Ask once whether the job has ended; None while it has not. Raises NoAnswer, PollAgain and Unknown."""
        with_logs, self.logs = self.logs, False
        response, answer = await self.status(with_logs)
        # 200 and 202 say less than the word does: IN_PROGRESS may fall back to IN_QUEUE, and there may be new words.
        if not response.is_success:
            raise self._again(response, answer)
        word = at(answer, "status")
        if not isinstance(word, str):
            self.trouble = "no status"
            raise NoAnswer(f"{NAME}: the status has no status")
        self.trouble = ""
        self.logs = with_logs
        self._missed.clear()
        if self.tell and with_logs:
            self.tell(parse_progress(_text(at(answer, "logs"))))
        if word not in ENDED:
            return None
        return QueueEnd(answer=answer, failed=bool(at(answer, "error") or at(answer, "error_type")))

    async def fetch(self, end: QueueEnd) -> QueueResult:
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

    def _made(self, response: httpx.Response, answer: Json, end: QueueEnd) -> QueueResult:
        if answer is None:
            raise NoAnswer(f"{NAME}: the result is not JSON")
        if images(answer):
            run_s = seconds(at(end.answer, "metrics", "inference_time"))
            return QueueResult(answer=answer, headers=response.headers, run_s=run_s)
        if error_types(answer) or reason(answer):
            raise failure(response, answer, now=time.time(), ended=True, usd=self.usd)
        self._empty += 1
        if self._empty < _EMPTY:
            raise PollAgain
        bill = cost(response.headers, self.usd)
        raise Undecodable(f"{NAME}: the job succeeded without a picture", cost=bill)

    def _final(self, response: httpx.Response, answer: Json, end: QueueEnd, error: ProviderError) -> bool:
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
            return PollAgain(error.retry_after)
        if self._missed.settled():
            return Unknown(f"{NAME}: the job vanished", code=str(response.status_code))
        return PollAgain(self.lost_after_s / _TIMES)


def _text(logs: Json) -> str:
    """Return the last lines of a log, which is a list of objects with a `message` each."""
    lines = [at(line, "message") for line in logs[-_LINES:]] if isinstance(logs, list) else []
    return "\n".join(line for line in lines if isinstance(line, str))


# What became of a job that was cancelled: `removed` before it ran, or `gone` after it was told to stop.
Stopped: TypeAlias = Literal["completed", "removed", "gone", "vanished"]

_STATUS_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The queue at `url`.

    `ask_timeout_s` is how long one answer about a job may take, `fetch_timeout_s` its result. A job that is not found
    is given up after three misses over `lost_after_s`. `reconcile_s` is how long a job is looked for whose submit was
    answered in pieces, `cancel_timeout_s` how long a cancelled one is watched. Answers are read up to `result_bytes`.
    """

    api: FalApi
    url: str
    pace: Pace
    ask_timeout_s: float
    fetch_timeout_s: float
    result_bytes: int
    lost_after_s: float
    reconcile_s: float
    cancel_timeout_s: float

    async def submit(
        self, model: str, body: Body, headers: dict[str, str], *, until: float, webhook: str | None
    ) -> tuple[str, dict[str, str]]:
        """Hand a job over; return its id and its addresses. `until` is a reading of the clock.

        fal reports the end to `webhook`. An answer that broke off still has its headers, and so perhaps the job's id;
        fal is asked about that. Raises Unknown where nothing tells whether there is a job.
        """
        url = f"{self.url}/{model}" + (f"?fal_webhook={quote(webhook, safe='')}" if webhook else "")
        response, raw = await self.api.post(url, body, headers, until=until, cap=_STATUS_BYTES)
        answer = await loose_json(raw)
        if not response.is_success:
            raise failure(response, answer, now=time.time(), ended=False)
        given = answer if isinstance(answer, dict) else {}
        job = request_id(answer) or (torn_request_id(raw) if raw and answer is None else None)
        if job is None:
            job = response.headers.get("x-fal-request-id", "")
            if not await self.exists(model, job):
                raise Unknown(f"{NAME}: the answer to the submit names no job")
        return job, addresses(self.url, model, job, given)

    async def result(
        self, handle: Handle, deadline: float, *, link: AttemptContext = NO_CONTEXT, ended: bool = False
    ) -> QueueResult:
        """Wait for a job to end and return its result. Raises Expired at `deadline`, and leaves the job as it is.

        `link` hears how much is done, and wakes the wait. `ended` says that it has been seen to end before: then its
        result is asked for at once, whatever has become of the page that tells how it stands.
        """
        clock = self.api.clock
        where = self._where(handle)
        watch = JobPoller(
            status=lambda logs: self._status(where, logs=logs),
            response=lambda: self._response(where),
            lost_after_s=self.lost_after_s,
            clock=clock,
            usd=handle.data.get("usd_per_unit", ""),
            # Nobody else would read them.
            logs=link is not NO_CONTEXT,
            tell=MonotonicProgress(link.progress),
        )
        key = handle.data.get("pace", NAME)
        age = _age(handle)
        # A job that this process did not submit just now may have ended already.
        first = 0.0 if age else None
        try:
            end = QueueEnd(answer=None, failed=False)
            if not ended:
                end = await poll(
                    watch.look, pace=self.pace, key=key, deadline=deadline, first=first, age=age, sleep=link.sleep
                )
            return await poll(lambda: watch.fetch(end), pace=Pace(clock), key=NAME, deadline=deadline, first=0.0)
        except Expired as exc:
            # With a code it is fal's own word.
            if exc.code is not None:
                raise
            last = f"; the last answer was {watch.trouble}" if watch.trouble else ""
            raise Expired(f"{NAME}: the deadline passed{last}") from exc

    async def cancel(self, handle: Handle) -> Stopped:
        """Ask for the job's end and see it: it completed nevertheless, is out of the queue, or was not known to fal.

        Raises Unknown where it was not seen to end.
        """
        clock = self.api.clock
        where = self._where(handle)
        until = clock.now() + self.cancel_timeout_s
        missed = Confirmation(after_s=self.lost_after_s, clock=clock)
        word: Stopped | Literal["asked"]
        try:
            word = await poll(lambda: self._stop(where, missed), pace=Pace(clock), key=NAME, deadline=until, first=0.0)
            if word != "asked":
                return word
            return await poll(lambda: self._over(where), pace=Pace(clock), key=NAME, deadline=until, first=0.0)
        except Expired as exc:
            raise Unknown(f"{NAME}: the job was told to stop and was not seen to end") from exc

    async def _response(self, where: Mapping[str, str]) -> tuple[httpx.Response, Json]:
        url = where["response_url"]
        return await self.api.ask("GET", url, timeout_s=self.fetch_timeout_s, cap=self.result_bytes)

    async def _status(self, where: Mapping[str, str], *, logs: bool = False) -> tuple[httpx.Response, Json]:
        url = where["status_url"]
        return await self._brief("GET", f"{url}{'&' if '?' in url else '?'}logs=1" if logs else url)

    async def _brief(self, method: str, url: str) -> tuple[httpx.Response, Json]:
        try:
            return await self.api.ask(method, url, timeout_s=self.ask_timeout_s, cap=_STATUS_BYTES)
        except Undecodable as exc:
            raise NoAnswer(exc.message) from exc

    async def _stop(self, where: Mapping[str, str], missed: Confirmation) -> Stopped | Literal["asked"]:
        response, answer = await self._brief("PUT", where["cancel_url"])
        word = at(answer, "status")
        if word == "ALREADY_COMPLETED":
            return "completed"
        if response.status_code in GONE and missed.settled():
            return "vanished"
        if not response.is_success or at(answer, "success") is False:
            raise PollAgain(retry_after(response, time.time()))
        # A job that was still in the queue is out of it; one at work is told to stop, and may not listen.
        if word == "OK":
            return "removed"
        return "gone" if at(answer, "success") is True else "asked"

    async def _over(self, where: Mapping[str, str]) -> Stopped | None:
        response, answer = await self._status(where)
        if at(answer, "status") in ENDED:
            return "completed"
        if response.status_code in GONE:
            return "gone"
        if response.is_success:
            return None
        raise PollAgain(retry_after(response, time.time()))

    async def exists(self, model: str, job: str) -> bool:
        """Say whether fal knows of a job of this model; false as well where it does not answer in `reconcile_s`."""
        if not is_request_id(job):
            return False
        where = addresses(self.url, model, job, {})

        async def ask() -> bool:
            response, answer = await self._status(where)
            if response.status_code not in GONE and not isinstance(at(answer, "status"), str):
                raise PollAgain(retry_after(response, time.time()))
            return response.is_success

        clock = self.api.clock
        until = clock.now() + self.reconcile_s
        try:
            return await poll(ask, pace=Pace(clock), key=NAME, deadline=until, first=0.0)
        except Expired:
            return False

    def _where(self, handle: Handle) -> dict[str, str]:
        # Checked again: the configured origin may be another one than when the handle was stored.
        return addresses(self.url, handle.data.get("model", ""), handle.id, handle.data)


def _age(handle: Handle) -> float:
    """Return how long ago the job was submitted, in seconds; 0 for one that was submitted just now."""
    try:
        age = time.time() - float(handle.data.get("submitted", ""))
    except ValueError:
        return 0.0
    return age if age >= 1 else 0.0
