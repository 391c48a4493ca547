"""The providers' API keys: from an environment variable, or from a file such as a container secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.settings import ProvidersFile
from gateway.settings.environment import read_secret
from gateway.settings.errors import ConfigError, ConfigProblem

_EXPECTED = "a key, or one key per line"


def keys_of(providers: ProvidersFile, name: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of a cloud provider, without duplicates; () if it is off. Raises ConfigError.

    The variable may hold several keys, separated by commas; the file one per line. Setting both is an error, because
    the wrong account could be billed.
    """
    settings = getattr(providers, name)
    keys = [key.strip() for key in environ.get(settings.key_env, "").split(",")]
    where, place = f"environment variable {settings.key_env}", ""
    if settings.key_file:
        where, place = "providers.toml", f"{name}.key_file"
        if any(keys):
            raise _error(where, place, f"a file, but {settings.key_env} is set as well", "only one of the two")
        keys = [line.strip() for line in read_secret(Path(settings.key_file), where, place, _EXPECTED).splitlines()]
        if not any(keys):
            raise _error(where, place, f"no key in {settings.key_file}", _EXPECTED)
    keys = [key for key in dict.fromkeys(keys) if key]
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise _error(where, place, "a key that cannot be sent in an HTTP header", "printable characters without spaces")
    return tuple(keys)


def configured(providers: ProvidersFile, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The cloud providers with a key, at which requests can cost money. Raises ConfigError."""
    clouds = (name for name, settings in providers if hasattr(settings, "key_env"))
    return tuple(name for name in clouds if keys_of(providers, name, environ))


def check_keys(providers: ProvidersFile, environ: Mapping[str, str]) -> None:
    """Raise ConfigError if the keys of any cloud provider are invalid."""
    for name, settings in providers:
        if hasattr(settings, "key_env"):
            keys_of(providers, name, environ)


def _error(where: str, place: str, found: str, expected: str) -> ConfigError:
    return ConfigError([ConfigProblem(where, place, found, expected)])
