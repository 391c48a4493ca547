"""Parameters and the four kinds of rule, as the configuration files declare them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

ParamType = Literal["string", "integer", "number", "boolean", "enum", "image", "object", "array"]
Scalar: TypeAlias = bool | int | float | str


@dataclass(frozen=True, slots=True)
class ModelProblem:
    """A problem in a piece of configuration: its keys, what was found there, and what was expected.

    `expected` is empty when `found` is a complete sentence.
    """

    place: tuple[str, ...]
    found: str
    expected: str = ""


class RuleProblem(ValueError):
    """Every problem in a piece of configuration."""

    def __init__(self, problems: Iterable[ModelProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.found for problem in self.problems))


class Frozen(BaseModel):
    """A piece of configuration: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bounds(Frozen):
    """Accepted values: on a parameter, those that clients may send; on a rule, those that the route accepts."""

    min: float | None = None
    max: float | None = None
    choices: tuple[Scalar, ...] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if self.choices == ():
            raise ValueError("choices is empty, so no value is accepted: list the accepted values, or delete the key")
        return self

    def admits(self, value: object) -> bool:
        """Whether a value of the right type is within the bounds. For a string, min and max bound its length."""
        if self.choices is not None and value not in self.choices:
            return False
        size = len(value) if isinstance(value, str) else value
        if isinstance(size, (int, float)) and not isinstance(size, bool):
            return (self.min is None or size >= self.min) and (self.max is None or size <= self.max)
        return True

    def describe(self) -> str:
        """The bounds in words: `1 to 4`, `at least 0`, `png, jpeg`; empty if it is unbounded."""
        if self.choices is not None:
            return ", ".join(str(choice) for choice in self.choices)
        if self.min is not None and self.max is not None:
            return f"{_plain(self.min)} to {_plain(self.max)}"
        if self.min is not None:
            return f"at least {_plain(self.min)}"
        if self.max is not None:
            return f"at most {_plain(self.max)}"
        return ""


def _plain(number: float) -> str:
    return str(int(number)) if number.is_integer() else f"{number:g}"


class Param(Bounds):
    """A declared parameter.

    For `string`, `min` and `max` are lengths in characters. `default` is sent when the client sends no value; without
    a default, nothing is sent. If `required`, a missing value is a 400. `synonyms` maps other words, in any case, to
    one of the choices; only the parsing of requests reads them.
    """

    type: ParamType
    doc: str
    default: JsonValue = None
    required: bool = False
    synonyms: Mapping[str, Scalar] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Param:
        if self.type == "enum" and not self.choices:
            raise ValueError("an enum needs choices")
        for word, meant in (self.synonyms or {}).items():
            if meant not in (self.choices or ()):
                raise ValueError(f"the synonym {word!r} stands for {meant!r}, which is none of the choices")
        if self.type in ("image", "object", "array", "boolean") and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max do not apply to type {self.type}")
        if self.default is not None and self.type in ("integer", "number", "enum") and not self.admits(self.default):
            raise ValueError(f"the default {self.default!r} is outside its own bounds: {self.describe()}")
        return self


class _Rule(Bounds):
    """The keys of every rule. `default` replaces the parameter's own default on this route."""

    default: JsonValue = None


class PassthroughRule(_Rule):
    """Sent unchanged, under the same name."""

    rule: Literal["passthrough"]


class RenamedRule(_Rule):
    """Sent unchanged under the provider's field name; a dot in `to` nests."""

    rule: Literal["renamed"]
    to: str


class ConvertedRule(_Rule):
    """Transformed by the named converter. `to` is the provider's field if its name differs; bounds apply before.

    `table` maps values to the provider's words, for the converters that look values up. Each converter declares the
    keys that it needs and reads in `normalization/parameters/convert.py`.
    """

    rule: Literal["converted"]
    using: str
    to: str | None = None
    table: Mapping[str, JsonValue] = Field(default_factory=dict)


class EmulatedRule(_Rule):
    """The provider has no such parameter: the gateway implements it by the named emulation."""

    rule: Literal["emulated"]
    by: str


Rule = Annotated[PassthroughRule | RenamedRule | ConvertedRule | EmulatedRule, Field(discriminator="rule")]
