"""Fair shares between owners, which are API keys: whose turn it is, and how much of a bounded capacity each may take.

Nothing but `FairGate` waits, nothing knows what it shares out, and the clock is handed in: the same calls give the same
answers.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")

_WINDOW_S = 120.0
"""What an owner used is remembered for one to two of these: its room is kept for it while it thinks or tries again."""


class Turns:
    """Whose turn it is: of those who wait whoever has least at work; among equals whoever was served longest ago."""

    def __init__(self) -> None:
        self.at_work: Counter[str] = Counter()
        """How much of each owner's is being worked on; owners that have nothing there are not in it."""
        self._served: dict[str, int] = {}
        self._number = 0

    def order(self, waiting: Mapping[str, int]) -> Iterator[str]:
        """The owners of `waiting` things in the order in which these would be served if each got a place now."""
        line = [(self.at_work[one], self._served.get(one, 0), i, one) for i, one in enumerate(waiting)]
        left, number = dict(waiting), self._number
        heapq.heapify(line)
        while line:
            busy, _, i, owner = heapq.heappop(line)
            if left[owner] > 0:
                yield owner
                number += 1
                left[owner] -= 1
                heapq.heappush(line, (busy + 1, number, i, owner))

    def begin(self, owner: str, size: int = 1) -> None:
        """Something of an owner's is begun: it had its turn."""
        self._number += 1
        self._served[owner] = self._number
        self.at_work[owner] += size

    def end(self, owner: str, size: int = 1) -> None:
        """It is over."""
        self.at_work[owner] -= size
        if self.at_work[owner] <= 0:
            del self.at_work[owner]

    def copy(self) -> Turns:
        """Whose turn it is now, apart from what becomes of it here."""
        made = Turns()
        made.at_work, made._served, made._number = self.at_work.copy(), self._served.copy(), self._number
        return made

    def forget(self) -> None:
        """Nobody is here any more: whoever comes next has been served as long ago as anybody else."""
        self._served.clear()


class FairQueue(Generic[T]):
    """Things that wait for a place, each of an owner. Owners take turns; an owner's own things keep their order."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._lines: dict[str, list[T]] = {}
        self._back: list[tuple[str, T]] = []

    def __len__(self) -> int:
        return len(self._back) + sum(map(len, self._lines.values()))

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many things of each owner wait."""
        return Counter(owner for owner, _ in self._back) + Counter(
            {owner: len(line) for owner, line in self._lines.items()}
        )

    def put(self, owner: str, thing: T) -> None:
        """Let a thing wait behind the others of its owner."""
        self._lines.setdefault(owner, []).append(thing)

    def put_back(self, owner: str, thing: T) -> None:
        """Let a thing wait that has had its turn and lost its place: it is before all that have not."""
        self._back.append((owner, thing))

    def in_turn(self) -> Iterator[tuple[str, T]]:
        """Everything that waits, in the order in which it is to be served. Nothing may be changed meanwhile."""
        yield from self._back
        lines = {owner: iter(line) for owner, line in self._lines.items()}
        counts = {owner: len(line) for owner, line in self._lines.items()}
        for owner in self._turns.order(counts):
            yield owner, next(lines[owner])

    def take(self, owner: str, thing: T, size: int = 1) -> None:
        """A thing has got its place, of this size; `give_back` ends that."""
        self.remove(owner, thing)
        self._turns.begin(owner, size)

    def give_back(self, owner: str, size: int = 1) -> None:
        """The place that something of an owner's had is free again."""
        self._turns.end(owner, size)
        if not (self or self._turns.at_work):
            self._turns.forget()

    def remove(self, owner: str, thing: T) -> bool:
        """Let a thing wait no longer; false where it did not."""
        if (owner, thing) in self._back:
            self._back.remove((owner, thing))
            return True
        line = self._lines.get(owner, [])
        if thing not in line:
            return False
        line.remove(thing)
        if not line:
            del self._lines[owner]
        return True

    def at_work(self, owner: str) -> int:
        """How much of an owner's has its place."""
        return self._turns.at_work[owner]

    def ahead_of(self, owner: str) -> int:
        """How many of the things that wait come before the next one that this owner puts here."""
        own = len(self._lines.get(owner, ())) + 1
        return len(self._back) + sum(min(len(line), own) for line in self._lines.values())


class SharedCapacity(Enum):
    """Whether there is room for something."""

    FREE = "free"
    FULL = "full"
    """There is none at all."""
    KEPT = "kept"
    """There is some, which is kept for other owners: this one has its share."""


def capacity_for(
    size: float, owner: str, *, limit: float, held: Mapping[str, float], wanted: Mapping[str, float], own: float = 0
) -> SharedCapacity:
    """Whether an owner may take so much more of a room of `limit`.

    `held` is what each owner has, `wanted` the most that each had or was refused of late, `own` what this same thing
    has already. An owner may have all that the others neither have nor wanted of late. They are kept no more than
    their share: what each could have if all had alike, but for those who want less. Whoever has nothing here comes in
    also where others have filled the room, while that makes it no fuller than by an eighth.
    """
    mine = held.get(owner, 0)
    total = sum(held.values())
    if total <= own:
        return SharedCapacity.FREE  # it is alone, and may be larger than the room
    if total + size > limit:
        spare = mine <= own and total + size <= limit + math.ceil(limit / 8)
        return SharedCapacity.FREE if spare else SharedCapacity.FULL
    others = {*held, *wanted} - {owner}
    if mine + size <= limit / (len(others) + 1):
        return SharedCapacity.FREE
    wants = {one: max(held.get(one, 0), wanted.get(one, 0)) for one in others}
    share = fair_share(limit, (mine + size, *wants.values()))
    kept = sum(max(0.0, min(want, share) - held.get(one, 0)) for one, want in wants.items())
    return SharedCapacity.FREE if mine + size <= share or total + size + kept <= limit else SharedCapacity.KEPT


def fair_share(limit: float, wants: Collection[float]) -> float:
    """The most that one can have where all have alike, but for those who want less and leave it to the others."""
    left = limit
    for i, want in enumerate(sorted(wants)):
        share = left / (len(wants) - i)
        if want > share:
            return share
        left -= want
    return math.inf


class Shares:
    """Shares a bounded room out, and remembers who wanted how much of it. `clock` tells seconds and is monotonic."""

    def __init__(self, limit: float, clock: Callable[[], float], window_s: float = _WINDOW_S) -> None:
        self._limit = limit
        self._clock = clock
        self._window_s = window_s
        self._window = 0
        self._before: dict[str, float] = {}
        self._used: dict[str, float] = {}
        self._refused: Counter[str] = Counter()
        self._wanted: dict[str, float] = {}

    def ask(self, size: float, owner: str, held: Mapping[str, float], own: float = 0) -> SharedCapacity:
        """Whether an owner may take so much more, of which note is taken. See `capacity_for`."""
        self._turn_over(int(self._clock() / self._window_s))
        found = capacity_for(size, owner, limit=self._limit, held=held, wanted=self._wanted, own=own)
        free = found is SharedCapacity.FREE
        self._used[owner] = max(self._used.get(owner, 0), held.get(owner, 0) + (size if free else 0))
        if not free:
            self._refused[owner] += math.ceil(size)
        want = self._used[owner] + self._refused[owner]
        self._wanted[owner] = max(self._before.get(owner, 0), want)
        return found

    def _turn_over(self, window: int) -> None:
        """Forget what was wanted before the last window."""
        if window == self._window:
            return
        last = {owner: used + self._refused[owner] for owner, used in self._used.items()}
        self._before = last if window == self._window + 1 else {}
        self._window, self._used, self._wanted = window, {}, dict(self._before)
        self._refused.clear()


@dataclass(slots=True, eq=False)
class _Piece:
    size: int
    turn: asyncio.Future[None]


class FairGate:
    """Lets work in while there is room for it; owners take turns, and within one whoever came first is first.

    Whoever comes later waits behind who has the next turn, also where it would fit: or large pieces would never begin.
    One that is larger than all the room has it alone. `spare` is so much more, for owners that have nothing at work.
    """

    def __init__(self, room: int, *, spare: int = 0) -> None:
        self.free = room
        self._room = room
        self._spare = spare
        self._queue = FairQueue[_Piece]()

    @property
    def waiting(self) -> Mapping[str, int]:
        """How much each owner's work that waits here will take; it counts as large as it is."""
        sizes: Counter[str] = Counter()
        for owner, piece in self._queue.in_turn():
            if not piece.turn.done():
                sizes[owner] += piece.size
        return sizes

    @asynccontextmanager
    async def place(self, owner: str, size: int = 1) -> AsyncIterator[None]:
        """Wait for room of this size, and hold it."""
        piece = _Piece(min(size, self._room), asyncio.get_running_loop().create_future())
        self._queue.put(owner, piece)
        self._let_in()
        try:
            await piece.turn
        except asyncio.CancelledError:
            if not self._queue.remove(owner, piece):
                self._give_back(owner, piece.size)
            self._let_in()
            raise
        try:
            yield
        finally:
            self._give_back(owner, piece.size)

    def _give_back(self, owner: str, size: int) -> None:
        self.free += size
        self._queue.give_back(owner, size)
        self._let_in()

    def _let_in(self) -> None:
        while (first := self._first()) is not None:
            owner, piece = first
            spare = 0 if self._queue.at_work(owner) else self._spare
            if piece.size > self.free + spare:
                break
            self.free -= piece.size
            self._queue.take(owner, piece, piece.size)
            piece.turn.set_result(None)

    def _first(self) -> tuple[str, _Piece] | None:
        """Who has the next turn. One that was cancelled and is not yet awake to leave has none."""
        return next((waits for waits in self._queue.in_turn() if not waits[1].turn.done()), None)
