"""The four simulated providers of a chaotic run: they outlive every gateway, and their books are the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random

from tests.chaos.storm import Storm
from tests.simulators.base import Simulated, wiring
from tests.simulators.clouds import quick

RUN_S: Mapping[str, float] = {"fal": 0.4, "replicate": 0.8, "segmind": 1.2, "apiframe": 0.6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A job that a provider has taken. `unit` is its seed; `billed` says whether it costs something."""

    provider: str
    id: str
    unit: int
    billed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Clouds:
    """The providers by name, and the weather at each."""

    sims: Mapping[str, Simulated]
    storms: Mapping[str, Storm]

    @property
    def environ(self) -> dict[str, str]:
        """What points a gateway to them."""
        return wiring(self.sims.values())

    def bills(self) -> list[Bill]:
        """Every job that any of them has taken so far."""
        found = []
        for name, sim in self.sims.items():
            books = sim.books
            for job in list(books.taken):
                unit = int(sim.given(job)["seed"])
                found.append(Bill(provider=name, id=job, unit=unit, billed=job in books.bills))
        return found

    def clear(self) -> None:
        """Let the sun shine."""
        for storm in self.storms.values():
            storm.share = 0.0


@contextmanager
def clouds(*names: str, seed: int = 0, share: float = 0.0, run_s: float | None = None) -> Iterator[Clouds]:
    """Run these providers until the block ends; a `share` of all requests to them goes wrong.

    `run_s` is how long a job runs, in seconds; by default each provider has a time of its own.
    """
    with ExitStack() as stack:
        sims: dict[str, Simulated] = {}
        storms: dict[str, Storm] = {}
        for name in names:
            sim = quick(name, run_s=RUN_S.get(name, 1.0) if run_s is None else run_s)
            sim.credits = 1_000_000
            sim.faults = storms[name] = Storm(name, Random(f"{seed} {name}"), share)
            stack.enter_context(sim.running())
            sims[name] = sim
        yield Clouds(sims=sims, storms=storms)
