"""Mistakes in the config, told so that the reader can mend them: where, what was found, what was expected."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from normalization.parameters.rules import ModelProblem, RuleProblem


@dataclass(frozen=True, slots=True)
class Override:
    """A value that an environment variable set."""

    variable: str


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing to mend. `key` is dotted, empty when the whole file is meant; `expected` is empty when `found` is a
    whole sentence that says it."""

    where: str
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        return f"{place}: found {self.found}; expected {self.expected}" if self.expected else f"{place}: {self.found}"


class ConfigError(Exception):
    """The config cannot be used. The message has one line for each mistake."""

    def __init__(self, mistakes: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


def explain(
    error: ValidationError,
    schema: type[BaseModel],
    where: str,
    changed: Mapping[tuple[str, ...], Override],
    prefix: tuple[str, ...],
) -> list[ConfigProblem]:
    """Turn pydantic's findings into mistakes; a value that came from the environment is blamed on its variable."""
    found: dict[tuple[str, ...], ConfigProblem] = {}
    for item in error.errors(include_url=False):
        path = tuple(str(part) for part in item["loc"] if not _is_tag(part))
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, RuleProblem):
            for mistake in told(cause.problems, where, changed, prefix, path):
                found[mistake.where, mistake.key, mistake.found] = mistake
            continue
        mistake = ConfigProblem(
            blamed(where, changed, prefix + path),
            ".".join(path),
            _HIDDEN if _is_secret(schema, path) else _found(item),
            _expected(item, schema, path),
        )
        found.setdefault((mistake.where, mistake.key), mistake)
    return list(found.values())


def told(
    problems: Iterable[ModelProblem],
    where: str,
    changed: Mapping[tuple[str, ...], Override],
    prefix: tuple[str, ...],
    path: tuple[str, ...],
) -> list[ConfigProblem]:
    """Turn problems of what stands at `path` into mistakes."""
    return [
        ConfigProblem(blamed(where, changed, prefix + place), ".".join(place), problem.found, problem.expected)
        for problem in problems
        for place in ((*path, *problem.place),)
    ]


def blamed(where: str, changed: Mapping[tuple[str, ...], Override], place: tuple[str, ...]) -> str:
    """Where to mend what is wrong at a place: the file, or the environment variable that set it."""
    override = next((o for p, o in changed.items() if place[: len(p)] == p), None)
    return f"environment variable {override.variable}" if override else where


_HIDDEN = "a value that is not shown"


def _is_secret(schema: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether a place of the schema is a secret, whose value stays out of what is told of it."""
    owners = [schema]
    for part in path[:-1]:
        inner = [m for o in owners if part in o.model_fields for m in _models(o.model_fields[part].annotation)]
        owners = inner or owners
    fields = [owner.model_fields[path[-1]] for owner in owners if path and path[-1] in owner.model_fields]
    return any(_holds_secret(field.annotation) for field in fields)


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_holds_secret(argument) for argument in typing.get_args(annotation))


# pydantic puts the branch of a union into the location: it is no key of the reader's file.
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


def _keys(schema: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys that exist at a place of the schema."""
    models: list[type[BaseModel]] = [schema]
    for part in path:
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        inner = [model for annotation in annotations for model in _models(annotation)]
        # A part that is no field is a key of a table: the models stay those of its values.
        models = inner or models
    return sorted({name for model in models for name in model.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models(argument)]
