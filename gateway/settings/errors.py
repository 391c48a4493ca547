"""Configuration errors, worded so that the reader can fix them: the place, what was found, and what was expected."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from normalization.parameters.rules import ModelProblem, RuleProblem
from normalization.parameters.schema import Model, Route

Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Override:
    """A value that an environment variable set."""

    variable: str


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing to fix.

    `where` is the file or the environment variable, `key` the dotted key in it, empty when the whole file is meant.
    `expected` is empty when `found` is a complete sentence.
    """

    where: str
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        return f"{place}: found {self.found}; expected {self.expected}" if self.expected else f"{place}: {self.found}"


class ConfigError(Exception):
    """The configuration cannot be used. The message has one line for each problem."""

    def __init__(self, mistakes: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


def _unmoved(place: Place) -> Place:
    return place


@dataclass(frozen=True, slots=True)
class Source:
    """Where the values of a document come from.

    `file` is its path, `prefix` its place among all documents, `changed` what environment variables set, by place among
    all documents. `as_written` maps a place of the document to the place where the file has it.
    """

    file: str
    prefix: Place
    changed: Mapping[Place, Override] = field(default_factory=dict)
    as_written: Callable[[Place], Place] = _unmoved

    def problem(self, place: Place, found: str, expected: str) -> ConfigProblem:
        """A problem at a place of the document, attributed to the environment variable or the file that set it."""
        for here in (place, self.as_written(place)):
            if (override := self._override(here)) is not None:
                return ConfigProblem(f"environment variable {override.variable}", ".".join(here), found, expected)
        return ConfigProblem(self.file, ".".join(self.as_written(place)), found, expected)

    def problems(self, found: Iterable[ModelProblem], at: Place = ()) -> list[ConfigProblem]:
        """The same for the problems of what stands at a place."""
        return [self.problem((*at, *one.place), one.found, one.expected) for one in found]

    def _override(self, place: Place) -> Override | None:
        whole = self.prefix + place
        return next((override for at, override in self.changed.items() if whole[: len(at)] == at), None)


def explain(error: ValidationError, schema: type[BaseModel], source: Source) -> list[ConfigProblem]:
    """Turn pydantic's errors into problems, one for each place."""
    found: dict[tuple[str, ...], ConfigProblem] = {}
    for item in error.errors(include_url=False):
        place = tuple(str(part) for part in item["loc"] if not _is_tag(part))
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, RuleProblem):
            for problem in source.problems(cause.problems, place):
                found[problem.where, problem.key, problem.found] = problem
            continue
        text = _HIDDEN if _is_secret(schema, place) else _found(item)
        problem = source.problem(place, text, _expected(item, schema, place))
        found.setdefault((problem.where, problem.key), problem)
    return list(found.values())


_HIDDEN = "a value that is not shown"


def _is_secret(schema: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether a place of the schema holds a secret, whose value must not appear in a message."""
    owners = [schema]
    for part in path[:-1]:
        inner = [m for o in owners if part in o.model_fields for m in _models(o.model_fields[part].annotation)]
        owners = inner or owners
    fields = [owner.model_fields[path[-1]] for owner in owners if path and path[-1] in owner.model_fields]
    return any(_holds_secret(field.annotation) for field in fields)


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_holds_secret(argument) for argument in typing.get_args(annotation))


# pydantic puts the branch of a union into the location; the reader's file has no such key.
_TAGS = frozenset({"passthrough", "renamed", "converted", "emulated"})


def _is_tag(part: str | int) -> bool:
    return isinstance(part, str) and (part in _TAGS or "[" in part or part.startswith(("literal", "function")))


def _found(item: Mapping[str, Any]) -> str:
    if item["type"] == "missing":
        return "nothing"
    if item["type"] == "extra_forbidden":
        return "a key that does not exist"
    if item["type"] == "value_error" and not _sentence(item).startswith("expected "):
        return _sentence(item)
    text = repr(item["input"])
    return text if len(text) <= 60 else text[:57] + "..."


def _expected(item: Mapping[str, Any], schema: type[BaseModel], path: tuple[str, ...]) -> str:
    message = str(item["msg"])
    if item["type"] == "missing":
        return "a value: this key is required"
    if item["type"] == "extra_forbidden":
        known = _keys(schema, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        return f"{near[0]} (did you mean it?)" if near else f"one of {', '.join(known)}" if known else "no such key"
    if item["type"] == "value_error":
        return _sentence(item).removeprefix("expected ") if _sentence(item).startswith("expected ") else ""
    if item["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return "rule = passthrough, renamed, converted or emulated"
    return message.removeprefix("Input should be ")


def _sentence(item: Mapping[str, Any]) -> str:
    return str(item["msg"]).removeprefix("Value error, ")


# Keys of the files alone: normalization/parameters/shorthand.py writes out what they stand for.
_SHORT_KEYS: Mapping[type[BaseModel], str] = {Model: "optional", Route: "passthrough"}


def _keys(schema: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys that a file may have at a place of the schema."""
    models: list[type[BaseModel]] = [schema]
    for part in path:
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        inner = [model for annotation in annotations for model in _models(annotation)]
        # A part that is not a field is a key of a table: the models stay those of its values.
        models = inner or models
    short = {_SHORT_KEYS[model] for model in models if model in _SHORT_KEYS}
    return sorted({name for model in models for name in model.model_fields} | short)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models(argument)]
