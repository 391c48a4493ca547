"""The worker that a gateway starts for itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from providers.worker.supervisor import EmbeddedWorker
from tests.support.workers import HERE, PLAY, await_status, ended, play, until


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds the engine of these tests."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@contextmanager
def embedded(*arguments: str) -> Iterator[EmbeddedWorker]:
    worker = EmbeddedWorker(arguments)
    worker.start()
    try:
        await_status(worker.url, "READY")
        yield worker
    finally:
        worker.stop(5)


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_killed_child_is_replaced() -> None:
    """A child that is killed is started again and again, on the same address; who calls meanwhile is answered."""
    with embedded(*PLAY) as worker:
        for _ in range(2):
            killed = worker.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await until(lambda killed=killed: worker.pid != killed)  # type: ignore[misc]
            # The socket is open all the while: this waits for the next child.
            async with httpx.AsyncClient(base_url=worker.url, timeout=30) as client:
                assert (await client.get("/")).status_code == 200
            assert worker.pid not in {None, killed}
            await_status(worker.url, "READY")
        async with httpx.AsyncClient(base_url=worker.url, timeout=30) as client:
            assert (await client.post("/predictions", json=play())).json()["status"] == "succeeded"


async def test_child_that_keeps_dying(capfd: pytest.CaptureFixture[str]) -> None:
    """A child that cannot even start is tried again, ever more slowly, and does not stop `stop`."""
    said: list[str] = []

    def pauses() -> list[str]:
        said.extend(line for line in capfd.readouterr().err.splitlines() if line.startswith("embedded worker: "))
        return [line.rpartition(" in ")[2] for line in said]

    worker = EmbeddedWorker(["--engine=nothing"])
    worker.start()
    await until(lambda: len(pauses()) >= 4)
    worker.stop(5)

    assert pauses()[:4] == ["0.1 s", "0.2 s", "0.4 s", "0.8 s"]
    assert worker.pid is None


async def test_stop() -> None:
    """`stop` lets the child finish what it has, leaves no process, and may be called twice."""
    with embedded(*PLAY) as worker:
        pid = worker.pid
        assert pid is not None
        async with httpx.AsyncClient(base_url=worker.url, timeout=10) as client:
            held = asyncio.create_task(client.post("/predictions", json=play(seconds=0.7)))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(worker.stop, 10)
            assert (await held).json()["status"] == "succeeded"
        assert not alive(pid)
        assert worker.pid is None
        worker.stop(10)
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", httpx.URL(worker.url).port)


@pytest.mark.parametrize("engine", ["Play", "Deaf"])
async def test_stop_after_the_grace(engine: str) -> None:
    """When the grace is over, what runs is cancelled and answered; a child that does not hear that is killed."""
    with embedded(f"--engine=play_engines:{engine}") as worker:
        pid = worker.pid
        assert pid is not None
        async with httpx.AsyncClient(base_url=worker.url, timeout=10) as client:
            held = asyncio.create_task(client.post("/predictions", json=play(seconds=20)))
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await asyncio.to_thread(worker.stop, 0.5)
            assert 0.5 < time.monotonic() - began < 3
            if engine == "Play":
                assert (await held).json()["status"] == "canceled"
            else:
                with pytest.raises(httpx.TransportError):
                    await held
        assert not alive(pid)


def test_stop_before_start() -> None:
    """One that was never started can be stopped, and not be started any more."""
    worker = EmbeddedWorker()
    worker.stop(1)

    with pytest.raises(RuntimeError):
        worker.start()


PARENT = """
import sys, time
from providers.worker.supervisor import EmbeddedWorker

worker = EmbeddedWorker(sys.argv[1:])
worker.start()
print(worker.url, worker.pid, flush=True)
time.sleep(60)
"""


@contextmanager
def gateway() -> Iterator[tuple[subprocess.Popen[bytes], str, int]]:
    """A process that has an embedded worker, its address and its process id."""
    argv = [sys.executable, "-c", PARENT, *PLAY]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with ended(parent):
        assert parent.stdout
        with parent.stdout as said:
            url, pid = said.readline().decode().split()
        await_status(url, "READY")
        yield parent, url, int(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_child_does_not_outlive_its_parent(number: signal.Signals) -> None:
    """However the parent ends, the child finishes what it has and ends too."""
    with gateway() as (parent, url, pid):
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            held = asyncio.create_task(client.post("/predictions", json=play(seconds=0.7)))
            await asyncio.sleep(0.3)
            parent.send_signal(number)
            parent.wait()
            assert (await held).json()["status"] == "succeeded"
        await until(lambda: not alive(pid))


def test_child_has_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decodes strangers' pictures has none of the gateway's secrets in its environment."""
    monkeypatch.setenv("FAL_KEY", "secret-1")
    monkeypatch.setenv("DARKROOM_API_KEYS", "secret-2")
    with embedded() as worker:
        environ = Path(f"/proc/{worker.pid}/environ").read_bytes()

    assert b"PATH=" in environ
    assert b"secret" not in environ


def test_default_engine() -> None:
    """Without arguments it is the engine that a gateway's model `lanczos-bp` asks for."""
    with embedded() as worker:
        document = httpx.get(f"{worker.url}/openapi.json").json()

    assert document["info"]["title"] == "lanczos-bp"
    assert {"image", "scale", "sharpen"} <= document["components"]["schemas"]["Input"]["properties"].keys()
