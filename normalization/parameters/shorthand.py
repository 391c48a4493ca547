"""The short spelling of a model's file, written out: what several routes share stands in the file once.

A parameter of `[optional]` belongs to the routes that name it: in `passthrough`, in their rules, or in their own
params, which may change single keys of the shared declaration. A name in `passthrough` stands for the rule
`name = { rule = "passthrough" }`.

`expand` is a pure function over TOML documents that no schema has checked yet: whatever is malformed beyond the short
spelling itself stays as it is, for the schema to refuse.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from normalization.parameters.names import near
from normalization.parameters.rules import ModelProblem

Place: TypeAlias = tuple[str, ...]
_OPTIONAL, _PASSTHROUGH = "optional", "passthrough"


@dataclass(frozen=True, slots=True)
class LongForm:
    """A model's document in which each route declares its own parameters and has a rule for each of them.

    `passthrough` holds the names whose rule on a route comes from its list, `optional` those of the table `[optional]`.
    `shared` has an entry for each parameter that a route takes from there: the keys of the declaration that the route
    changes. `problems` are those of the short spelling itself.
    """

    document: dict[str, Any]
    passthrough: Mapping[str, Set[str]] = field(default_factory=dict)
    shared: Mapping[tuple[str, str], Set[str]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    problems: tuple[ModelProblem, ...] = ()

    def as_written(self, place: Place) -> Place:
        """Where the file itself has what stands at a place of the long form."""
        match place:
            case ("routes", route, "rules", name, *_) if name in self.passthrough.get(route, ()):
                return ("routes", route, _PASSTHROUGH)
            case ("routes", route, "params", name, *keys) if (route, name) in self.shared:
                changed = self.shared[route, name]
                here = keys[0] in changed if keys else bool(changed)
                return place if here else (_OPTIONAL, name, *keys)
        return place


def expand(document: Mapping[str, Any], standard: Collection[str]) -> LongForm:
    """Write out a model's document. `standard` are the names of the parameters that every model has."""
    problems: list[ModelProblem] = []
    params, optional = table_at(document, "params"), document.get(_OPTIONAL, {})
    if not isinstance(optional, Mapping):
        problems.append(ModelProblem((_OPTIONAL,), repr(optional), "a table of parameters, as in [params]"))
        optional = {}
    problems += _declared_twice(optional, params, standard)
    optional = {name: param for name, param in optional.items() if name not in params and name not in standard}
    routes: dict[str, Any] = {}
    passthrough: dict[str, Set[str]] = {}
    shared: dict[tuple[str, str], Set[str]] = {}
    named: set[str] = set()
    declared = {*params, *standard}
    for key, route in table_at(document, "routes").items():
        routes[key] = route
        if not isinstance(route, Mapping):
            continue
        names = _listed(key, route, problems)
        rules, own = table_at(route, "rules"), table_at(route, "params")
        passthrough[key] = set(names) - set(rules)
        found = {*names, *rules, *own}
        named |= found
        declared |= set(own)
        taken = {name: _merged(param, own.get(name)) for name, param in optional.items() if name in found}
        shared.update({(key, name): set(table_at(own, name)) for name in taken})
        routes[key] = _written_out(route, names, taken, order=[*standard, *params, *optional, *own])
    problems += _unnamed(optional, named, declared)
    long = {key: value for key, value in document.items() if key != _OPTIONAL}
    if isinstance(document.get("routes"), Mapping):
        long["routes"] = routes
    return LongForm(long, passthrough, shared, tuple(optional), tuple(problems))


def drop_undeclared(form: LongForm, route: str, declared: Collection[str], rules: dict[str, Any]) -> list[ModelProblem]:
    """Remove from a route's rules the names in its `passthrough` that are none of its declared parameters.

    Returns the problem that they are, so that the route is checked further as if they did not stand there.
    """
    names = sorted(form.passthrough.get(route, set()) - set(declared))
    if not names:
        return []
    for name in names:
        rules.pop(name, None)
    free = {*declared, *form.optional} - set(rules)
    meant = ", ".join(dict.fromkeys(hint for name in names if (hint := near(name, free))))
    return [
        ModelProblem(
            ("routes", route, _PASSTHROUGH),
            f"{', '.join(map(_quoted, names))}, which no parameter declares",
            f"names of parameters of [params], [optional] or [routes.{route}.params]"
            f"{f' (did you mean {meant}?)' if meant else ''}",
        )
    ]


def _quoted(name: str) -> str:
    return f'"{name}"'


def table_at(document: object, key: str) -> dict[str, Any]:
    """The table under a key; empty if there is no table."""
    value = document.get(key) if isinstance(document, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else {}


def _declared_twice(
    optional: Iterable[str], params: Collection[str], standard: Collection[str]
) -> Iterator[ModelProblem]:
    for name in optional:
        if name in params:
            yield ModelProblem((_OPTIONAL, name), "a parameter that [params] declares as well", "it in one of the two")
        elif name in standard:
            yield ModelProblem(
                (_OPTIONAL, name),
                "a parameter that every model has, by standard.toml",
                "it in [params], which may declare it again, or nowhere",
            )


def _listed(key: str, route: Mapping[str, Any], problems: list[ModelProblem]) -> list[str]:
    """The names in a route's `passthrough`, each once; what is wrong with the list is added to `problems`."""
    place = ("routes", key, _PASSTHROUGH)
    listed = route.get(_PASSTHROUGH, [])
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    if not isinstance(listed, list) or len(names) != len(listed):
        problems.append(ModelProblem(place, repr(listed), 'a list of parameter names, such as ["seed"]'))
    rules = table_at(route, "rules")
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            problems.append(ModelProblem(place, f'"{name}" {names.count(name)} times', "each parameter once"))
        if name in rules:
            found = f'"{name}", which has a rule in [routes.{key}.rules] as well'
            problems.append(ModelProblem(place, found, "it in one of the two"))
    return list(dict.fromkeys(names))


def _merged(declared: object, own: object) -> object:
    """A shared declaration with the keys that a route changes. A copy: a variable may reach into that of one route."""
    if isinstance(declared, Mapping) and isinstance(own, Mapping):
        return copy.deepcopy({**declared, **own})
    return copy.deepcopy(declared if own is None else own)


def _written_out(
    route: Mapping[str, Any], names: Collection[str], taken: Mapping[str, object], order: list[str]
) -> dict[str, Any]:
    long = {key: value for key, value in route.items() if key != _PASSTHROUGH}
    if taken and isinstance(route.get("params", {}), Mapping):
        long["params"] = {**taken, **{k: v for k, v in table_at(route, "params").items() if k not in taken}}
    if names and isinstance(route.get("rules", {}), Mapping):
        rules = {**{name: {"rule": "passthrough"} for name in names}, **table_at(route, "rules")}
        # In the order of the declarations, however the names are spread over the list and the table.
        long["rules"] = dict(sorted(rules.items(), key=lambda rule: _rank(rule[0], order)))
    return long


def _rank(name: str, order: list[str]) -> int:
    return order.index(name) if name in order else len(order)


def _unnamed(optional: Collection[str], named: Set[str], declared: Set[str]) -> Iterator[ModelProblem]:
    """Optional parameters of no route: no request could use them."""
    unknown = named - declared - set(optional)
    for name in optional:
        if name not in named:
            hint = f" (did you mean {meant}?)" if (meant := near(name, unknown)) else ""
            yield ModelProblem(
                (_OPTIONAL, name),
                "a parameter that no route names",
                f"it in the passthrough or the rules of each route that has it, or not at all{hint}",
            )
