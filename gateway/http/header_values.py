"""`value; name=text; …`: what a header says, as far as it can be read."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*", re.DOTALL)
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"\s*(?=;|\Z)', re.DOTALL)
_BETWEEN = re.compile(r"[;\s]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


_MOST = 64
"""Nobody has more in a header, and each takes its time."""


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
    """A header's value in lower case, and its parameters in their order. What is no parameter is passed over.

    Raises ValueError, with what is wrong, where there are too many.
    """
    value, _, _ = text.partition(";")
    parameters: list[Parameter] = []
    position = _begun(text, len(value))
    for _ in range(_MOST):
        if position == len(text):
            return value.strip().lower(), tuple(parameters)
        end = _end(text, position)
        if (named := _NAME.match(text, position)) is not None:
            if (quoted := _QUOTED.match(text, named.end())) is not None:
                parameters.append(Parameter(named[1].lower(), _ESCAPE.sub(r"\1", quoted[1])))
                end = quoted.end()
            else:
                end = _end(text, named.end())
                parameters.append(_bare(named[1].lower(), text[named.end() : end].strip()))
        position = _begun(text, end)
    raise ValueError(f"has more than {_MOST} parameters")


def last(parameters: tuple[Parameter, ...], name: str) -> str | None:
    """The value of the last parameter of a name; None where there is none."""
    return next((one.value for one in reversed(parameters) if one.name == name), None)


def _begun(text: str, start: int) -> int:
    """Where the next parameter may begin: behind semicolons and spaces."""
    found = _BETWEEN.match(text, start)
    assert found is not None  # it matches nothing at all, too
    return found.end()


def _end(text: str, start: int) -> int:
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
