"""Query parameters and headers: only known ones, each at most once; and values of the form `value; name=text`.

A silently ignored parameter would mislead: a misspelt filter would return the whole list, and a misspelt `dry_run`
would buy.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, QueryParams

from gateway.http.errors import ApiError, invalid
from normalization.parameters.names import near
from normalization.parameters.nesting import excerpt

# Headers with one meaning for a call. Of two, one program believes the first and the next one the last.
_ONCE = {
    "Authorization": None,
    "api-key": None,
    "Content-Type": None,
    "Idempotency-Key": "invalid_idempotency_key",
    "X-Darkroom-Routing": None,
    "X-Stainless-Retry-Count": None,
}
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def check_headers(headers: Headers) -> None:
    """Raise ApiError 400 for a repeated header that must be unique."""
    for name, code in _ONCE.items():
        if len(headers.getlist(name)) > 1:
            raise invalid(None, f"The header '{name}' was sent more than once: send it once.", code or "invalid_value")


def check_query(query: QueryParams, known: Collection[str]) -> None:
    """Raise ApiError 400 for an unknown or repeated parameter."""
    for name in query:
        if name not in known:
            raise ApiError(400, _unknown(name, known), param=excerpt(name, 80), code="unknown_parameter")
        if len(query.getlist(name)) > 1:
            raise invalid(name, f"The query parameter '{name}' was sent more than once: send it once.")


def parse_flag(text: str) -> bool:
    """A query parameter that is true or false. Raises ValueError."""
    found = _FLAGS.get(text.lower())
    if found is None:
        raise ValueError("expected true or false")
    return found


def _unknown(name: str, known: Collection[str]) -> str:
    told = f"Unknown query parameter '{excerpt(name, 80)}'."
    if not known:
        return f"{told} This endpoint has none."
    meant = near(name, known)
    return (
        f"{told} Did you mean '{meant}'?" if meant else f"{told} The query parameters are: {', '.join(sorted(known))}."
    )


_NAME = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*", re.DOTALL)
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"\s*(?=;|\Z)', re.DOTALL)
_BETWEEN = re.compile(r"[;\s]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


_MOST = 64
"""Nobody has more in a header, and each takes its time."""


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """One parameter, its name in lower case. `plain` says that its value can be read in one way only (RFC 9110, 5.6.6).

    Of another one the value is a guess: what stands up to the last quote before the next `;` or the end, backslashes
    as they are.
    """

    name: str
    value: str
    plain: bool = True


def read_header(text: str) -> tuple[str, tuple[HeaderValue, ...]]:
    """A header's value in lower case, and its parameters in their order. What is no parameter is passed over.

    Raises ValueError, with what is wrong, where there are too many.
    """
    value, _, _ = text.partition(";")
    parameters: list[HeaderValue] = []
    position = _begun(text, len(value))
    for _ in range(_MOST):
        if position == len(text):
            return value.strip().lower(), tuple(parameters)
        end = _end(text, position)
        if (named := _NAME.match(text, position)) is not None:
            if (quoted := _QUOTED.match(text, named.end())) is not None:
                parameters.append(HeaderValue(named[1].lower(), _ESCAPE.sub(r"\1", quoted[1])))
                end = quoted.end()
            else:
                end = _end(text, named.end())
                parameters.append(_bare(named[1].lower(), text[named.end() : end].strip()))
        position = _begun(text, end)
    raise ValueError(f"has more than {_MOST} parameters")


def last(parameters: tuple[HeaderValue, ...], name: str) -> str | None:
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


def _bare(name: str, text: str) -> HeaderValue:
    """A parameter whose value is not, or not rightly, in quotes."""
    if '"' not in text:
        return HeaderValue(name, text)
    opened = text.startswith('"')
    inner = text[1:] if opened else text
    closed = inner.rfind('"') if opened else -1
    return HeaderValue(name, inner[:closed] if closed >= 0 else inner, plain=False)
