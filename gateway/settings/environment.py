"""Single values of the config from the environment: `DARKROOM_<SECTION>__<KEY>`, lists and tables as JSON.

Written here rather than with a settings library so that a mistake names the variable it came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "DARKROOM_"


@dataclass(frozen=True, slots=True)
class Override:
    """A value that an environment variable set."""

    variable: str


def overlay(documents: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], Override]:
    """Write the environment's values into the documents; return which places came from which variable.

    `DARKROOM_GATEWAY__KEY` is `[gateway] key`, `DARKROOM_PROVIDERS__LOCAL__WORKERS` is `[local] workers` of
    `providers.toml`, `DARKROOM_MODELS__CLARITY_UPSCALER__ROUTES__LOCAL__PRICE` reaches into a model's file. Case and
    the difference between `-`, `.` and `_` do not matter. Names without `__` are not values of the config.
    """
    changed: dict[tuple[str, ...], Override] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or "__" not in variable:
            continue
        parts = variable.removeprefix(PREFIX).split("__")
        section = parts[0].lower()
        # The file gateway.toml holds [gateway] and [aliases]: the section is the table in it.
        path = ["gateway", *parts] if section in ("gateway", "aliases") else parts
        place = _write(documents, path, _value(text))
        changed[place] = Override(variable)
    return changed


def _write(document: dict[str, Any], path: list[str], value: object) -> tuple[str, ...]:
    place: list[str] = []
    for part in path[:-1]:
        key = _match(document, part)
        place.append(key)
        inner = document.get(key)
        if not isinstance(inner, dict):
            inner = document[key] = {}
        document = inner
    key = _match(document, path[-1])
    document[key] = value
    return (*place, key)


def _match(document: Mapping[str, Any], part: str) -> str:
    return next((key for key in document if _plain(key) == _plain(part)), part.lower())


def _plain(key: str) -> str:
    return re.sub(r"[-.]", "_", key).lower()


def _value(text: str) -> object:
    """JSON for lists, tables and quoted text; anything else stays text, which the schema turns into its type."""
    if text.startswith(("[", "{", '"')):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
