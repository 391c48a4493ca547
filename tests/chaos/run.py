"""A chaotic run: calls of all kinds, providers in a storm, and gateways that are killed under them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos import ledger
from tests.chaos.account import Account, settled
from tests.chaos.calls import Call, calls
from tests.chaos.clients import Answer, Client
from tests.chaos.gateway import Gateway
from tests.chaos.providers import Clouds
from tests.chaos.troubles import Troubles

# What the last jobs are given to end, in seconds, once nobody calls and nobody kills any more.
_SETTLE_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a run is. `seed` draws the calls, the weather and the strikes; how they interleave is the machine's.

    Between the kills there are so many other `troubles`. `share` of what providers are asked goes wrong (0 to 1);
    `at_once` calls are under way together.
    """

    calls: int
    kills: int
    seed: int
    troubles: int = 0
    share: float = 0.2
    at_once: int = 24


SMALL = Size(calls=40, kills=3, seed=0, troubles=2)
FULL = Size(calls=300, kills=12, seed=0, troubles=8)


class Killer:
    """Kills gateways and starts them again; with `for_good` one of them stays away after so many kills."""

    def __init__(self, gateways: Sequence[Gateway], random: Random, *, for_good: int | None = None) -> None:
        self.kills = 0
        self._gateways = list(gateways)
        self._random = random
        self._for_good = for_good

    @property
    def survivor(self) -> Gateway:
        """One that runs when there are no more kills."""
        return self._gateways[0]

    async def strike(self) -> None:
        """Wait a little, kill one, and start it again a little later."""
        near, far = self._random.uniform(0.1, 0.6), self._random.uniform(0.6, 3.0)
        await asyncio.sleep(self._random.choice((near, far)))
        victim = self._random.choice(self._gateways)
        await asyncio.to_thread(victim.kill)
        self.kills += 1
        if self.kills == self._for_good:
            self._gateways.remove(victim)
            return
        await asyncio.sleep(self._random.uniform(0, 0.5))
        await asyncio.to_thread(victim.start)


def chaos(
    size: Size,
    clouds: Clouds,
    killer: Killer,
    base_url: str,
    troubles: Troubles | None = None,
    say: Callable[[str], None] = print,
) -> Account:
    """Make all calls at `base_url` while `killer` strikes, let everything end, and draw up the account."""
    made = calls(size.calls, Random(f"{size.seed} calls"))
    say(f"{size.calls} calls, {size.kills} kills, {size.troubles} troubles, {size.share:.0%} faults, seed {size.seed}")
    answers = asyncio.run(_storm(made, size, clouds, killer, base_url, troubles, say))
    for name, count in troubles.met.items() if troubles else ():
        say(f"{count} times {name}")
    url = killer.survivor.url
    say(f"the last jobs ended {ledger.settle(url, _SETTLE_S):.1f} s after the last answer")
    entries = ledger.read(url, {call.seed: call.colour for call in made})
    return settled(answers, entries, clouds.bills())


async def _storm(
    made: Sequence[Call],
    size: Size,
    clouds: Clouds,
    killer: Killer,
    base_url: str,
    troubles: Troubles | None,
    say: Callable[[str], None],
) -> list[Answer]:
    client = Client(base_url)
    places = asyncio.Semaphore(size.at_once)
    answers: list[Answer] = []
    began = time.monotonic()
    kills, others = size.kills, size.troubles if troubles else 0
    strikes = ["kill"] * kills + ["trouble"] * others
    Random(f"{size.seed} strikes").shuffle(strikes)

    async def make(call: Call) -> None:
        async with places:
            answers.append(await client.make(call))

    try:
        async with asyncio.TaskGroup() as group:
            # So many calls before each strike: there is traffic under every one of them.
            parts = len(strikes) + 1
            for part in range(parts):
                for call in made[part * len(made) // parts : (part + 1) * len(made) // parts]:
                    group.create_task(make(call))
                if part < len(strikes):
                    if strikes[part] == "kill" or troubles is None:
                        await killer.strike()
                        what = f"kill {killer.kills}"
                    else:
                        what = await troubles.meet()
                    met = sum(storm.met for storm in clouds.storms.values())
                    say(f"{time.monotonic() - began:6.1f} s: {what}, {len(answers)} answers, {met} faults")
    finally:
        await client.aclose()
    say(f"{time.monotonic() - began:6.1f} s: {len(answers)} answers")
    return answers
