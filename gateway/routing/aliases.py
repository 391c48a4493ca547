"""Aliases of models: exact names, and patterns for families of names that keep growing.

A pattern has one or more `*`, each matching any characters except a slash. Exact names and a model's own name take
precedence over patterns; among patterns, the one with the most characters besides `*` wins, the first of equals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")

# Longer names never match a pattern.
_LONGEST = 200


def is_pattern(name: str) -> bool:
    """Whether an alias is a pattern."""
    return "*" in name


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches a pattern, in time at most proportional to the two lengths."""
    if len(name) > _LONGEST or is_pattern(name) or name.count("/") != pattern.count("/"):
        return False
    return all(_matches(*pair) for pair in zip(name.split("/"), pattern.split("/"), strict=True))


def by_pattern(name: str, rows: Mapping[str, Row]) -> Row | None:
    """The row of the most specific pattern that matches a name; None if none does."""
    matching = [pattern for pattern in rows if is_pattern(pattern) and matches(name, pattern)]
    return rows[max(matching, key=_specific)] if matching else None


def own_names(rows: Mapping[str, object]) -> list[str]:
    """The exact names that no pattern covers, chosen by the operator.

    Names covered by a pattern are those of another vendor's models, which may have been shut down: they are not
    suggested for a misspelt name.
    """
    patterns = [name for name in rows if is_pattern(name)]
    return [name for name in exact_names(rows) if not any(matches(name, pattern) for pattern in patterns)]


def exact_names(rows: Mapping[str, object]) -> list[str]:
    """The aliases that are not patterns."""
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
    for part in inner:  # the leftmost match leaves the most room for the following parts
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
