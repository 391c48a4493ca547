"""What else befalls gateways beside kills: each trouble begins, lasts for a while, and is over."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random
from typing import Protocol

from tests.chaos.gateway import Gateway
from tests.support.postgres import Postgres
from tests.support.sick_postgres import read_only

# How long a trouble lasts, in seconds. The lease of a gateway's process is one second.
_SHORTEST_S, _LONGEST_S = 0.5, 3.0


class Trouble(Protocol):
    """One kind of trouble."""

    @property
    def name(self) -> str: ...

    def begin(self) -> None: ...

    def end(self) -> None: ...


class Pause:
    """A process stands still, in most cases for longer than its lease, and goes on as if nothing had been."""

    name = "a pause"

    def __init__(self, gateways: Sequence[Gateway], random: Random) -> None:
        self._gateways = gateways
        self._random = random
        self._chosen: Gateway | None = None

    def begin(self) -> None:
        self._chosen = self._random.choice([one for one in self._gateways if one.alive])
        self._chosen.send(signal.SIGSTOP)

    def end(self) -> None:
        assert self._chosen is not None
        self._chosen.send(signal.SIGCONT)


class StoreAway:
    """The folder of finished pictures is no folder any more."""

    name = "the store is away"

    def __init__(self, data: Path) -> None:
        self._files, self._beside = data / "files", data / "away"

    def begin(self) -> None:
        self._files.rename(self._beside)
        self._files.write_text("no folder any more")

    def end(self) -> None:
        self._files.unlink()
        try:
            self._beside.rename(self._files)
        except OSError:
            # A gateway that is quicker has made the folder anew, and has perhaps put something there.
            shutil.copytree(self._beside, self._files, dirs_exist_ok=True)
            shutil.rmtree(self._beside)


class ReadOnly:
    """The database takes no writes."""

    name = "a read-only database"

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._illness: AbstractContextManager[None] = nullcontext()

    def begin(self) -> None:
        self._illness = read_only(self._server, "postgres")
        self._illness.__enter__()

    def end(self) -> None:
        self._illness.__exit__(None, None, None)


class Together:
    """All processes are killed, and start at the same moment."""

    name = "all start together"

    def __init__(self, gateways: Sequence[Gateway]) -> None:
        self._gateways = gateways
        self._killed: list[Gateway] = []

    def begin(self) -> None:
        self._killed = [one for one in self._gateways if one.alive]
        for one in self._killed:
            one.kill()

    def end(self) -> None:
        with ThreadPoolExecutor(len(self._killed)) as pool:
            list(pool.map(Gateway.start, self._killed))


def troubles_of(
    gateways: Sequence[Gateway], random: Random, data: Path, server: Postgres | None = None
) -> list[Trouble]:
    """Every kind that these gateways can be in: over `data`, and over a Postgres where that is their ledger."""
    found: list[Trouble] = [Pause(gateways, random), StoreAway(data), Together(gateways)]
    return [*found, ReadOnly(server)] if server is not None else found


class Troubles:
    """Lets one trouble after another befall the gateways: each kind in turn, beginning with any."""

    def __init__(self, kinds: Sequence[Trouble], random: Random) -> None:
        self.met: dict[str, int] = dict.fromkeys((kind.name for kind in kinds), 0)
        """How often each was met."""
        self._kinds = random.sample(list(kinds), len(kinds))
        self._random = random

    async def meet(self) -> str:
        """Let the next one begin, wait, and end it; what it is called."""
        trouble = self._kinds[sum(self.met.values()) % len(self._kinds)]
        await asyncio.to_thread(trouble.begin)
        try:
            await asyncio.sleep(self._random.uniform(_SHORTEST_S, _LONGEST_S))
        finally:
            await asyncio.to_thread(trouble.end)
        self.met[trouble.name] += 1
        return trouble.name
