"""Fair shares: whose turn it is, and who may take how much of a bounded room."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.fairness import FairGate, FairQueue, SharedCapacity, Shares, Turns, capacity_for, fair_share


class Time:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def served(queue: FairQueue[str]) -> list[str]:
    """Serve all that waits, one at a time."""
    found = []
    while queue:
        owner, thing = next(queue.in_turn())
        queue.take(owner, thing)
        queue.give_back(owner)
        found.append(thing)
    return found


def test_owners_take_turns() -> None:
    """Whoever comes with one thing is not behind all that another has; an owner's own things keep their order."""
    queue = FairQueue[str]()
    for n in range(4):
        queue.put("a", f"a{n}")
    queue.put("b", "b0")
    queue.put("c", "c0")
    queue.put("b", "b1")
    assert [thing for _, thing in queue.in_turn()] == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
    assert served(queue) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_one_owner_has_everything() -> None:
    """Where nobody else waits an owner's things are served as they came."""
    queue = FairQueue[str]()
    for n in range(5):
        queue.put("a", f"a{n}")
    assert served(queue) == [f"a{n}" for n in range(5)]


def test_who_has_much_at_work_is_behind_who_has_little() -> None:
    """With several places at once they are shared out as well, however long the work takes."""
    queue = FairQueue[str]()
    for n in range(6):
        queue.put("a", f"a{n}")
    for n in range(3):
        queue.take("a", f"a{n}")
    queue.put("b", "b0")
    queue.put("b", "b1")
    assert [thing for _, thing in queue.in_turn()] == ["b0", "b1", "a3", "a4", "a5"]
    queue.take("b", "b0")
    queue.give_back("a")
    queue.give_back("a")
    assert [thing for _, thing in queue.in_turn()] == ["a3", "b1", "a4", "a5"]


def test_who_comes_again_at_once_is_not_first_again() -> None:
    """Of three owners none gets two turns before the others had theirs, though it has nothing waiting in between."""
    queue = FairQueue[str]()
    for owner in "acd":
        for n in range(3):
            queue.put(owner, f"{owner}{n}")
    order = []
    for n in range(6):
        queue.put("b", f"b{n}")
        owner, thing = next(queue.in_turn())
        queue.take(owner, thing)
        queue.give_back(owner)
        order.append(owner)
        if owner != "b":
            queue.remove("b", f"b{n}")
    assert order == ["a", "c", "d", "b", "a", "c"]


def test_what_lost_its_place_is_next() -> None:
    """It had its turn, and does not wait for another one."""
    queue = FairQueue[str]()
    queue.put("a", "a0")
    queue.take("a", "a0")
    for owner in "bc":
        queue.put(owner, f"{owner}0")
    queue.give_back("a")
    queue.put_back("a", "a0")
    assert queue.ahead_of("b") == 3
    assert served(queue) == ["a0", "b0", "c0"]
    assert not queue.remove("a", "a0")


def test_how_much_is_ahead() -> None:
    """Of those who have more than an owner only as much is ahead of it as it gets itself."""
    queue = FairQueue[str]()
    for n in range(50):
        queue.put("a", f"a{n}")
    assert (queue.ahead_of("a"), queue.ahead_of("b")) == (50, 1)
    queue.put("b", "b0")
    assert queue.ahead_of("b") == 3


@given(st.lists(st.sampled_from("abcd"), max_size=60), st.integers(1, 4))
def test_nobody_is_more_than_one_turn_behind(owners: list[str], places: int) -> None:
    """While two owners wait neither is given two places more than the other."""
    queue, left = FairQueue[int](), Counter(owners)
    for n, owner in enumerate(owners):
        queue.put(owner, n)
    given_to: Counter[str] = Counter()
    at_work: list[str] = []
    while queue:
        if len(at_work) == places:
            queue.give_back(at_work.pop(0))
        owner, n = next(queue.in_turn())
        queue.take(owner, n)
        at_work.append(owner)
        given_to[owner] += 1
        left[owner] -= 1
        waiting = [one for one in left if left[one]]
        assert not waiting or max(given_to[one] for one in waiting) - min(given_to[one] for one in waiting) <= 1


def test_a_copy_of_the_turns() -> None:
    """What becomes of it says nothing of the original."""
    turns = Turns()
    turns.begin("a")
    other = turns.copy()
    other.begin("b")
    other.begin("b")
    assert (turns.at_work, list(turns.order({"a": 1, "b": 1}))) == ({"a": 1}, ["b", "a"])
    assert list(other.order({"b": 1, "a": 1})) == ["a", "b"]


@pytest.mark.parametrize(
    ("limit", "wants", "share"),
    [
        (10, [], math.inf),
        (10, [100], 10),
        (10, [5, 5], math.inf),
        (12, [100, 100, 100], 4),
        (12, [1, 100, 100], 5.5),
        (12, [1, 2, 100], 9),
    ],
)
def test_what_each_could_have(limit: float, wants: list[float], share: float) -> None:
    """All have alike, and what one does not want the others have."""
    assert fair_share(limit, wants) == share


@pytest.mark.parametrize(
    ("room", "size", "owner", "held", "wanted"),
    [
        pytest.param(SharedCapacity.FREE, 1, "a", {"a": 99}, {}, id="one alone has everything"),
        pytest.param(SharedCapacity.FULL, 1, "a", {"a": 100}, {}, id="and no more"),
        pytest.param(SharedCapacity.FREE, 500, "a", {}, {}, id="what is larger than the room comes alone"),
        pytest.param(SharedCapacity.FREE, 1, "b", {"a": 100}, {}, id="who has nothing comes in"),
        pytest.param(SharedCapacity.FULL, 14, "b", {"a": 100}, {}, id="with an eighth and no more"),
        pytest.param(SharedCapacity.FULL, 1, "b", {"a": 100, "b": 1}, {}, id="who has something does not"),
        pytest.param(SharedCapacity.FULL, 1, "c", {"a": 100, "b": 13}, {}, id="nor where others have the eighth"),
        pytest.param(SharedCapacity.FREE, 1, "a", {"a": 89}, {"b": 10}, id="up to what another one wanted"),
        pytest.param(SharedCapacity.KEPT, 1, "a", {"a": 90}, {"b": 10}, id="which is kept for it"),
        pytest.param(SharedCapacity.FREE, 1, "b", {"a": 90}, {"b": 10}, id="and which it gets"),
        pytest.param(SharedCapacity.FREE, 1, "a", {"a": 49}, {"b": 1000}, id="a share is everybody's"),
        pytest.param(SharedCapacity.KEPT, 1, "a", {"a": 50}, {"b": 1000}, id="whatever another one wants"),
        pytest.param(SharedCapacity.FREE, 1, "a", {"a": 50, "b": 49}, {"b": 49}, id="what another one has is not kept"),
        pytest.param(SharedCapacity.KEPT, 1, "a", {"a": 60, "b": 20}, {"b": 30, "c": 10}, id="for several"),
        pytest.param(
            SharedCapacity.FREE, 1, "c", {"a": 60, "b": 39}, {"a": 100}, id="who has less than its share may go on"
        ),
    ],
)
def test_room(room: SharedCapacity, size: int, owner: str, held: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Of a room of 100: who may take how much more."""
    assert capacity_for(size, owner, limit=100, held=held, wanted=wanted) is room


@given(
    st.integers(1, 50),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 60)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 60)),
)
def test_room_is_bounded_and_used(limit: int, held: dict[str, int], wanted: dict[str, int]) -> None:
    """Nothing is let in beyond an eighth more, nothing refused that nobody else wants, and nobody below its share."""
    total, others = sum(held.values()), {"b", "c", "d"}
    found = capacity_for(1, "a", limit=limit, held=held, wanted=wanted)
    if found is SharedCapacity.FREE and total:
        assert total + 1 <= limit + (0 if held.get("a") else math.ceil(limit / 8))
    if total + 1 <= limit:
        assert found is not SharedCapacity.FULL
        if held.get("a", 0) + 1 <= limit / 4 or not any(held.get(o) or wanted.get(o) for o in others):
            assert found is SharedCapacity.FREE


def test_room_is_kept_for_who_was_here() -> None:
    """A key that comes one call after the other finds its place, however many calls another one makes in between."""
    clock = Time()
    shares, held = Shares(10, clock), Counter[str]()

    def comes(owner: str) -> SharedCapacity:
        found = shares.ask(1, owner, held)
        held[owner] += found is SharedCapacity.FREE
        return found

    assert [comes("a") for _ in range(11)] == [SharedCapacity.FREE] * 10 + [SharedCapacity.FULL]
    assert comes("b") is SharedCapacity.FREE  # beyond the limit, for it had nothing
    held.subtract("ab")
    assert [comes("a"), comes("b")] == [SharedCapacity.KEPT, SharedCapacity.FREE]
    held.subtract("ab")
    clock.now += 300
    # It has not come for so long that nothing is kept for it.
    assert [comes("a"), comes("a"), comes("a")] == [SharedCapacity.FREE, SharedCapacity.FREE, SharedCapacity.FULL]


def test_who_was_refused_gets_what_becomes_free() -> None:
    """Until it has its share, what another one gives back is kept for the calls of it that were refused."""
    shares, held = Shares(10, Time()), Counter(a=10, b=1)
    assert [shares.ask(1, "b", held) for _ in range(3)] == [SharedCapacity.FULL] * 3
    for _ in range(3):
        held["a"] -= 1
    assert shares.ask(1, "a", held) is SharedCapacity.KEPT
    assert shares.ask(1, "b", held) is SharedCapacity.FREE


def test_what_was_wanted_is_forgotten() -> None:
    """After one to two windows, and not at once."""
    clock = Time()
    shares = Shares(10, clock, window_s=60)
    assert shares.ask(4, "b", {}) is SharedCapacity.FREE
    for now, room in ((59, SharedCapacity.KEPT), (119, SharedCapacity.KEPT), (120, SharedCapacity.FREE)):
        clock.now = now
        assert shares.ask(1, "a", {"a": 6}) is room


async def test_the_gate() -> None:
    """Pieces of work come in while there is room, owners in turn; one that left keeps nobody out."""
    gate, entered = FairGate(2), list[str]()
    leave = {name: asyncio.Event() for name in ("a0", "a1", "a2", "a3", "b0")}

    async def work(name: str) -> None:
        async with gate.place(name[0]):
            entered.append(name)
            await leave[name].wait()

    async def settle() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    tasks: dict[str, asyncio.Task[Any]] = {}
    for name in leave:
        tasks[name] = asyncio.create_task(work(name))
        await settle()
    assert (entered, gate.waiting) == (["a0", "a1"], {"a": 2, "b": 1})
    tasks["a2"].cancel()
    leave["a0"].set()
    await settle()
    assert entered == ["a0", "a1", "b0"]
    leave["a1"].set()
    await settle()
    assert entered == ["a0", "a1", "b0", "a3"]
    for name in ("a3", "b0"):
        leave[name].set()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert (gate.free, gate.waiting) == (2, {})


async def test_the_gate_has_room_to_spare() -> None:
    """For owners that have nothing at work, where there is any."""
    gate, entered, end = FairGate(1, spare=1), list[str](), asyncio.Event()

    async def work(name: str) -> None:
        async with gate.place(name[0]):
            entered.append(name)
            await end.wait()

    tasks = [asyncio.create_task(work(name)) for name in ("a0", "a1", "b0", "b1", "c0")]
    for _ in range(5):
        await asyncio.sleep(0)
    assert entered == ["a0", "b0"]
    end.set()
    await asyncio.gather(*tasks)
    assert entered == ["a0", "b0", "c0", "a1", "b1"]
    assert gate.free == 1
