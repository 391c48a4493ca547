"""Settings from the environment: `DARKROOM_<SECTION>__<KEY>`, lists and tables as JSON; and secrets from files.

Implemented here instead of with a settings library, so that an error names the variable it came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.settings.errors import ConfigError, ConfigProblem, Override

PREFIX = "DARKROOM_"


def overlay(documents: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], Override]:
    """Write the environment's values into the documents; return which keys came from which variable.

    `DARKROOM_GATEWAY__KEY` is `[gateway] key`, `DARKROOM_PROVIDERS__LOCAL__WORKERS` is `[local] workers` of
    `providers.toml`, `DARKROOM_MODELS__CLARITY_UPSCALER__ROUTES__LOCAL__PRICE` reaches into a model's file. Case
    and the difference between `-`, `.` and `_` are ignored. Names without `__` are not config values.
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
    """Parse JSON lists, tables and quoted text; anything else stays text, which the schema converts."""
    if text.startswith(("[", "{", '"')):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


# Far more than any secret or list of secrets.
_MOST_BYTES = 64 * 1024


def read_secret(path: Path, where: str, key: str, expected: str) -> str:
    """The text of a secret file, which never appears in messages. Raises ConfigError that names `key` and the file."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError([ConfigProblem(where, key, f"more than {_MOST_BYTES} bytes in {path}", expected)])
        return data.decode()
    except OSError as error:
        raise ConfigError([ConfigProblem(where, key, f"{path}: {error.strerror}", "a readable file")]) from None
    except UnicodeDecodeError:
        raise ConfigError([ConfigProblem(where, key, f"{path}: not text", expected)]) from None


def load_secret_files(table: dict[str, Any], names: Iterable[str], where: Mapping[str, str]) -> list[str]:
    """Read each `…_file` setting of a table into the secret setting of that name; return their names.

    `where` is the source of each key, for error messages. Raises ConfigError.
    """
    loaded = []
    for name in names:
        key = f"{name}_file"
        path = table.get(key)
        if not path or not isinstance(path, str):
            continue
        if table.get(name):
            found = f"a file, but {name} is set as well"
            raise ConfigError([ConfigProblem(where[key], f"gateway.{key}", found, "only one of the two")])
        text = read_secret(Path(path), where[key], f"gateway.{key}", f"the {name} alone").strip()
        if not text:
            raise ConfigError([ConfigProblem(where[key], f"gateway.{key}", f"an empty file {path}", f"the {name}")])
        table[name] = text
        loaded.append(name)
    return loaded
