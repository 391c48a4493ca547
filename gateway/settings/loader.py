"""Reads and checks `config/*.toml` and the environment. Every mistake is told with file, key, found and expected."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from gateway.routing.aliases import by_pattern, is_pattern
from gateway.settings import Alias, GatewayFile, GatewaySettings, ProvidersFile
from gateway.settings.environment import load_secret_files, overlay
from gateway.settings.errors import ConfigError, ConfigProblem, Override, explain, told
from normalization.parameters.convert import CONVERTERS
from normalization.parameters.emulate import EMULATIONS
from normalization.parameters.rules import ConvertedRule, Frozen, ModelProblem, Param, ParamType, Rule
from normalization.parameters.schema import Model, unpaired

__all__ = ["Config", "ConfigError", "load"]

SHIPPED = Path(__file__).resolve().parents[2] / "config"
T = TypeVar("T", bound=BaseModel)
_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


class StandardParameters(Frozen):
    """The whole of `standard.toml`."""

    denied: frozenset[str] = frozenset()
    multipliers: Mapping[str, str] = Field(default_factory=dict)
    reshaping: frozenset[str] = frozenset()
    params: Mapping[str, Param] = Field(default_factory=dict)
    rules: Mapping[str, Rule] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that the operator decides, checked."""

    folder: Path
    gateway: GatewaySettings
    aliases: Mapping[str, Alias]
    providers: ProvidersFile
    denied: frozenset[str]
    multipliers: Mapping[str, str]
    models: Mapping[str, Model]

    def resolve(self, name: str) -> tuple[Model | None, Alias | None]:
        """The model that a caller's name means, and the alias row if it went through one."""
        alias = None if is_pattern(name) else self.aliases.get(name)
        if alias is None and name not in self.models:
            alias = by_pattern(name, self.aliases)
        return self.models.get(alias.model if alias else name), alias


def load(folder: Path, environ: Mapping[str, str]) -> Config:
    """Read a config folder with the overrides of the environment. Raises ConfigError with every mistake found."""
    if not folder.is_dir():
        raise ConfigError([ConfigProblem(str(folder), "", "no such folder", "a folder with gateway.toml and models/")])
    mistakes: list[ConfigProblem] = []
    documents = {
        "gateway": _read(folder / "gateway.toml", mistakes),
        "providers": _read(folder / "providers.toml", mistakes),
        "standard": _read(folder / "standard.toml", mistakes),
        "models": {path.stem: _read(path, mistakes) for path in sorted((folder / "models").glob("*.toml"))},
    }
    if mistakes:
        raise ConfigError(mistakes)
    sections, names = tuple(documents), tuple(documents["models"])
    changed = overlay(documents, environ)
    _fill_secrets(documents, folder / "gateway.toml", changed)
    mistakes += _strays(changed, sections, names)
    gateway = _validate(GatewayFile, documents["gateway"], folder / "gateway.toml", changed, ("gateway",), mistakes)
    providers = _validate(
        ProvidersFile, documents["providers"], folder / "providers.toml", changed, ("providers",), mistakes
    )
    path = folder / "standard.toml"
    standard = _validate(StandardParameters, documents["standard"], path, changed, ("standard",), mistakes)
    shared = list(_rule_problems(documents["standard"], _kinds(documents["standard"])))
    mistakes += told(shared, str(path), changed, ("standard",), ())
    # A mistake in standard.toml is reported once, for that file, not for every route that uses its rules.
    told_of = {problem.place[1] for problem in shared}
    models: dict[str, Model] = {}
    if standard is not None:
        for name, document in documents["models"].items():
            path = folder / "models" / f"{name}.toml"
            whole = _compose(name, document, standard)
            model = _validate(Model, whole, path, changed, ("models", name), mistakes)
            mistakes += told(_model_problems(document, whole, told_of), str(path), changed, ("models", name), ())
            if model is not None:
                models[name] = model
    if not documents["models"]:
        mistakes.append(ConfigProblem(str(folder / "models"), "", "no model", "one TOML file for each model"))
    if gateway is not None:
        mistakes += _references(gateway, documents["models"], folder / "gateway.toml")
        mistakes += _forgetful(gateway.gateway, folder / "gateway.toml", changed)
    if mistakes or gateway is None or providers is None or standard is None:
        # Mistakes in the rules of a model that is valid otherwise are found twice.
        raise ConfigError(list(dict.fromkeys(mistakes)))
    return Config(
        folder=folder,
        gateway=gateway.gateway,
        aliases=gateway.aliases,
        providers=providers,
        denied=standard.denied,
        multipliers=standard.multipliers,
        models=models,
    )


def _fill_secrets(documents: dict[str, Any], path: Path, changed: dict[tuple[str, ...], Override]) -> None:
    names = [name for name in GatewaySettings.model_fields if f"{name}_file" in GatewaySettings.model_fields]
    places = {f"{name}_file": ("gateway", "gateway", f"{name}_file") for name in names}
    where = {
        key: f"environment variable {changed[place].variable}" if place in changed else str(path)
        for key, place in places.items()
    }
    table = documents["gateway"].get("gateway")
    if isinstance(table, dict):
        for name in load_secret_files(table, names, where):
            # A wrong one is blamed on the variable that named its file.
            if (place := places[f"{name}_file"]) in changed:
                changed["gateway", "gateway", name] = changed[place]


def _strays(
    changed: Mapping[tuple[str, ...], Override], sections: tuple[str, ...], models: tuple[str, ...]
) -> list[ConfigProblem]:
    """Variables that name a section or a model which does not exist."""
    found = []
    for place, override in changed.items():
        where = f"environment variable {override.variable}"
        if place[0] not in sections:
            found.append(
                ConfigProblem(where, "", f"the section {place[0]}", f"one of {', '.join((*sections, 'aliases'))}")
            )
        if place[0] == "models" and place[1] not in models:
            found.append(ConfigProblem(where, "", f"the model {place[1]}", f"one of {', '.join(models)}"))
    return found


def _read(path: Path, mistakes: list[ConfigProblem]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        mistakes.append(ConfigProblem(str(path), "", "no such file", "this file; it may be empty"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        mistakes.append(ConfigProblem(str(path), "", str(error), "a TOML document in UTF-8"))
    return {}


def _compose(name: str, document: Mapping[str, Any], standard: StandardParameters) -> dict[str, Any]:
    """A model's document with the standard parameters and rules filled in where it has none of its own."""
    params = {**{key: param.model_dump() for key, param in standard.params.items()}, **_table(document, "params")}
    routes = {}
    for key, route in _table(document, "routes").items():
        own = _table(route, "rules")
        rules = {**{k: rule.model_dump() for k, rule in standard.rules.items() if k in params}, **own}
        routes[key] = {"name": key, "provider": key, **route, "rules": rules} if isinstance(route, Mapping) else route
    # A model's file adds names of its own; what is no list is left for the schema to refuse.
    own = document.get("reshaping", [])
    reshaping = [*sorted(standard.reshaping), *own] if isinstance(own, list) else own
    return {**document, "id": name, "params": params, "routes": routes, "reshaping": reshaping}


def _table(document: object, key: str) -> dict[str, Any]:
    value = document.get(key) if isinstance(document, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else {}


def _validate(
    schema: type[T],
    document: Mapping[str, Any],
    path: Path,
    changed: Mapping[tuple[str, ...], Override],
    prefix: tuple[str, ...],
    mistakes: list[ConfigProblem],
) -> T | None:
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        mistakes += explain(error, schema, str(path), changed, prefix)
        return None


def _model_problems(document: Mapping[str, Any], whole: Mapping[str, Any], told_of: Set[str]) -> Iterator[ModelProblem]:
    """What a model's file says wrong about its routes: read from the document, so that it is told whatever else is.

    `whole` is the document with the standard's rules; `told_of` are those of them that are wrong by themselves.
    """
    known = tuple(ProvidersFile.model_fields)
    for key, route in whole["routes"].items():
        if not isinstance(route, Mapping):
            continue
        if isinstance(provider := route.get("provider"), str) and provider not in known:
            yield ModelProblem(("routes", key, "provider"), provider, f"one of {', '.join(known)}")
        own = _table(_table(document, "routes").get(key), "rules")
        for problem in _rule_problems(route, {**_kinds(whole), **_kinds(route)}):
            if problem.place[1] in own or problem.place[1] not in told_of:
                yield replace(problem, place=("routes", key, *problem.place))
        yield from unpaired(whole["params"], key, _table(route, "params"), _table(route, "rules"))


def _rule_problems(document: object, kinds: Mapping[str, ParamType]) -> Iterator[ModelProblem]:
    """What is wrong with the rules of a document, beyond what their schema says: names of code, and what that needs."""
    for name, text in _table(document, "rules").items():
        for problem in _named(text):
            yield replace(problem, place=("rules", name, *problem.place))
        try:
            rule = _RULE.validate_python(text)
        except ValidationError:
            continue
        if isinstance(rule, ConvertedRule) and rule.using in CONVERTERS:
            for problem in CONVERTERS[rule.using].problems(rule, kinds.get(name)):
                yield replace(problem, place=("rules", name, *problem.place))


def _named(rule: object) -> Iterator[ModelProblem]:
    for kind, key, known in (("converted", "using", CONVERTERS), ("emulated", "by", EMULATIONS)):
        if isinstance(rule, Mapping) and rule.get("rule") == kind:
            name = rule.get(key)
            if isinstance(name, str) and name not in known:
                yield ModelProblem((key,), name, f"one of {', '.join(known)}")


def _kinds(document: object) -> dict[str, ParamType]:
    """The types of the parameters that a document declares, where they are such."""
    return {
        name: param["type"]
        for name, param in _table(document, "params").items()
        if isinstance(param, Mapping) and param.get("type") in get_args(ParamType)
    }


def _references(file: GatewayFile, models: Collection[str], path: Path) -> list[ConfigProblem]:
    found = []
    known = f"a model: {', '.join(models)}"
    if file.gateway.default_model not in models:
        found.append(ConfigProblem(str(path), "gateway.default_model", file.gateway.default_model, known))
    for name, alias in file.aliases.items():
        if alias.model not in models:
            found.append(ConfigProblem(str(path), f"aliases.{name}.model", alias.model, known))
        if name in models:
            found.append(ConfigProblem(str(path), f"aliases.{name}", name, "a name that is not a model's own"))
    return found


def _forgetful(
    settings: GatewaySettings, path: Path, changed: Mapping[tuple[str, ...], Override]
) -> list[ConfigProblem]:
    """A ledger that forgets a job while a repeated call may still be given it: the call would buy once more."""
    if (found := settings.forgetful()) is None:
        return []
    name, least = found
    override = changed.get(("gateway", "gateway", "ledger_ttl_s"))
    where = str(path) if override is None else f"environment variable {override.variable}"
    expected = f"{least:g} at least, which is {name}: a call that is repeated until then must find its job"
    return [ConfigProblem(where, "gateway.ledger_ttl_s", f"{settings.ledger_ttl_s:g}", expected)]
