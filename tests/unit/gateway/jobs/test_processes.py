"""Which processes are gone: by their locks beside an embedded database, by their leases everywhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.jobs.ledger import Ledger
from tests.support.ledgers import ledger

LEASE_S = 30.0
# A process as it is in the ledger: its lock, its lease, and work that does not end.
OTHER = """
import asyncio, pathlib, sys
from tests.support.ledgers import ledger

async def main():
    async with ledger(pathlib.Path(sys.argv[1]), sys.argv[2] or None, lease_s=float(sys.argv[3])) as opened:
        print(opened.process, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def other(folder: Path, url: str | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process over the same database, and its name there."""
    command = [sys.executable, "-c", OTHER, str(folder), url or "", str(LEASE_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


async def is_gone(ledger: Ledger, process: str) -> bool:
    """What the ledger of one process says about another."""
    return await ledger.database.read(lambda connection: ledger.processes.gone(connection, process))


@pytest.mark.system
async def test_a_killed_process_is_gone_at_once(tmp_path: Path) -> None:
    """A process is there while it holds its lock, and gone when SIGKILL has ended it, long before its lease."""
    async with ledger(tmp_path, lease_s=LEASE_S) as here:
        with other(tmp_path) as (process, name):
            assert not await is_gone(here, name)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert await is_gone(here, name)
            assert (await here.processes.beats())[name] + LEASE_S > time.time()
        assert not await is_gone(here, here.process)


async def test_a_lapsed_lease_is_gone(tmp_path: Path) -> None:
    """A process that holds its lock and has not been heard of for too long is gone, until it is heard of again."""
    async with ledger(tmp_path, lease_s=LEASE_S) as here, ledger(tmp_path, lease_s=LEASE_S) as there:
        assert not await is_gone(here, there.process)
        here.processes._clock = lambda: time.time() + LEASE_S + 1
        assert await is_gone(here, there.process)
        there.processes._clock = here.processes._clock
        await there.processes.beat()
        assert not await is_gone(here, there.process)


async def test_one_that_left_or_never_was(tmp_path: Path) -> None:
    """Whoever has ended well, or is known to nobody, is gone; and a start removes the locks of the dead."""
    async with ledger(tmp_path) as here:
        async with ledger(tmp_path) as there:
            name = there.process
        assert await is_gone(here, name)
        assert await is_gone(here, "proc_nobody")
        (tmp_path / "processes" / "proc_dead").touch()
        async with ledger(tmp_path) as third:
            assert {path.name for path in (tmp_path / "processes").iterdir()} == {here.process, third.process}


@pytest.mark.system
async def test_on_other_machines_by_lease(tmp_path: Path, postgres_ledger: str) -> None:
    """Over a Postgres a killed process is there until its lease lapses by the database's own clock."""
    async with ledger(tmp_path, postgres_ledger, lease_s=LEASE_S) as here:
        with other(tmp_path, postgres_ledger) as (process, name):
            process.kill()
            process.wait()
        assert not await is_gone(here, name)
        assert not (tmp_path / "processes").exists()
        await here.database.write(lambda c: c.exec_driver_sql(_LAPSED, (name,)))
        assert await is_gone(here, name)
        assert not await is_gone(here, here.process)


_LAPSED = "UPDATE processes SET lease_until = extract(epoch from clock_timestamp()) - 1 WHERE id = %s"


@pytest.mark.system
@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_own_clocks_do_not_matter_on_postgres(tmp_path: Path, postgres_ledger: str, skew: float) -> None:
    """A machine whose clock is an hour off neither buries the living nor lives longer itself."""
    async with ledger(tmp_path, postgres_ledger, lease_s=LEASE_S) as here, ledger(tmp_path, postgres_ledger) as there:
        here.processes._clock = lambda: time.time() + skew
        await here.processes.beat()
        await there.processes.beat()
        beats = await here.processes.beats()
        assert abs(beats[here.process] - beats[there.process]) < LEASE_S
        assert not await is_gone(here, there.process)
