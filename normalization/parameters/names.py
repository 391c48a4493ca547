"""Field names: listing them at any depth, ignoring spelling variants, and finding the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

from normalization.values import Value

_CUTOFF = 0.6


def near(name: str, known: Collection[str], cutoff: float = _CUTOFF) -> str | None:
    """The known name most similar to this one; None if no similarity reaches `cutoff` (0 to 1).

    The run time is bounded by the known names, however long the name is: the similarity is twice the length of the
    common parts divided by the sum of both lengths, so that a much longer name cannot be similar.
    """
    longest = max(map(len, known), default=0)
    if len(name) > longest * (2 - cutoff) / cutoff:
        return None
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


# Longer than any known name.
_LONGEST = 100


def fields_in(value: Value | Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """All fields with their values, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield name, inner
            yield from fields_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from fields_in(inner)


def folded(name: str) -> str:
    """A name without spelling variants: `scaleFactor`, `scale-factor` and `scale_factor` become the same."""
    return "".join(filter(str.isalnum, name[:_LONGEST])).lower()
