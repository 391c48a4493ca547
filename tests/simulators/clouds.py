"""The simulated providers by their names: the one list of them, and running ones to borrow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.simulators.apiframe import Apiframe
from tests.simulators.base import Simulated
from tests.simulators.fal import FalAi
from tests.simulators.replicate import Simulator
from tests.simulators.segmind import Segmind

CLOUDS: Mapping[str, type[Simulated]] = {kind.name: kind for kind in (FalAi, Simulator, Segmind, Apiframe)}
ALL = tuple(CLOUDS)
KEYS: Mapping[str, str] = {name: kind.key for name, kind in CLOUDS.items()}
# Those that run and that nobody uses at the moment. They end with the process: their threads are daemons.
_idle: defaultdict[str, list[tuple[Simulated, ExitStack]]] = defaultdict(list)


def quick(name: str, *, run_s: float = 0.05) -> Simulated:
    """A provider, not yet served, whose jobs run for so many seconds."""
    return CLOUDS[name]().timed(run_s=run_s, queue_s=0.01 if name == "replicate" else 0.0)


@contextmanager
def borrowed(name: str) -> Iterator[tuple[Simulated, ExitStack]]:
    """A quick provider that runs, with nothing in its books, and the stack that takes it off the net when closed.

    Starting a provider takes longer than most tests do, so it is kept for the next one.
    """
    if _idle[name]:
        sim, stack = _idle[name].pop()
    else:
        sim, stack = quick(name), ExitStack()
        stack.enter_context(sim.running())
    try:
        yield sim, stack
    finally:
        if sim.is_running:
            sim.reset()
            _idle[name].append((sim, stack))
