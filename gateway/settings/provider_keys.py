"""The providers' API keys: from an environment variable, or from a file such as a container secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.settings import ProvidersFile
from gateway.settings.environment import read_secret
from gateway.settings.errors import ConfigError, ConfigProblem

_WANTED = "a key, or one a line"


def keys_of(providers: ProvidersFile, name: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of a cloud, without repetitions; () where it is off. Raises ConfigError.

    The variable may hold several, separated by commas; the file one a line. Both at once is a mistake: which of the
    two is meant cannot be told, and the wrong one is billed.
    """
    settings = getattr(providers, name)
    given = environ.get(settings.key_env, "")
    keys = [key.strip() for key in given.split(",")]
    where, place = f"environment variable {settings.key_env}", ""
    if settings.key_file:
        where, place = "providers.toml", f"{name}.key_file"
        if any(keys):
            raise _mistake(where, place, f"a file, and {settings.key_env} is set as well", "one of the two")
        keys = [line.strip() for line in read_secret(Path(settings.key_file), where, place, _WANTED).splitlines()]
        if not any(keys):
            raise _mistake(where, place, f"no key in {settings.key_file}", _WANTED)
    keys = [key for key in dict.fromkeys(keys) if key]
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise _mistake(where, place, "a key that no header can hold", "printable characters without spaces")
    return tuple(keys)


def configured(providers: ProvidersFile, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The clouds that have a key: what calls can cost money at. Raises ConfigError."""
    clouds = (name for name, settings in providers if hasattr(settings, "key_env"))
    return tuple(name for name in clouds if keys_of(providers, name, environ))


def check_keys(providers: ProvidersFile, environ: Mapping[str, str]) -> None:
    """Raise ConfigError where the keys of any cloud cannot be had."""
    for name, settings in providers:
        if hasattr(settings, "key_env"):
            keys_of(providers, name, environ)


def _mistake(where: str, place: str, found: str, expected: str) -> ConfigError:
    return ConfigError([ConfigProblem(where, place, found, expected)])
