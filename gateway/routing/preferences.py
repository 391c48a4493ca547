"""Routing preferences of a client: the `routing` object, as a form field, as JSON, or as a header."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import cast, get_args

from normalization.parameters.coerce import InvalidValue, is_absent, parse_scalar
from normalization.parameters.nesting import excerpt, parse_json
from normalization.parameters.schema import Preference, Strategy
from normalization.values import Value

STRATEGIES: tuple[str, ...] = get_args(Strategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPreferences:
    """`order` lists the first choices, `only` and `ignore` restrict the rest; all name providers or routes.

    `max_cost` is in US dollars for the whole request. Without `allow_fallbacks` only the first candidate is tried.
    """

    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    sort: Strategy | None = None
    max_cost: float | None = None
    allow_fallbacks: bool = True

    @classmethod
    def of(cls, preference: Preference) -> RoutingPreferences:
        """The default preferences of a model."""
        return cls(
            order=preference.order,
            sort=preference.sort,
            max_cost=preference.max_cost,
            allow_fallbacks=preference.allow_fallbacks,
        )

    def through(self, provider: str) -> RoutingPreferences:
        """The same preferences restricted to one provider: the meaning of the model name `provider/model`."""
        return replace(self, only=(provider,))


_NOTHING = RoutingPreferences()


def read_wish(value: Value, known: Collection[str], usual: RoutingPreferences = _NOTHING) -> RoutingPreferences:
    """Parse a `routing` object, given as an object or as JSON text. `known` are the names of providers and routes.

    `usual` applies to missing keys, except that its `order` is dropped if the client sets `sort`, because `order` would
    take precedence. Raises InvalidValue for an invalid key, name or value.
    """
    found = parse_scalar(value)
    if is_absent(found):
        return usual
    if not isinstance(found, dict):
        raise _invalid("expected an object, such as {\"only\": [\"fal\"]}")  # fmt: skip
    fields: dict[str, object] = {}
    for key, raw in found.items():
        if key in ("order", "only", "ignore"):
            fields[key] = _names(key, raw, known)
        elif key == "sort":
            fields[key] = _strategy(raw)
        elif key == "max_cost":
            fields[key] = _cost(raw)
        elif key == "allow_fallbacks":
            fields[key] = _boolean(raw)
        else:
            raise _invalid(
                f"unknown key '{excerpt(key)}'; the keys are order, only, ignore, sort, max_cost and allow_fallbacks"
            )
    if "sort" in fields:
        fields.setdefault("order", ())
    return replace(usual, **fields)  # type: ignore[arg-type]


def read_header(text: str | None, known: Collection[str], usual: RoutingPreferences = _NOTHING) -> RoutingPreferences:
    """Parse the header `X-Darkroom-Routing`, which is JSON. Raises InvalidValue."""
    if not text:
        return usual
    try:
        return read_wish(parse_json(text), known, usual)
    except ValueError as error:
        if isinstance(error, InvalidValue):
            raise
        raise _invalid("the header X-Darkroom-Routing is not JSON") from None


def _names(key: str, raw: Value, known: Collection[str]) -> tuple[str, ...]:
    names = raw if isinstance(raw, list) else [part.strip() for part in raw.split(",")] if isinstance(raw, str) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise _invalid(f"'{key}' must be a list of providers")
    for name in names:
        if name not in known:
            raise _invalid(f"unknown provider '{str(name)[:40]}' in '{key}'; known are {', '.join(sorted(known))}")
    return tuple(str(name) for name in names)


def _strategy(raw: Value) -> Strategy:
    if raw not in STRATEGIES:
        raise _invalid(f"'sort' must be one of {', '.join(STRATEGIES)}")
    return cast("Strategy", raw)


def _cost(raw: Value) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or raw < 0:
        raise _invalid("'max_cost' must be an amount in US dollars")
    return float(raw)


def _boolean(raw: Value) -> bool:
    text: Mapping[str, bool] = {"true": True, "false": False}
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in text:
        return text[raw.lower()]
    raise _invalid("'allow_fallbacks' must be true or false")


def _invalid(reason: str) -> InvalidValue:
    return InvalidValue("routing", f"Invalid 'routing': {reason}.", "invalid_value")


__all__ = ["STRATEGIES", "RoutingPreferences", "Strategy", "read_header", "read_wish"]
