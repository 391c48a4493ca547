"""What every simulated provider is: hosts that run, a state that can be reset, and the settings that lead to it."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self, TypeAlias

from starlette.types import ASGIApp

from tests.simulators.common import Books, Faults, Served, serve

Run: TypeAlias = "Callable[[ASGIApp], Served]"
ALLOW = "DARKROOM_GATEWAY__URL_ALLOW"
AUTH = "DARKROOM_GATEWAY__AUTH"
# Where a gateway is given its own API keys.
OURS = frozenset({"DARKROOM_API_KEYS", "DARKROOM_API_KEYS_FILE", "DARKROOM_ADMIN_KEY", "DARKROOM_ADMIN_KEY_FILE"})
# What belongs to the running servers, and is no state of the provider.
_OWN = ("_served", "_pristine")


class Simulated(ABC):
    """A provider that is played over real HTTP. One may serve many tests: `reset` makes it as it was at its start.

    `name` is the provider's, `key` the one credential it takes, `key_variable` where a gateway reads that from.
    """

    name: ClassVar[str]
    key: ClassVar[str]
    key_variable: ClassVar[str]
    faults: Faults
    run_s: float
    """How long a job runs, in seconds."""
    credits: float
    """What the account holds, where the provider counts that."""
    _served: Sequence[Served] = ()

    @abstractmethod
    def hosts(self, run: Run) -> None:
        """Serve each host with `run`, and keep its address."""

    @property
    @abstractmethod
    def books(self) -> Books:
        """What was taken, and what it costs."""

    @property
    @abstractmethod
    def strays(self) -> Sequence[object]:
        """Credentials that came to the host that delivers results, where none belong."""

    @property
    @abstractmethod
    def origins(self) -> frozenset[str]:
        """`host:port` of what a gateway has to be allowed to fetch from."""

    @property
    @abstractmethod
    def addresses(self) -> Mapping[str, str]:
        """The settings of the provider's section that hold an address, by name."""

    @abstractmethod
    def given(self, job: str) -> Mapping[str, Any]:
        """What a job was asked to do."""

    @abstractmethod
    def timed(self, *, run_s: float, queue_s: float = 0.0) -> Self:
        """Let each job wait and run for so many seconds."""

    def environ(self) -> dict[str, str]:
        """The environment that leads a gateway here: the key, the addresses, the origins that it may fetch from."""
        prefix = f"DARKROOM_PROVIDERS__{self.name.upper()}__"
        addresses = {f"{prefix}{name.upper()}": address for name, address in self.addresses.items()}
        return {self.key_variable: self.key, **addresses, ALLOW: json.dumps(sorted(self.origins))}

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serve all hosts until the block ends."""
        with ExitStack() as stack:
            served: list[Served] = []

            def run(app: ASGIApp) -> Served:
                served.append(stack.enter_context(serve(app)))
                return served[-1]

            self.hosts(run)
            self._served = served
            self._pristine = _Snapshot(self)
            try:
                yield self
            finally:
                self._served = []

    @property
    def is_running(self) -> bool:
        """Whether its hosts are served."""
        return bool(self._served)

    def reset(self) -> None:
        """Forget all that came, and undo what a test has set. What still works on a request is ended first."""
        for served in self._served:
            served.drop()
        self._pristine.restore()


class _Snapshot:
    """The state of an object and of its parts that are objects of the simulators too.

    Those are restored in place, as routes hold them; everything else is copied, what several share as one.
    """

    def __init__(self, root: Simulated) -> None:
        parts: list[Any] = [root]
        for part in parts:
            parts += [inner for inner in vars(part).values() if _is_part(inner) and not _within(inner, parts)]
        self._parts = parts
        self._states = self._copied([vars(part) for part in parts])

    def restore(self) -> None:
        for part, state in zip(self._parts, self._copied(self._states), strict=True):
            own = {name: value for name, value in vars(part).items() if name in _OWN}
            vars(part).clear()
            vars(part).update({**state, **own})

    def _copied(self, states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        known = {id(part): part for part in self._parts}
        own = [{name: value for name, value in state.items() if name not in _OWN} for state in states]
        return copy.deepcopy(own, known)


def _is_part(value: object) -> bool:
    return type(value).__module__.startswith("tests.simulators") and hasattr(value, "__dict__")


def _within(value: object, parts: Iterable[object]) -> bool:
    return any(value is part for part in parts)


def wiring(sims: Iterable[Simulated], more: Iterable[str] = ()) -> dict[str, str]:
    """The environment that leads a gateway to all of these; `more` are further origins that it may fetch from.

    It is told that calls need no key, which providers' keys would make it ask for. `asking` takes that back.
    """
    made: dict[str, str] = {}
    allowed = set(more)
    for sim in sims:
        environ = sim.environ()
        allowed |= set(json.loads(environ.pop(ALLOW)))
        made |= environ
    return {**made, AUTH: "none", ALLOW: json.dumps(sorted(allowed))}


def asking(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a gateway, which asks for a key where it has API keys of its own."""
    found = dict(environ)
    if not OURS.isdisjoint(found) and found.get(AUTH) == "none":
        del found[AUTH]
    return found
