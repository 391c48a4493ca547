"""Other names of models: exact ones, and patterns for families of names that others add to.

A pattern has one or more `*`, each for any characters but a slash. An exact row counts before every pattern, as does
a model's own name; of several patterns the one with the most characters beside its `*` counts, the first of equals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")

# The longest name that a pattern is held against: longer ones are nobody's.
_LONGEST = 200


def is_pattern(name: str) -> bool:
    """Whether a row stands for more than one name."""
    return "*" in name


def matches(name: str, pattern: str) -> bool:
    """Whether a name is one that the pattern stands for. Takes time in proportion to the two lengths at most."""
    if len(name) > _LONGEST or is_pattern(name) or name.count("/") != pattern.count("/"):
        return False
    return all(_matches(*pair) for pair in zip(name.split("/"), pattern.split("/"), strict=True))


def by_pattern(name: str, rows: Mapping[str, Row]) -> Row | None:
    """The row of the most specific pattern for a name; None where none matches."""
    found = [pattern for pattern in rows if is_pattern(pattern) and matches(name, pattern)]
    return rows[max(found, key=_specific)] if found else None


def own_names(rows: Mapping[str, object]) -> list[str]:
    """The exact names that no pattern covers: those that the operator made up.

    One that a pattern covers is a name of somebody else's model, which may have been shut down since: whoever slips in
    another name did not mean it.
    """
    patterns = [name for name in rows if is_pattern(name)]
    return [name for name in exact_names(rows) if not any(matches(name, pattern) for pattern in patterns)]


def exact_names(rows: Mapping[str, object]) -> list[str]:
    """The rows that are names and no patterns."""
    return [name for name in rows if not is_pattern(name)]


def _specific(pattern: str) -> int:
    return len(pattern) - pattern.count("*")


def _matches(name: str, pattern: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *inner, last = rest
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in inner:  # the leftmost place leaves the most room for what follows
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
