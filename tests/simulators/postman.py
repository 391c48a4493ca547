"""How the simulated providers deliver webhooks, and what goes wrong with that on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import httpx

_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message. `sign` makes its headers anew for each try, with a key that is not ours where it is to be forged."""

    event: str
    address: str
    body: bytes = field(repr=False)
    sign: Callable[[bool], Mapping[str, str]]
    last: bool = False


@dataclass
class Postman:
    """Delivers the letters of a job to its webhook. Follows no redirect; tries the last letter of a job again.

    `off` delivers nothing, `copies` is how often each letter comes, `late_s` how late in seconds, `shuffled` keeps all
    letters of a job to its end and begins with the last, `forged` signs them with a stranger's key.
    """

    off: bool = False
    copies: int = 1
    late_s: float = 0.0
    shuffled: bool = False
    forged: bool = False
    patience_s: float = 5.0
    """For how long the last letter is tried again."""
    tries: list[tuple[str, str, int | None]] = field(default_factory=list)
    """Event, address and status of everything that was sent; None where nobody answered."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def carry(self, letters: AsyncIterator[Letter]) -> None:
        """Deliver letters as they come, beside everything else."""
        if not self.off:
            task = asyncio.create_task(self._round(letters))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _round(self, letters: AsyncIterator[Letter]) -> None:
        # No certificates: to read them takes longer than a job.
        async with httpx.AsyncClient(timeout=2, verify=False, trust_env=False) as client:
            kept = []
            async for letter in letters:
                kept.append(letter)
                if not self.shuffled:
                    await self._deliver(client, kept.pop())
            for letter in reversed(kept):
                await self._deliver(client, letter)

    async def _deliver(self, client: httpx.AsyncClient, letter: Letter) -> None:
        await asyncio.sleep(self.late_s)
        for _ in range(self.copies):
            pause, until = _PAUSE_S, asyncio.get_running_loop().time() + self.patience_s
            while not await self._post(client, letter) and letter.last:
                if asyncio.get_running_loop().time() + pause > until:
                    break
                await asyncio.sleep(pause)
                pause *= 2

    async def _post(self, client: httpx.AsyncClient, letter: Letter) -> bool:
        headers = {"content-type": "application/json", **letter.sign(self.forged)}
        try:
            response = await client.post(letter.address, content=letter.body, headers=headers)
        except httpx.HTTPError:
            self.tries.append((letter.event, letter.address, None))
            return False
        self.tries.append((letter.event, letter.address, response.status_code))
        return response.is_success
