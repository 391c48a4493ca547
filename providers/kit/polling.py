"""Polling a provider for the end of a job: soon after it ends, and not often; and progress read from its logs.

When a job is likely to end follows from how long the last ones like it took. Between two polls the best wait, for the
least delay at a given number of polls, goes with the square root of 1 / hazard (the chance of ending now, given that it
has not ended yet). Run times spread about evenly between a shortest and a longest, for which that is the square root of
the time that is left to the longest: polls grow denser the later it gets.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar

from normalization.values import Image, Value
from providers.clock import CLOCK, Clock, jitter
from providers.errors import Expired
from providers.http.errors import NoAnswer

T = TypeVar("T")

_FIRST_S = 0.25
_LONGEST_S = 5.0
# While nothing is known, and when a job is late: the next look after this share of the time that passed.
_GROWTH = 0.4
# Before a job can be done, looks are only for one that fails at once.
_EARLY_FACTOR = 8.0
# Looks that a job takes on average once it may be done; below a certain interval more of them gain nothing.
_LOOKS = 10.0
_SHORTEST_S = 0.2
# How many run times are remembered: old ones drop out, as a provider's hardware and our pictures change.
_KEEP = 40
_FEW = 4
# What one or two run times leave open.
_SPREAD = 0.3
# Run times further than this from the median (a cold start, a crash) say nothing of the next one.
_OUTLIER = 1.6
_NARROWEST = 0.04
# By how much, of its run time, a job may teach that jobs have become faster.
_STEP = 0.05


class PollAgain(Exception):
    """The provider asks to be asked later, after `retry_after` seconds where it says so."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("the provider asks to be asked later")
        self.retry_after = retry_after


class Pace:
    """When to look for the end of a job, learned from the jobs before it.

    A key names jobs that take about the same time. Measured for run times of 0.5 to 30 s that
    vary evenly by 30 % to either side: see the test beside this file, which prints delay and looks.
    """

    def __init__(self, clock: Clock = CLOCK) -> None:
        self.clock = clock
        self._runs: dict[str, deque[float]] = {}

    def learn(self, key: str, seconds: float) -> None:
        """Remember that a job of this key took so long, from its submit to its end."""
        if math.isfinite(seconds) and seconds > 0:
            self._runs.setdefault(key, deque(maxlen=_KEEP)).append(seconds)

    def typical(self, key: str) -> float | None:
        """Return the median run time in seconds; None while no job of this key has ended."""
        runs = self._runs.get(key)
        return statistics.median(runs) if runs else None

    def delays(self, key: str, *, age: float = 0.0) -> Iterator[float]:
        """Yield the seconds to sleep before each look, without end. `age` is how old the job is now, in seconds.

        What the looks themselves take is accounted for by the clock.
        """
        began = self.clock.now() - age
        window = self._window(key)
        elapsed = age
        while True:
            yield max(0.0, _next_look(elapsed, window) - (self.clock.now() - began))
            elapsed = self.clock.now() - began

    def _window(self, key: str) -> tuple[float, float] | None:
        """Return the shortest and the longest run time that are likely; None while nothing is known."""
        median = self.typical(key)
        if median is None:
            return None
        runs = [run for run in self._runs[key] if median / _OUTLIER <= run <= median * _OUTLIER]
        if len(runs) < _FEW:
            return median * (1 - _SPREAD), median * (1 + _SPREAD)
        # A sample's ends lie inside of the distribution's: by one gap on average.
        gap = (max(runs) - min(runs)) / (len(runs) - 1)
        least = max(_NARROWEST * median, _SHORTEST_S / 2)
        return min(min(runs) - gap, median - least), max(max(runs) + gap, median + least)


def _next_look(elapsed: float, window: tuple[float, float] | None) -> float:
    """Return the age of the job at its next look, when it is `elapsed` seconds old now."""
    if window is None:
        return elapsed + min(_LONGEST_S, max(_FIRST_S, elapsed * _GROWTH))
    shortest, longest = window
    if elapsed < shortest:
        return min(max(_FIRST_S, elapsed * _EARLY_FACTOR), max(shortest, _FIRST_S) + _SHORTEST_S / 2)
    if elapsed < longest:
        width = longest - shortest
        # The mean number of looks at intervals of c * sqrt(what is left) is 2/3 * sqrt(width) / c.
        interval = 2 / 3 * math.sqrt(width * (longest - elapsed)) / _LOOKS
        return elapsed + max(_SHORTEST_S, interval)
    return elapsed + min(_LONGEST_S, max(_SHORTEST_S, (elapsed - longest) * _GROWTH))


async def _sleep(seconds: float, clock: Clock) -> None:
    await clock.sleep(seconds)


async def poll(
    ask: Callable[[], Awaitable[T | None]],
    *,
    pace: Pace,
    key: str,
    deadline: float,
    first: float | None = None,
    age: float = 0.0,
    sleep: Callable[[float, Clock], Awaitable[None]] = _sleep,
) -> T:
    """Call `ask` until it gives a value, and learn from that how long the job took.

    `deadline` is a reading of the pace's clock; `first` is the delay before the first look where the caller
    knows better, `age` how long ago the job was submitted, both in seconds. `sleep` waits between two looks, and may
    come back early: an `AttemptContext`'s does when a webhook arrives. NoAnswer and PollAgain, raised by `ask`, are
    asked again after a random while. Raises Expired at the deadline; every other error of `ask` passes.
    """
    began = pace.clock.now() - age
    delays = pace.delays(key, age=age)
    # Where the submit is long ago and it is done at the first look, nobody knows since when.
    seen_at_work = None if age else 0.0
    failures = 0
    retry_after = first
    while True:
        delay = next(delays) if retry_after is None else retry_after
        left = deadline - pace.clock.now()
        if left <= 0:
            raise Expired("the deadline passed")
        await sleep(min(delay, left), pace.clock)
        retry_after = None
        looked = pace.clock.now() - began
        try:
            value = await _bounded(ask, deadline, pace.clock)
        except (NoAnswer, PollAgain) as exc:
            retry_after = jitter(failures) + ((exc.retry_after or 0.0) if isinstance(exc, PollAgain) else 0.0)
            failures += 1
            continue
        if value is not None:
            if seen_at_work is not None:
                pace.learn(key, between(seen_at_work, looked))
            return value
        seen_at_work = looked
        failures = 0


def between(at_work: float, done: float) -> float:
    """Return the likeliest run time in seconds of a job that was at work at one age and done at a later one.

    The middle, if they are close. A long time without a look was one in which no end was likely.
    """
    return done - min((done - at_work) / 2, max(_SHORTEST_S, _STEP * done))


def pace_key(provider: str, model: str, payload: Mapping[str, Value]) -> str:
    """Return a key for jobs that take about as long: the model and, to a power of two, the pixels that go in."""
    pixels = sum(value.width * value.height for value in payload.values() if isinstance(value, Image))
    return f"{provider}/{model}/{pixels.bit_length()}"


async def _bounded(ask: Callable[[], Awaitable[T | None]], deadline: float, clock: Clock) -> T | None:
    try:
        async with clock.timeout_at(deadline) as limit:
            return await ask()
    except TimeoutError:
        if limit.expired():
            raise Expired("the deadline passed") from None
        raise


# A progress bar of tqdm, which nearly all models draw, or a line that says "progress".
_BAR = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,3})?)\s?%\|")
_WORD = re.compile(r"\bprogress\b\W{0,4}(\d{1,3}(?:\.\d{1,3})?)\s?%", re.IGNORECASE)
# Where the last bar of a log is looked for.
_TAIL = 4000


def parse_progress(logs: object) -> float | None:
    """Return what the last progress bar in a text shows, from 0 to 1; None where there is none."""
    if not isinstance(logs, str):
        return None
    tail = logs[-_TAIL:]
    found = [match for pattern in (_BAR, _WORD) for match in pattern.finditer(tail) if float(match[1]) <= 100]
    return float(max(found, key=lambda match: match.start())[1]) / 100 if found else None


class MonotonicProgress:
    """Tells how much is done, and never less than it has told before: a model may draw one bar after another."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._most = 0.0

    def __call__(self, done: float | None) -> None:
        if done is not None and done > self._most:
            self._most = done
            self._tell(done)
