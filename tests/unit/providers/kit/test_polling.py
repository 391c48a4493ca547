"""When a job is looked for, and what is made of what the look finds."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable
from itertools import islice

import pytest
from typing_extensions import override

from normalization.values import Header, Image
from providers.clock import Clock, jitter
from providers.errors import Expired, Failed
from providers.http.errors import NoAnswer
from providers.kit.polling import Pace, PollAgain, between, pace_key, poll
from tests.support.clock import Skipping

ROUND_TRIP_S = 0.05
LENGTHS_S = (0.5, 1, 2, 3, 5, 8, 10, 12, 15, 20, 25, 30)


class Turned(Clock):
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.at = 0.0

    @override
    def now(self) -> float:
        return self.at


def simulate(length: float, noise: float, jobs: int = 300, unknown: int = 50) -> tuple[list[float], list[int]]:
    """Delays in seconds and looks of jobs one after another; the first `unknown` are there to be learned from."""
    draw = random.Random(length * 1000)
    clock = Turned()
    pace = Pace(clock)
    lags: list[float] = []
    looks: list[int] = []
    for number in range(jobs):
        run, began, seen_at_work = length * draw.uniform(1 - noise, 1 + noise), clock.at, 0.0
        count = 0
        for delay in pace.delays("model"):
            count += 1
            clock.at += delay
            at = clock.at - began
            clock.at += ROUND_TRIP_S
            if at >= run:
                break
            seen_at_work = at
        pace.learn("model", between(seen_at_work, at))
        if number >= unknown:
            lags.append(at - run)
            looks.append(count)
    return lags, looks


def test_a_learned_pace_sees_a_result_soon_with_few_looks() -> None:
    """Over all lengths to 30 s, with run times 30 % to either side: under 0.3 s in the median, about 12 looks a job."""
    for noise in (0.3, 0.1):
        all_lags, all_looks = [], []
        print(f"\nrun time +-{noise:.0%}:  median delay, 90th percentile, mean looks, most looks")
        for length in LENGTHS_S:
            lags, looks = simulate(length, noise)
            all_lags += lags
            all_looks += looks
            tenth = statistics.quantiles(lags, n=10)[-1]
            lag, mean = statistics.median(lags), statistics.mean(looks)
            print(f"{length:5.1f} s  {lag:.2f} s  {tenth:.2f} s  {mean:5.1f}  {max(looks)}")
            # At 30 s, that a job may end anywhere within 18 s leaves no schedule much room.
            assert statistics.median(lags) < (0.3 if length < 25 or noise < 0.3 else 0.42)
            assert statistics.mean(looks) < 15.5
        print(f"  all    {statistics.median(all_lags):.2f} s          {statistics.mean(all_looks):12.1f}")
        assert statistics.median(all_lags) < 0.25
        assert statistics.mean(all_looks) < 11


def test_an_unknown_pace_starts_soon_and_grows() -> None:
    """Nothing is known of the first job: looks come after 0.25 s, then at growing intervals up to 5 s."""
    clock = Turned()
    delays = []
    for delay in islice(Pace(clock).delays("new"), 30):
        delays.append(delay)
        clock.at += delay

    assert delays[0] == 0.25
    assert delays == pytest.approx(sorted(delays))
    assert delays[-1] == pytest.approx(5)
    assert sum(1 for at in (sum(delays[:n]) for n in range(1, 31)) if at <= 30) <= 14


def test_a_late_job_is_asked_for_less_and_less() -> None:
    """Long after its time a job is no reason to hurry, and still looked for every few seconds."""
    clock = Turned()
    pace = Pace(clock)
    for _ in range(10):
        pace.learn("model", 4)
    delays = []
    for delay in pace.delays("model"):
        delays.append(delay)
        clock.at += delay
        if clock.at > 120:
            break

    assert max(delays) == pytest.approx(5)
    assert delays[-1] == pytest.approx(5)


def test_a_job_that_fails_at_once_is_seen_before_its_usual_time() -> None:
    """There is a look after 0.25 s however long the job usually takes."""
    pace = Pace(Turned())
    pace.learn("model", 25)
    assert next(pace.delays("model")) == 0.25


def test_one_cold_start_does_not_spoil_the_pace() -> None:
    """A run time far from the others is an exception, not a part of the spread."""
    pace = Pace(Turned())
    for seconds in (5, 5.1, 4.9, 90, 5, 5.1, 0.1):
        pace.learn("model", seconds)
    window = pace._window("model")
    assert window
    assert window[0] > 4.5
    assert window[1] < 5.5


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -1.0, 0.0])
def test_nonsense_is_not_learned(nonsense: float) -> None:
    """A provider's figure that is no time changes nothing."""
    pace = Pace()
    pace.learn("model", nonsense)
    assert pace.typical("model") is None


def test_keys_are_apart() -> None:
    """What one model takes says nothing of another; size counts, to a power of two."""
    pace = Pace()
    pace.learn("a", 3)
    assert pace.typical("a") == 3
    assert pace.typical("b") is None

    def picture(width: int) -> Image:
        return Image(data=b"", header=Header(format="png", width=width, height=width))

    small, alike, large = (pace_key("replicate", "m", {"image": picture(width)}) for width in (1000, 1010, 2000))
    assert small == alike == "replicate/m/20"
    assert large != small


def scripted(clock: Clock, *answers: object) -> tuple[Callable[[], Awaitable[str | None]], list[float]]:
    """A look that finds one thing after another (an exception is raised), and when it was made."""
    left = list(answers)
    times: list[float] = []

    async def ask() -> str | None:
        times.append(clock.now())
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        assert answer is None or isinstance(answer, str)
        return answer

    return ask, times


async def test_it_asks_until_there_is_a_value() -> None:
    """Nothing, no answer, and a plea for patience are all asked again; what it took is learned."""
    pace = Pace(clock := Skipping())
    ask, times = scripted(clock, None, NoAnswer("lost"), PollAgain(4), PollAgain(), None, "done")

    assert await poll(ask, pace=pace, key="k", deadline=clock.after(60)) == "done"
    assert len(times) == 6
    # What the provider asked for is kept.
    assert times[3] - times[2] >= 4
    typical = pace.typical("k")
    assert typical is not None
    assert times[4] - times[0] <= typical <= times[5] - times[0] + 0.3


async def test_the_first_look_may_be_at_once() -> None:
    """Where the caller knows that it is done there is no wait."""
    ask, _ = scripted(clock := Skipping(), "done")
    assert await poll(ask, pace=Pace(clock), key="k", deadline=clock.after(5), first=0.0) == "done"
    assert sum(clock.slept) == 0


async def test_an_old_job_that_is_done_teaches_nothing() -> None:
    """After a restart nobody knows when it was done; once it was seen at work its age counts."""
    pace = Pace(clock := Skipping())
    ask, _ = scripted(clock, "done")
    await poll(ask, pace=pace, key="k", deadline=clock.after(5), first=0.0, age=100)
    assert pace.typical("k") is None
    ask, _ = scripted(clock, None, "done")
    await poll(ask, pace=pace, key="k", deadline=clock.after(5), first=0.0, age=1)
    typical = pace.typical("k")
    assert typical is not None
    assert typical > 1


async def test_another_error_passes() -> None:
    """What the provider says of the job is not asked again, and teaches nothing."""
    pace = Pace(clock := Skipping())
    ask, times = scripted(clock, Failed("no"))
    with pytest.raises(Failed):
        await poll(ask, pace=pace, key="k", deadline=clock.after(5), first=0.0)
    assert len(times) == 1
    assert pace.typical("k") is None


@pytest.mark.parametrize("answer", [None, NoAnswer("lost"), PollAgain(3600)], ids=["nothing", "lost", "patience"])
async def test_it_ends_at_the_deadline(answer: object) -> None:
    """Whatever the looks find, the deadline ends them, and not before."""
    ask, _ = scripted(clock := Skipping(), answer)
    deadline = clock.after(300)
    with pytest.raises(Expired):
        await poll(ask, pace=Pace(clock), key="k", deadline=deadline)
    assert deadline <= clock.now() < deadline + 10


async def test_a_look_that_hangs_ends_at_the_deadline() -> None:
    """A look cannot outlive it; a timeout of its own making is another thing."""
    clock = Skipping()

    async def hang() -> str | None:
        await asyncio.sleep(3600)
        return None

    with pytest.raises(Expired):
        await poll(hang, pace=Pace(clock), key="k", deadline=clock.after(0.02), first=0.0)
    ask, _ = scripted(clock, TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        await poll(ask, pace=Pace(clock), key="k", deadline=clock.after(5), first=0.0)


async def test_the_clock_of_the_event_loop() -> None:
    """What everything uses outside of tests: it really waits, and its deadlines really end a wait."""
    clock = Clock()
    began = clock.now()
    await clock.sleep(0.01)
    assert clock.now() - began > 0.009
    with pytest.raises(TimeoutError):
        async with clock.timeout_at(clock.now() + 0.01):
            await asyncio.sleep(3600)


def test_waits_after_failures_grow_and_are_random() -> None:
    """Full jitter: anything from nothing to twice the bound before, 8 s at most, however many failures."""
    for failures, most in ((0, 0.25), (3, 2), (1000, 8)):
        waits = [jitter(failures) for _ in range(300)]
        assert max(waits) <= most
        assert max(waits) > most * 0.8
        assert min(waits) < most * 0.2
