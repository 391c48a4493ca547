"""The table of parameters and routes, cell by cell: for the docs, the models page, `darkroom check` and the tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from normalization.parameters.rules import ConvertedRule, EmulatedRule, Param, Rule
from normalization.parameters.schema import Model, Route, target_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """How one parameter reaches one route. `only_here` means that not every route of the model has it."""

    model: Model
    route: Route
    name: str
    param: Param
    rule: Rule
    only_here: bool

    @property
    def id(self) -> str:
        return f"{self.model.id}/{self.route.name}/{self.name}"

    @property
    def kind(self) -> str:
        return self.rule.rule

    @property
    def target(self) -> str | None:
        """The provider's field; None for an emulated parameter."""
        return target_of(self.name, self.rule)

    def describe(self) -> str:
        """The rule in words, such as `renamed to scale, 1 to 16`."""
        words: str = self.kind
        if isinstance(self.rule, EmulatedRule):
            words += f" by {self.rule.by}"
        if isinstance(self.rule, ConvertedRule):
            words += f" by {self.rule.using}"
        if self.target is not None and self.target != self.name:
            words += f" to {self.target}"
        return f"{words}, {bounds}" if (bounds := self.rule.describe()) else words


def cells(model: Model) -> Iterator[Cell]:
    """Every cell of a model's table, route by route, in the order of the configuration."""
    for route in model.routes.values():
        for name, param in {**model.params, **route.params}.items():
            yield Cell(
                model=model,
                route=route,
                name=name,
                param=param,
                rule=route.rules[name],
                only_here=name not in model.params,
            )
