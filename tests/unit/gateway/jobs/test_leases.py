"""Which processes are gone: by their locks beside an embedded database, by their leases everywhere."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from gateway.ledger.store import Ledger
from gateway.process import ticks
from tests.support.ledgers import ledger, outlast

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


# A process that starts and ends over and over, and looks each time whether the others still see its lock.
STARTING = """
import fcntl, pathlib, sys
from gateway.ledger.leases import Leases

def robbed(path):
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True

folder, count = pathlib.Path(sys.argv[1]), 0
for _ in range(int(sys.argv[2])):
    one = Leases(None, lease_s=30, folder=folder)
    one.lock()
    count += robbed(folder / one.id)
    one.unlock()
print(count)
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
    return await ledger.database.read(lambda connection: ledger.processes.is_dead(connection, process))


@pytest.mark.system
async def test_a_killed_process_is_gone_with_its_lease(tmp_path: Path) -> None:
    """A process is there while it holds its lock, however long it is silent; after SIGKILL it is gone, once its lease
    has lapsed."""
    async with ledger(tmp_path, lease_s=LEASE_S) as here:
        with other(tmp_path) as (process, name):
            await outlast(here, 3)
            assert not await is_gone(here, name)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert await is_gone(here, name)
        with other(tmp_path) as (process, name):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert not await is_gone(here, name)
            await outlast(here)
            assert await is_gone(here, name)
        assert not await is_gone(here, here.process)


async def test_a_lapsed_lease_without_a_lock_is_gone(tmp_path: Path) -> None:
    """A process whose lock is free and that has not been heard of for too long is gone, until it is heard of again."""
    async with ledger(tmp_path, lease_s=LEASE_S) as here, ledger(tmp_path, lease_s=LEASE_S) as there:
        there.processes.unlock()
        await outlast(here, 0.75)
        assert not await is_gone(here, there.process)
        await outlast(here, 0.25)
        assert await is_gone(here, there.process)
        await there.processes.heartbeat()
        assert not await is_gone(here, there.process)


async def test_a_lock_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    """A living process whose file somebody has removed, with its folder or without, has its lock again with a beat."""
    async with ledger(tmp_path, lease_s=LEASE_S) as here, ledger(tmp_path, lease_s=LEASE_S) as there:
        folder = tmp_path / "processes"
        for whole in (False, True):
            await there.processes.heartbeat()
            if whole:
                shutil.rmtree(folder)
            else:
                (folder / there.process).unlink()
            assert not await is_gone(here, there.process)  # its lease has not lapsed
            await there.processes.heartbeat()
            assert (folder / there.process).exists()
            await outlast(here, 2)
            assert not await is_gone(here, there.process)
        (folder / there.process).unlink()
        (folder / there.process).touch()  # not the file that is locked
        await there.processes.heartbeat()
        await outlast(here, 2)
        assert not await is_gone(here, there.process)


@pytest.mark.parametrize("step", [-100_000.0, 100_000.0])
async def test_a_step_of_the_wall_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Leases are not held by a clock that can be set: after a step of a day the living are there and the dead gone."""
    async with (
        ledger(tmp_path, lease_s=LEASE_S) as here,
        ledger(tmp_path, lease_s=LEASE_S) as there,
        ledger(tmp_path, lease_s=LEASE_S) as dead,
    ):
        for one in (there, dead):
            one.processes.unlock()  # by their leases alone, as over a Postgres
        await here.processes.heartbeat()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + step)
        await here.processes.heartbeat()
        assert not await is_gone(here, there.process)
        for _ in range(5):
            await there.processes.heartbeat()
            await outlast(here, 0.25)
        assert not await is_gone(here, there.process)
        assert await is_gone(here, dead.process)
        assert there.processes.sure


async def test_who_was_away_himself_buries_nobody(tmp_path: Path) -> None:
    """A process that was paused, or had no database, for longer than a lease has not watched the others meanwhile."""
    async with ledger(tmp_path, lease_s=LEASE_S) as here, ledger(tmp_path, lease_s=LEASE_S) as there:
        there.processes.unlock()
        await here.processes.heartbeat()
        here.processes._clock = lambda: ticks() + 10 * LEASE_S
        assert not here.processes.sure
        assert not here.processes.renewed
        assert not await is_gone(here, there.process)
        await here.processes.heartbeat()
        assert not await is_gone(here, there.process)
        assert here.processes.sure


@pytest.mark.system
def test_processes_that_start_together(tmp_path: Path) -> None:
    """Of processes that start, look and end at the same time none takes another one's lock for free."""
    command = [sys.executable, "-c", STARTING, str(tmp_path / "processes"), "150"]
    starting = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    robbed = [process.communicate(timeout=100)[0].strip() for process in starting]

    assert robbed == ["0"] * 6
    assert [process.returncode for process in starting] == [0] * 6
    assert list((tmp_path / "processes").iterdir()) == []


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
    """Over a Postgres a killed process is there until it has not been heard of for as long as a lease."""
    async with ledger(tmp_path, postgres_ledger, lease_s=LEASE_S) as here:
        with other(tmp_path, postgres_ledger) as (process, name):
            process.kill()
            process.wait()
        assert not await is_gone(here, name)
        assert not (tmp_path / "processes").exists()
        await outlast(here)
        assert await is_gone(here, name)
        assert not await is_gone(here, here.process)


@pytest.mark.system
async def test_a_step_of_the_database_clock(tmp_path: Path, postgres_ledger: str) -> None:
    """A Postgres whose clock is set neither buries the living nor keeps the dead: nobody compares with its time."""
    async with (
        ledger(tmp_path, postgres_ledger, lease_s=LEASE_S) as here,
        ledger(tmp_path, postgres_ledger, lease_s=LEASE_S) as there,
    ):
        for step in (-3600.0, 3600.0):
            await here.database.write(partial(stepped, seconds=step))
            await here.processes.heartbeat()
            assert not await is_gone(here, there.process)
        await outlast(here)
        assert await is_gone(here, there.process)


def stepped(connection: Connection, seconds: float) -> None:
    """Leave the leases as they would be had the database's clock been set so much back, or forward."""
    connection.exec_driver_sql(_STEPPED, (seconds, seconds))


_STEPPED = "UPDATE processes SET beat_at = beat_at + %s, lease_until = lease_until + %s"


@pytest.mark.system
@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_own_clocks_do_not_matter_on_postgres(tmp_path: Path, postgres_ledger: str, skew: float) -> None:
    """A machine whose clock is an hour off neither buries the living nor lives longer itself."""
    async with ledger(tmp_path, postgres_ledger, lease_s=LEASE_S) as here, ledger(tmp_path, postgres_ledger) as there:
        here.processes._clock = lambda: time.time() + skew
        await here.processes.heartbeat()
        await there.processes.heartbeat()
        beats = await here.processes.beats()
        assert abs(beats[here.process] - beats[there.process]) < LEASE_S
        assert not await is_gone(here, there.process)
