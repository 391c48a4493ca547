"""Darkroom beside the floors, in alternating blocks: what it adds, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import pictures, processes
from tests.bench.load import Done, Task
from tests.bench.processes import Server
from tests.bench.report import median, percentile, table

# Calls in a block, by the concurrency.
_CALLS = {1: 60, 16: 320, 64: 640}
ROUNDS = 4


@dataclass(slots=True)
class Seen:
    """What the blocks of one server at one concurrency gave."""

    ms: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """CPU seconds for 1,000 calls, a block each."""

    def add(self, done: Done, cpu: float) -> None:
        self.ms += done.ms
        self.per_s.append(len(done.ms) / done.wall_s)
        self.cpu.append(cpu / len(done.ms) * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The servers that are compared, by their names, and what each of them is asked."""

    servers: Mapping[str, Server]
    tasks: Mapping[str, Task]

    def block(self, name: str, calls: int, concurrent: int) -> tuple[Done, float]:
        """One block of calls: what the caller found, and the CPU seconds of the server."""
        task = self.tasks[name]
        before = self.servers[name].cpu
        done = processes.call(
            Task(url=task.url, key=task.key, image=task.image, wanted=task.wanted, calls=calls,
                 concurrent=concurrent, factor=task.factor, direct=task.direct)
        )  # fmt: skip
        return done, self.servers[name].cpu - before


@contextmanager
def stage(folder: Path, sides: tuple[int, int], factor: int, *, plain: bool = True) -> Iterator[Stage]:
    """An upstream, the floors before it, and Darkroom."""
    width, height = sides
    sent, given = folder / f"sent-{width}.png", folder / f"given-{width}.png"
    sent.write_bytes(pictures.upload(width, height))
    given.write_bytes(pictures.result(width * factor, height * factor))
    with ExitStack() as stack:
        upstream = stack.enter_context(processes.upstream(given))
        servers = {"direct": upstream, "raw": stack.enter_context(processes.floor("raw", upstream))}
        if plain:
            servers["plain"] = stack.enter_context(processes.floor("plain", upstream))
        servers["darkroom"], key = stack.enter_context(processes.darkroom(folder / f"data-{width}", upstream))
        tasks = {
            name: Task(url=server.url, key=key, image=str(sent), wanted=str(given), calls=1, concurrent=1,
                       factor=factor, direct=name == "direct")
            for name, server in servers.items()
        }  # fmt: skip
        found = Stage(servers=servers, tasks=tasks)
        for name in servers:
            found.block(name, 20, 4)
        yield found


def measure(folder: Path, *, quick: bool) -> None:
    """Print latency, throughput and CPU at three concurrencies, and memory."""
    with stage(folder, pictures.SIDES, pictures.FACTOR) as compared:
        sent, given = (len(Path(path).read_bytes()) for path in _files(compared))
        idle = {name: server.resident for name, server in compared.servers.items()}
        seen = {name: {concurrent: Seen() for concurrent in _CALLS} for name in compared.servers}
        for concurrent, calls in _CALLS.items():
            for _ in range(1 if quick else ROUNDS):
                for name in compared.servers:
                    seen[name][concurrent].add(*compared.block(name, calls // (4 if quick else 1), concurrent))
        table(
            "Side by side",
            ["", "at", "p50 ms", "p99 ms", "most ms", "calls/s", "CPU s per 1k", "to raw", "least, most"],
            [_row(name, concurrent, seen) for concurrent in _CALLS for name in compared.servers],
            f"{sent / 1000:.0f} kB of PNG in a form, {given / 1000:.0f} kB of PNG back as base64; `direct` is the "
            "caller's own two calls to the upstream, and its CPU that of the upstream.",
        )
        table(
            "Memory",
            ["", "at rest, MB", "most at 64, MB", "a call in flight, in (upload + result)"],
            [
                (name, idle[name], server.peak, (server.peak - idle[name]) * 1e6 / 64 / (sent + given))
                for name, server in compared.servers.items()
                if name != "direct"
            ],
        )


def measure_sizes(folder: Path, *, quick: bool) -> None:
    """Print what uploads of several sizes cost, enlarged by 1."""
    rows = []
    for sides in ((213, 160), (467, 350), (1491, 1118), (2981, 2236)):
        calls = max(4, 40_000_000 // (sides[0] * sides[1] * 3 + 400_000)) // (4 if quick else 1) or 1
        with stage(folder, sides, 1, plain=False) as compared:
            cpu: dict[str, list[float]] = {"raw": [], "darkroom": []}
            ms: dict[str, list[float]] = {"raw": [], "darkroom": []}
            for _ in range(1 if quick else ROUNDS):
                for name in cpu:
                    done, used = compared.block(name, calls, 2)
                    cpu[name].append(used / calls * 1000)
                    ms[name] += done.ms
            sent, given = (len(Path(path).read_bytes()) for path in _files(compared))
        raw, own = median(cpu["raw"]), median(cpu["darkroom"])
        rows.append(
            (f"{sent / 1e6:.2f}", f"{given / 1e6:.2f}", median(ms["raw"]), median(ms["darkroom"]), raw, own, own / raw)
        )
    columns = ["in, MB", "out, MB", "raw p50 ms", "Darkroom p50 ms", "raw CPU ms", "Darkroom CPU ms", "to raw"]
    table(
        "Sizes",
        columns,
        rows,
        "At 2; enlarged by 1. From 3 MB on Darkroom puts the picture into fal's storage first; `raw` does not.",
    )


def _files(compared: Stage) -> tuple[str, str]:
    task = compared.tasks["darkroom"]
    return task.image, task.wanted


def _row(name: str, concurrent: int, seen: Mapping[str, Mapping[int, Seen]]) -> tuple[object, ...]:
    own, raw = seen[name][concurrent], seen["raw"][concurrent]
    ratios = [one / other for one, other in zip(own.cpu, raw.cpu, strict=True)]
    return (
        name, concurrent, median(own.ms), percentile(own.ms, 0.99), max(own.ms), median(own.per_s), median(own.cpu),
        median(ratios), f"{min(ratios):.2f}, {max(ratios):.2f}",
    )  # fmt: skip
