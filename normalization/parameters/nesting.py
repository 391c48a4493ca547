"""Parses nested values from flat text: bracket keys as form encoders write them, and JSON inside a text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from normalization.values import Value

MAX_DEPTH = 16
"""Maximum nesting of objects and arrays; known provider inputs use six levels."""

MAX_DIGITS = 40
"""Maximum digits of an integer: more than any 64-bit seed, and far below where Python's conversion is slow."""


class NestingError(ValueError):
    """A bracket key that contradicts another one or is nested too deeply. `key` is the key as sent."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.message = message


def excerpt(text: str, limit: int = 40) -> str:
    """Untrusted text made safe for a message: printable, at most `limit` characters."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)


def nest(pairs: Sequence[tuple[str, Value]]) -> dict[str, Value]:
    """Nested values from `a[b]`, `a[]` and `a[0]` keys, in the order in which names first appear.

    `a[]` appends, and a lone one is a list of one. `lobj[][a]` starts a new object when it would give a name of the
    current one twice: the encoders of the OpenAI SDKs lose the boundary between the objects. Keys that are exactly
    0 … n-1 make a list and other digits an object, as in PHP's `json_encode`: `workflow[3][inputs]` is an object. A
    name given twice without `[]` is a list, given once it is its value. A key whose brackets do not close is a plain
    name. Raises `NestingError` where two keys contradict each other, or one has more than `MAX_DEPTH` brackets.
    """
    root = _Node()
    for key, value in pairs:
        name, path = _split(key)
        if len(path) > MAX_DEPTH:
            raise NestingError(key, f"'{excerpt(key)}' is nested too deeply: the limit is {MAX_DEPTH} levels.")
        node = root.named.setdefault(name, _Node())
        for place, step in enumerate(path):
            node = node.enter(key, step, path[place + 1 :])
        node.put(key, value)
    return {name: node.value() for name, node in root.named.items()}


def parse_json(text: str) -> Value:
    """JSON read strictly. Raises `ValueError`, with a message that can follow a colon, for what is not JSON.

    Also refused, because parsers disagree about them or later steps cannot carry them: a name given twice, NaN and
    numbers beyond a double, more than `MAX_DIGITS` digits, more than `MAX_DEPTH` levels, half of a surrogate pair.
    """
    try:
        value: Value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep") from error
    _check(value, MAX_DEPTH)
    return value


@dataclass(slots=True)
class _Node:
    """The parsed content of one name: values, named children, or list items; never two of these."""

    values: list[Value] = field(default_factory=list)
    named: dict[str, _Node] = field(default_factory=dict)
    items: list[_Node] = field(default_factory=list)

    def enter(self, key: str, step: str, rest: Sequence[str]) -> _Node:
        """The node one bracket deeper, created if it is missing."""
        if self.values or (self.named if step == "" else self.items):
            self._conflict(key)
        if step:
            return self.named.setdefault(step, _Node())
        if not rest or not self.items or self.items[-1].holds(rest):
            self.items.append(_Node())
        return self.items[-1]

    def put(self, key: str, value: Value) -> None:
        if self.named or self.items:
            self._conflict(key)
        self.values.append(value)

    def holds(self, path: Sequence[str]) -> bool:
        """Whether a value at `path` would repeat one, so that it belongs to the next object of the list."""
        node = self
        for step in path:
            if node.values:
                return True
            if step not in node.named:
                return False
            node = node.named[step]
        return bool(node.values)

    def value(self) -> Value:
        if self.items:
            return [item.value() for item in self.items]
        if self.named:
            values = {name: node.value() for name, node in self.named.items()}
            order = [str(index) for index in range(len(values))]
            return [values[index] for index in order] if values.keys() == set(order) else values
        return self.values[0] if len(self.values) == 1 else list(self.values)

    def _conflict(self, key: str) -> NoReturn:
        raise NestingError(
            key, f"'{excerpt(key)}' contradicts another field: a name must be one value, a list or an object."
        )


def _split(key: str) -> tuple[str, list[str]]:
    """`a[b][]` as `a` and `["b", ""]`; a key of any other form as itself."""
    opening = key.find("[")
    if opening <= 0 or not key.endswith("]"):
        return key, []
    path = key[opening + 1 : -1].split("][")
    return (key, []) if any("[" in step or "]" in step for step in path) else (key[:opening], path)


def _unique(pairs: list[tuple[str, Value]]) -> Value:
    values: dict[str, Value] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"duplicate name '{excerpt(name)}'")
        values[name] = value
    return values


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {excerpt(text)} is too large")
    return number


def _short(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"the number {excerpt(text)} is too long")
    return int(text)


def _check(value: Value, levels: int) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, (dict, list)):
        if levels == 0:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            for name in value:
                _check_text(name)
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, levels - 1)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a string contains half of a surrogate pair") from None
