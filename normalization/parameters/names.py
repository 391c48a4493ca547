"""Names of fields as strangers write them: at any depth, and in any spelling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from normalization.values import Value

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
