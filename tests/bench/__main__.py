"""`make bench`: what a call costs. Prints one table; compare within one run only, for machines are noisy."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from normalization.headers import sniff
from normalization.images import finish
from normalization.values import Format, Resize, Size, Transcode
from providers import http

ROOT = Path(__file__).resolve().parent.parent.parent
PHOTO = (ROOT / "tests" / "data" / "coffee.png").read_bytes()
TICKS = os.sysconf("SC_CLK_TCK")
FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp", "gif", "avif")


def main() -> None:
    """Measure and print."""
    print("conversion of 600x400, CPU ms (least of 5)")
    header = sniff(PHOTO)
    for name in FORMATS:
        row("to " + name, least(lambda name=name: finish(PHOTO, header, [Transcode(format=name)])))
    half = Resize(size=Size(width=300, height=300))
    row("crop to 300x300, png", least(lambda: finish(PHOTO, header, [half, Transcode(format="png")])))
    row("right already", least(lambda: finish(PHOTO, header, [Transcode(format="png")])))
    with serving() as (url, pid, first):
        print("\nPOST /openai/v1/images/edits, lanczos-bp at factor 1, 600x400 png in and out")
        row("first answer after the start, s", first)
        row("resident memory at rest, MB", memory(pid))
        for concurrency in (1, 8):
            asyncio.run(load(url, pid, concurrency, 200))
        row("resident memory after, MB", memory(pid))


def row(name: str, value: float) -> None:
    """One line of the table."""
    print(f"  {name:<42} {value:10.2f}")


def least(work: object) -> float:
    """CPU milliseconds of a call, the least of five."""
    assert callable(work)
    times = []
    for _ in range(5):
        began = time.process_time()
        work()
        times.append((time.process_time() - began) * 1000)
    return min(times)


@contextmanager
def serving() -> Iterator[tuple[str, int, float]]:
    """A gateway with its worker; its address, its process and the seconds to its first answer."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as data:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--port", str(port)],
            env={**os.environ, "DARKROOM_DATA": data},
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )
        try:
            while True:
                try:
                    if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.01)
                assert process.poll() is None, "the gateway did not start"
            yield url, process.pid, time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(30)


async def load(url: str, pid: int, concurrency: int, calls: int) -> None:
    """Send calls at a concurrency and print latency, throughput and the gateway's CPU."""
    latencies: list[float] = []
    left = iter(range(calls))

    async def caller(client: httpx.AsyncClient) -> None:
        for _ in left:
            began = time.perf_counter()
            files = {"image": ("coffee.png", PHOTO, "image/png")}
            form = {"model": "lanczos-bp", "scale_factor": "1", "response_format": "b64_json"}
            answer = await client.post(f"{url}/openai/v1/images/edits", data=form, files=files)
            assert answer.status_code == 200, answer.text[:300]
            latencies.append((time.perf_counter() - began) * 1000)

    async with http.client() as client:
        cpu, began = used(pid), time.perf_counter()
        await asyncio.gather(*(caller(client) for _ in range(concurrency)))
        wall, cpu = time.perf_counter() - began, used(pid) - cpu
    ranked = sorted(latencies)
    print(f"  at {concurrency}:")
    row("p50 ms", statistics.median(ranked))
    row("p99 ms", ranked[int(len(ranked) * 0.99) - 1])
    row("requests a second", calls / wall)
    row("gateway CPU s per 1,000 requests", cpu / calls * 1000)


def used(pid: int) -> float:
    """CPU seconds of a process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
