"""Secrets from files, as containers are given them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.settings.errors import ConfigError, Mistake

# Far above any secret, or list of them: what is larger is not one.
_MOST_BYTES = 64 * 1024


def read_secret(path: Path, where: str, key: str, expected: str) -> str:
    """The text of a file, which is never told. Raises ConfigError that blames `key`, and names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError([Mistake(where, key, f"more than {_MOST_BYTES} bytes in {path}", expected)])
        return data.decode()
    except OSError as error:
        raise ConfigError([Mistake(where, key, f"{path}: {error.strerror}", "a file that can be read")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Mistake(where, key, f"{path}: not text", expected)]) from None


def fill(table: dict[str, Any], names: Iterable[str], where: Mapping[str, str]) -> list[str]:
    """Put into each secret setting of a table what the file of its `…_file` says; return which. Raises ConfigError.

    `where` says what each key is to be blamed on.
    """
    filled = []
    for name in names:
        key = f"{name}_file"
        path = table.get(key)
        if not path or not isinstance(path, str):
            continue
        if table.get(name):
            found = f"a file, and {name} is set as well"
            raise ConfigError([Mistake(where[key], f"gateway.{key}", found, "one of the two")])
        text = read_secret(Path(path), where[key], f"gateway.{key}", f"the {name} alone").strip()
        if not text:
            raise ConfigError([Mistake(where[key], f"gateway.{key}", f"nothing in {path}", f"the {name}")])
        table[name] = text
        filled.append(name)
    return filled
