"""How much of a job is done, as its logs tell it."""

from __future__ import annotations

import re
from collections.abc import Callable

# A progress bar of tqdm, which nearly all models draw, or a line that says "progress".
_BAR = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,3})?)\s?%\|")
_WORD = re.compile(r"\bprogress\b\W{0,4}(\d{1,3}(?:\.\d{1,3})?)\s?%", re.IGNORECASE)
# Where the last bar of a log is looked for.
_TAIL = 4000


def share(logs: object) -> float | None:
    """Return what the last progress bar in a text shows, from 0 to 1; None where there is none."""
    if not isinstance(logs, str):
        return None
    tail = logs[-_TAIL:]
    found = [match for pattern in (_BAR, _WORD) for match in pattern.finditer(tail) if float(match[1]) <= 100]
    return float(max(found, key=lambda match: match.start())[1]) / 100 if found else None


class Forward:
    """Tells how much is done, and never less than it has told before: a model may draw one bar after another."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._most = 0.0

    def __call__(self, done: float | None) -> None:
        if done is not None and done > self._most:
            self._most = done
            self._tell(done)
