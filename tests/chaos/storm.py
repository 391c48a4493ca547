"""Bad weather for a long time: a share of all requests to a provider goes wrong, each in a way drawn by chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from random import Random

from typing_extensions import override

from tests.simulators.common import Fault, Faults, Op, html
from tests.support.faults import says

_BUSY = says(503, {"detail": "Busy"})
_SLOW_DOWN = says(429, {"detail": "slow down"}, retry_after="1")
# What may become of an answer about something that has been there before: it can be asked for again.
_ASKED = (
    html(502), _BUSY, _SLOW_DOWN, says(200, b""), Fault(kind="hang"), Fault(kind="cut"), Fault(kind="cut_within"),
    Fault(kind="truncate"),
)  # fmt: skip
# None of these makes a provider bill for a job that gave no picture: what is bought once must be enough.
FAULTS: Mapping[Op, tuple[Fault, ...]] = {
    "submit": (
        _BUSY, _SLOW_DOWN, html(502), Fault(kind="hang"), Fault(kind="cut"),
        # Here the job was taken.
        replace(html(502), after=True), Fault(kind="hang", after=True), Fault(kind="cut", after=True),
        Fault(kind="cut_within"),
    ),
    "upload": (_BUSY, html(502), Fault(kind="cut"), Fault(kind="cut", after=True)),
    "poll": _ASKED,
    "result": _ASKED,
    "list": _ASKED,
    "cancel": _ASKED,
    "download": (
        says(500, b"x"), html(502), says(200, b""), Fault(kind="cut"), Fault(kind="cut_within"),
        Fault(kind="drip", seconds=0.002),
        # Longer than a try may take.
        Fault(kind="drip", seconds=0.1),
    ),
}  # fmt: skip
# What becomes of a job in the end, in each simulator's own words. Replicate bills for jobs that failed: none does.
ENDS: Mapping[str, tuple[str, ...]] = {
    "fal": ("FAILED", "EMPTY_ONCE", "MOVED", "REGRESS", "A_NEW_WORD"),
    "replicate": ("stranger", "back", "bare"),
    "segmind": ("FAILED", "EMPTY_ONCE", "MOVED", "A_NEW_WORD"),
    "apiframe": ("FAILED", "EMPTY_ONCE", "A_NEW_WORD"),
}


class Storm(Faults):
    """The faults of one provider: after what a test has scripted, a `share` of all requests and jobs (0 to 1)."""

    def __init__(self, provider: str, random: Random, share: float) -> None:
        super().__init__()
        self.share = share
        self.met = 0
        """How many faults there were."""
        self.asked: Counter[Op] = Counter()
        """How many requests of each kind there were."""
        self._random = random
        self._ends = tuple(Fault(kind="job", word=word) for word in ENDS[provider])

    @override
    def next(self, op: Op, headers: Mapping[str, str] | None = None) -> Fault | None:
        self.asked[op] += 1
        scripted = super().next(op, headers)
        if scripted is not None or self._random.random() >= self.share:
            return scripted
        self.met += 1
        return self._random.choice(self._ends if op == "job" else FAULTS[op])
