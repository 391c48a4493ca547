"""The four kinds of rule, and the parameters they are about, as the config files write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

ParamType = Literal["string", "integer", "number", "boolean", "enum", "image", "object", "array"]
Scalar: TypeAlias = bool | int | float | str


@dataclass(frozen=True, slots=True)
class ModelProblem:
    """Something wrong with a piece of config: at which keys of it, what is there, and what would do.

    `expected` is empty where `found` is a whole sentence that says it.
    """

    place: tuple[str, ...]
    found: str
    expected: str = ""


class RuleProblem(ValueError):
    """Everything that is wrong with a piece of config, told at once."""

    def __init__(self, problems: Iterable[ModelProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.found for problem in self.problems))


class Frozen(BaseModel):
    """A piece of config: immutable, and a key that nobody knows is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bounds(Frozen):
    """What values are taken. On a parameter: from the caller; on a rule: by this route."""

    min: float | None = None
    max: float | None = None
    choices: tuple[Scalar, ...] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if self.choices == ():
            raise ValueError("choices is empty, so that nothing is taken: list what is, or leave the key out")
        return self

    def admits(self, value: object) -> bool:
        """Whether a value of the right type is inside. The bounds of a text are its length in characters."""
        if self.choices is not None and value not in self.choices:
            return False
        size = len(value) if isinstance(value, str) else value
        if isinstance(size, (int, float)) and not isinstance(size, bool):
            return (self.min is None or size >= self.min) and (self.max is None or size <= self.max)
        return True

    def describe(self) -> str:
        """The bounds in words: `1 to 4`, `at least 0`, `png, jpeg`; empty where there are none."""
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

    For `string`, `min` and `max` are lengths in characters. `default` is sent when the caller gives nothing; without
    one nothing is sent. `required` makes an absent value a 400. `synonyms` are other words for one of the choices, in
    any case: nobody but the caller's reader ever sees them.
    """

    type: ParamType
    doc: str
    default: JsonValue = None
    required: bool = False
    synonyms: Mapping[str, Scalar] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Param:
        if self.type == "enum" and not self.choices:
            raise ValueError("an enum needs its choices")
        for word, meant in (self.synonyms or {}).items():
            if meant not in (self.choices or ()):
                raise ValueError(f"the synonym {word!r} stands for {meant!r}, which is none of the choices")
        if self.type in ("image", "object", "array", "boolean") and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max mean nothing for type {self.type}")
        if self.default is not None and self.type in ("integer", "number", "enum") and not self.admits(self.default):
            raise ValueError(f"the default {self.default!r} is outside its own bounds: {self.describe()}")
        return self


class _Rule(Bounds):
    """What all rules have. `default` is this route's own, where another provider's would not do here."""

    default: JsonValue = None


class PassthroughRule(_Rule):
    """Sent as is, under the same name."""

    rule: Literal["passthrough"]


class RenamedRule(_Rule):
    """The same value under the provider's field name; a dot in `to` nests."""

    rule: Literal["renamed"]
    to: str


class ConvertedRule(_Rule):
    """Transformed by the named converter; `to` is the provider's field where it differs. Bounds hold before it.

    `table` gives the provider's word for a value, for the converters that look one up. Which keys a converter needs and
    which it reads at all, it declares itself, in `normalization/parameters/convert.py`.
    """

    rule: Literal["converted"]
    using: str
    to: str | None = None
    table: Mapping[str, JsonValue] = Field(default_factory=dict)


class EmulatedRule(_Rule):
    """The provider has no such thing: the gateway does it, by the named emulation."""

    rule: Literal["emulated"]
    by: str


Rule = Annotated[PassthroughRule | RenamedRule | ConvertedRule | EmulatedRule, Field(discriminator="rule")]
