"""`value; name=text; …`: what a header says, as far as it can be read."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*", re.DOTALL)
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"\s*(?=;|\Z)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, its name in lower case. `plain` says that its value can be read in one way only (RFC 9110, 5.6.6).

    Of another one the value is a guess: what stands up to the last quote before the next `;` or the end, backslashes
    as they are.
    """

    name: str
    value: str
    plain: bool = True


def read_header(text: str) -> tuple[str, tuple[Parameter, ...]]:
    """A header's value in lower case, and its parameters in their order. What is no parameter is passed over."""
    value, _, _ = text.partition(";")
    parameters: list[Parameter] = []
    position = len(value)
    while position < len(text):
        start = position + 1  # behind the semicolon
        if (named := _NAME.match(text, start)) is None:
            position = _next(text, start)
            continue
        start = named.end()
        if (quoted := _QUOTED.match(text, start)) is not None:
            parameters.append(Parameter(named[1].lower(), _ESCAPE.sub(r"\1", quoted[1])))
            position = quoted.end()
        else:
            position = _next(text, start)
            parameters.append(_bare(named[1].lower(), text[start:position].strip()))
    return value.strip().lower(), tuple(parameters)


def last(parameters: tuple[Parameter, ...], name: str) -> str | None:
    """The value of the last parameter of a name; None where there is none."""
    return next((one.value for one in reversed(parameters) if one.name == name), None)


def _next(text: str, start: int) -> int:
    found = text.find(";", start)
    return len(text) if found < 0 else found


def _bare(name: str, text: str) -> Parameter:
    """A parameter whose value is not, or not rightly, in quotes."""
    if '"' not in text:
        return Parameter(name, text)
    opened = text.startswith('"')
    inner = text[1:] if opened else text
    closed = inner.rfind('"') if opened else -1
    return Parameter(name, inner[:closed] if closed >= 0 else inner, plain=False)
