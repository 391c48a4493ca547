"""What a misspelt name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_CUTOFF = 0.6


def near(name: str, known: Collection[str], cutoff: float = _CUTOFF) -> str | None:
    """The known name that is most like this one; None where none is as much like it as `cutoff` (0 to 1) asks.

    The time is bounded by the known names, however long the name is: two texts are like each other by twice what they
    have in common over the sum of their lengths, so that a much longer one cannot be near.
    """
    longest = max(map(len, known), default=0)
    if len(name) > longest * (2 - cutoff) / cutoff:
        return None
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)
