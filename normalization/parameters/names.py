"""Names of fields: at any depth, in any spelling, and which name a misspelt one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

from normalization.values import Value

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


# Longer than every name that one is held against.
_LONGEST = 100


def fields_in(value: Value | Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """Every field with its value, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield name, inner
            yield from fields_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from fields_in(inner)


def folded(name: str) -> str:
    """A name without what spellings differ in: `scaleFactor`, `scale-factor` and `scale_factor` are one."""
    return "".join(filter(str.isalnum, name[:_LONGEST])).lower()
