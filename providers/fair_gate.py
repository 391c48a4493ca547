"""Room of a fixed size that pieces of work wait for, the owners of which take turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from providers.fairness import FairQueue


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
