"""The processes that are measured: started, looked at from outside, stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.bench.load import Done, Task
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.running import clean_environ

_TICKS = os.sysconf("SC_CLK_TCK")
_START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers. `first_s` is from the start of its process to its first answer, in seconds."""

    url: str
    pid: int
    first_s: float

    @property
    def cpu(self) -> float:
        """CPU seconds so far, with those of the processes that it has now."""
        return sum(_cpu(pid) for pid in [self.pid, *_children(self.pid)])

    def threads(self) -> dict[int, float]:
        """CPU milliseconds of each thread, by its id; the first one's is the process's."""
        found = {}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            found[int(task.name)] = (int(fields[11]) + int(fields[12])) / _TICKS * 1000
        return found

    @property
    def resident(self) -> float:
        """Resident memory in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def peak(self) -> float:
        """The most resident memory since `forget_peak`, in MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6

    def forget_peak(self) -> None:
        """Let the peak begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def upstream(picture: Path, seconds: float = 0.0) -> Iterator[Server]:
    """The fast upstream that gives this picture, after so many seconds."""
    port = free_port()
    with _running(["-m", "tests.bench.upstream", str(port), str(picture), str(seconds)], port, "/done") as server:
        yield server


@contextmanager
def floor(kind: str, upstream: Server) -> Iterator[Server]:
    """A floor, `raw` or `plain`."""
    port = free_port()
    with _running(["-m", "tests.bench.floors", kind, str(port), upstream.url], port, None) as server:
        yield server


@contextmanager
def darkroom(
    data: Path, upstream: Server, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[Server, str]]:
    """A gateway before the upstream, and a key of its register with a budget, a rate and a bound on its jobs.

    Nothing is off that is on by itself.
    """
    told = {
        "DARKROOM_DATA": str(data),
        "DARKROOM_GATEWAY__URL_ALLOW": json.dumps([upstream.url.removeprefix("http://")]),
        "DARKROOM_PROVIDERS__LOCAL__WORKERS": "[]",
        **(environ or via_fal(upstream)),
    }
    made = subprocess.run(
        [sys.executable, "-m", "gateway", "keys", "create", "--name", "bench", "--budget", "1000000/month",
         "--rpm", "100000", "--concurrency", "10000", "--json"],
        env=clean_environ(**told), cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    port = free_port()
    with _running(["-m", "gateway", "serve", "--port", str(port), *arguments], port, "/readyz", told) as server:
        yield server, json.loads(made.stdout)["key"]


def via_fal(upstream: Server) -> dict[str, str]:
    """Settings by which calls go to fal's synchronous host."""
    hosts = {f"DARKROOM_PROVIDERS__FAL__{name}_URL": upstream.url for name in ("RUN", "API", "QUEUE", "REST")}
    return {"FAL_KEY": "a:b", "DARKROOM_PROVIDERS__FAL__MODE": "run", **hosts}


def via_replicate(upstream: Server) -> dict[str, str]:
    """Settings by which calls go to Replicate."""
    return {"REPLICATE_API_TOKEN": "r8_bench", "DARKROOM_PROVIDERS__REPLICATE__BASE_URL": upstream.url}


def via_cog(upstream: Server) -> dict[str, str]:
    """Settings by which calls go to a Cog worker."""
    return {"DARKROOM_PROVIDERS__LOCAL__WORKERS": json.dumps([upstream.url])}


@contextmanager
def calling(task: Task) -> Iterator[subprocess.Popen[str]]:
    """The caller, while it calls; `answered` waits for it."""
    command = [sys.executable, "-m", "tests.bench.load", json.dumps(asdict(task))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answered(process: subprocess.Popen[str]) -> Done:
    """What the caller found."""
    out, _ = process.communicate()
    assert process.returncode == 0, "a call went wrong"
    return Done(**json.loads(out))


def call(task: Task) -> Done:
    """Make the calls, and wait for their end."""
    with calling(task) as process:
        return answered(process)


@contextmanager
def _running(
    arguments: Sequence[str], port: int, ready: str | None, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], env=clean_environ(**(environ or {})), cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                answer = httpx.get(f"{url}{ready or '/'}", trust_env=False)
                if ready is None or answer.status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.01)
            assert process.poll() is None, f"{arguments[1]} did not start"
            assert time.perf_counter() - began < _START_S, f"{arguments[1]} does not answer"
        yield Server(url=url, pid=process.pid, first_s=time.perf_counter() - began)
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
