"""Reads and validates `config/*.toml` and the environment. Each problem names file, key, found and expected."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from gateway.routing.aliases import by_pattern, is_pattern
from gateway.settings import Alias, GatewayFile, GatewaySettings, ProvidersFile
from gateway.settings.environment import PREFIX, load_secret_files, overlay
from gateway.settings.errors import ConfigError, ConfigProblem, Override, Place, Source, explain
from gateway.settings.providers import providers_file
from normalization.parameters.convert import CONVERTERS
from normalization.parameters.emulate import EMULATIONS
from normalization.parameters.rules import ConvertedRule, Frozen, ModelProblem, Param, ParamType, Rule
from normalization.parameters.schema import Model, unpaired
from normalization.parameters.shorthand import LongForm, drop_undeclared, expand, table_at

__all__ = ["Config", "ConfigError", "load"]

SHIPPED = Path(__file__).resolve().parents[2] / "config"
T = TypeVar("T", bound=BaseModel)
_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


class StandardParameters(Frozen):
    """The content of `standard.toml`."""

    denied: frozenset[str] = frozenset()
    multipliers: Mapping[str, str] = Field(default_factory=dict)
    reshaping: frozenset[str] = frozenset()
    params: Mapping[str, Param] = Field(default_factory=dict)
    rules: Mapping[str, Rule] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The validated configuration."""

    folder: Path
    gateway: GatewaySettings
    aliases: Mapping[str, Alias]
    providers: ProvidersFile
    denied: frozenset[str]
    multipliers: Mapping[str, str]
    models: Mapping[str, Model]

    def resolve(self, name: str) -> tuple[Model | None, Alias | None]:
        """The model that a client's name refers to, and the alias if the name is one."""
        alias = None if is_pattern(name) else self.aliases.get(name)
        if alias is None and name not in self.models:
            alias = by_pattern(name, self.aliases)
        return self.models.get(alias.model if alias else name), alias


def load(folder: Path, environ: Mapping[str, str]) -> Config:
    """Read a configuration folder and apply the environment's overrides. Raises ConfigError with every problem."""
    documents = _documents(folder)
    sections, names = tuple(documents), tuple(documents["models"])
    forms, changed = _with_environment(documents, folder, environ)
    problems = _strays(changed, sections, names)

    def source(*section: str) -> Source:
        return Source(f"{folder.joinpath(*section)}.toml", section, changed)

    gateway = _validate(GatewayFile, documents["gateway"], source("gateway"), problems)
    schema = providers_file()
    providers = _validate(schema, documents["providers"], source("providers"), problems)
    standard = _validate(StandardParameters, documents["standard"], source("standard"), problems)
    wrong_rules = list(_rule_problems(documents["standard"], _kinds(documents["standard"])))
    problems += source("standard").problems(wrong_rules)
    models: dict[str, Model] = {}
    if standard is not None:
        for name, document in documents["models"].items():
            form = forms.get(name, LongForm({}))
            at = replace(source("models", name), as_written=form.as_written)
            # A problem in standard.toml is reported once, for that file, not for every route that uses its rules.
            reported = {problem.place[1] for problem in wrong_rules}
            model = _model(name, document, form, standard, reported, tuple(schema.model_fields), at, problems)
            models |= {name: model} if model is not None else {}
    if not documents["models"]:
        problems.append(ConfigProblem(str(folder / "models"), "", "no model", "one TOML file for each model"))
    if gateway is not None:
        problems += _references(gateway, documents["models"], folder / "gateway.toml")
        problems += _forgetful(gateway.gateway, source("gateway"))
    if problems or gateway is None or providers is None or standard is None:
        # Problems in the rules of a model that is valid otherwise are found twice.
        raise ConfigError(list(dict.fromkeys(problems)))
    return Config(
        folder=folder,
        gateway=gateway.gateway,
        aliases=gateway.aliases,
        providers=providers,
        denied=standard.denied,
        multipliers=standard.multipliers,
        models=models,
    )


def _documents(folder: Path) -> dict[str, Any]:
    """The TOML documents of a folder, by section. Raises ConfigError with every file that is missing or malformed."""
    if not folder.is_dir():
        raise ConfigError([ConfigProblem(str(folder), "", "no such folder", "a folder with gateway.toml and models/")])
    problems: list[ConfigProblem] = []
    documents = {
        "gateway": _read(folder / "gateway.toml", problems),
        "providers": _read(folder / "providers.toml", problems),
        "standard": _read(folder / "standard.toml", problems),
        "models": {path.stem: _read(path, problems) for path in sorted((folder / "models").glob("*.toml"))},
    }
    if problems:
        raise ConfigError(problems)
    return documents


def _with_environment(
    documents: dict[str, Any], folder: Path, environ: Mapping[str, str]
) -> tuple[dict[str, LongForm], dict[Place, Override]]:
    """Apply the environment to the documents and write the models out; return what was written out, and what was set.

    Variables that reach into a route's rules or params apply to the long form, where each route has its own; all others
    to the files as they are written.
    """
    late = {variable: text for variable, text in environ.items() if _reaches_into_a_route(variable)}
    changed = overlay(documents, {variable: text for variable, text in environ.items() if variable not in late})
    standard = table_at(documents["standard"], "params")
    forms = {
        name: expand(document, standard)
        for name, document in documents["models"].items()
        if isinstance(document, Mapping)
    }
    documents["models"] |= {name: form.document for name, form in forms.items()}
    changed |= overlay(documents, late)
    _fill_secrets(documents, folder / "gateway.toml", changed)
    return forms, changed


def _reaches_into_a_route(variable: str) -> bool:
    """Whether a variable is `DARKROOM_MODELS__<MODEL>__ROUTES__<ROUTE>__RULES…` or `…__PARAMS…`."""
    match variable.removeprefix(PREFIX).upper().split("__"):
        case ["MODELS", _, "ROUTES", _, "RULES" | "PARAMS", *_]:
            return True
    return False


def _model(
    name: str,
    document: object,
    form: LongForm,
    standard: StandardParameters,
    reported: Set[str],
    providers: Sequence[str],
    source: Source,
    problems: list[ConfigProblem],
) -> Model | None:
    """A model, None if it is invalid; its problems are added to `problems`.

    `reported` are invalid standard rules, `providers` the names of the providers.
    """
    if not isinstance(document, Mapping):
        return _validate(Model, document, source, problems)
    problems += source.problems(form.problems)
    whole = _compose(name, document, standard)
    problems += source.problems(_drop_undeclared(whole, form))
    model = _validate(Model, whole, source, problems)
    problems += source.problems(_model_problems(document, whole, reported, providers))
    return model


def _drop_undeclared(whole: Mapping[str, Any], form: LongForm) -> Iterator[ModelProblem]:
    for key, route in whole["routes"].items():
        if isinstance(route, Mapping):
            declared = {**whole["params"], **table_at(route, "params")}
            yield from drop_undeclared(form, key, declared, route["rules"])


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
            # A problem with the secret is attributed to the variable that named its file.
            if (place := places[f"{name}_file"]) in changed:
                changed["gateway", "gateway", name] = changed[place]


def _strays(
    changed: Mapping[tuple[str, ...], Override], sections: tuple[str, ...], models: tuple[str, ...]
) -> list[ConfigProblem]:
    """Variables that name an unknown section or model."""
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


def _read(path: Path, problems: list[ConfigProblem]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(ConfigProblem(str(path), "", "no such file", "this file; it may be empty"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(ConfigProblem(str(path), "", str(error), "a TOML document in UTF-8"))
    return {}


def _compose(name: str, document: Mapping[str, Any], standard: StandardParameters) -> dict[str, Any]:
    """A model's document, completed with the standard parameters and rules that it does not replace."""
    params = {**{key: param.model_dump() for key, param in standard.params.items()}, **table_at(document, "params")}
    routes = {}
    for key, route in table_at(document, "routes").items():
        own = table_at(route, "rules")
        rules = {**{k: rule.model_dump() for k, rule in standard.rules.items() if k in params}, **own}
        routes[key] = {"name": key, "provider": key, **route, "rules": rules} if isinstance(route, Mapping) else route
    # A model's file adds names of its own; anything but a list is left for the schema to refuse.
    own = document.get("reshaping", [])
    reshaping = [*sorted(standard.reshaping), *own] if isinstance(own, list) else own
    return {**document, "id": name, "params": params, "routes": routes, "reshaping": reshaping}


def _validate(schema: type[T], document: object, source: Source, problems: list[ConfigProblem]) -> T | None:
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        problems += explain(error, schema, source)
        return None


def _model_problems(
    document: Mapping[str, Any], whole: Mapping[str, Any], reported: Set[str], known: Sequence[str]
) -> Iterator[ModelProblem]:
    """Problems of a model's routes, found in the document, so that they are reported even if the schema rejects it.

    `whole` is the document with the standard rules; `reported` are those standard rules that are invalid by themselves.
    """
    for key, route in whole["routes"].items():
        if not isinstance(route, Mapping):
            continue
        if isinstance(provider := route.get("provider"), str) and provider not in known:
            yield ModelProblem(("routes", key, "provider"), provider, f"one of {', '.join(known)}")
        own = table_at(table_at(document, "routes").get(key), "rules")
        for problem in _rule_problems(route, {**_kinds(whole), **_kinds(route)}):
            if problem.place[1] in own or problem.place[1] not in reported:
                yield replace(problem, place=("routes", key, *problem.place))
        yield from unpaired(whole["params"], key, table_at(route, "params"), table_at(route, "rules"))


def _rule_problems(document: object, kinds: Mapping[str, ParamType]) -> Iterator[ModelProblem]:
    """Problems of the rules of a document beyond their schema: unknown code, and keys that a converter requires."""
    for name, text in table_at(document, "rules").items():
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
    """The types of the parameters that a document declares; invalid ones are left out."""
    return {
        name: param["type"]
        for name, param in table_at(document, "params").items()
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


def _forgetful(settings: GatewaySettings, source: Source) -> list[ConfigProblem]:
    """A ledger that forgets a job while a repeated request may still refer to it: the request would buy it again."""
    if (found := settings.forgetful()) is None:
        return []
    name, least = found
    expected = f"at least {least:g}, the value of {name}: a request repeated until then must find its job"
    return [source.problem(("gateway", "ledger_ttl_s"), f"{settings.ledger_ttl_s:g}", expected)]
