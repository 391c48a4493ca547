"""`darkroom keys`: the register of keys, read and written directly, with or without a server."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.api.keys import ApiKeyCreate, ApiKeyPatch, KeyRejected, changed, described, make
from gateway.api.schemas import listed
from gateway.auth import first_key
from gateway.auth import store as key_store
from gateway.auth.keys import ApiKey
from gateway.cli.output import format_table
from gateway.database.migrate import opened
from gateway.ledger.open import prepare_ledger
from gateway.names import NONE
from gateway.routing.pricing import MICROS
from gateway.settings.loader import SHIPPED, Config, load
from gateway.settings.types import secret_text

_HEAD = ("id", "name", "state", "budget", "spent USD", "rpm", "jobs at once", "may use")


def create(args: argparse.Namespace, *, as_json: bool) -> int:
    """Make a key and print it, alone on its line. Raises ConfigError for the ledger's."""
    config = _config()
    try:
        asked = ApiKeyCreate(name=args.name, admin=args.admin, **_rights(args))
        api_key, key = make(asked, config, time.time())
    except (ValidationError, KeyRejected) as error:
        return _misused(error)
    # The first key may be made before the first start: this makes the ledger where there is none.
    engine = prepare_ledger(config.gateway, _data())
    with engine.begin() as connection:
        another = key_store.any_in_force(connection)
        if args.keep and (status := _keep(key)):
            return status
        key_store.add(connection, api_key)
    engine.dispose()
    print(_what_changes(config, api_key, another=another), file=sys.stderr)
    if as_json:
        _print_json({**described(api_key, 0), "key": key})
        return 0
    print(
        f"{api_key.id} ({api_key.name}): {', '.join(_limits(api_key))}. This is the key, shown this once:",
        file=sys.stderr,
    )
    print(key)
    return 0


def change(args: argparse.Namespace, *, as_json: bool) -> int:
    """Change what a key may, and print it. Raises ConfigError for the ledger's."""
    config, now = _config(), time.time()
    with opened(secret_text(config.gateway.ledger_url), _data(), writes=True) as engine, engine.begin() as connection:
        api_key = key_store.find(connection, args.id)
        if api_key is None:
            return _unknown(args.id)
        try:
            key_store.change(connection, changed(api_key, ApiKeyPatch(**_rights(args)), config, now))
        except (ValidationError, KeyRejected) as error:
            return _misused(error)
    return show(args.id, as_json=as_json)


def show_all(*, as_json: bool) -> int:
    """Print every key, without the keys themselves. Raises ConfigError."""
    with opened(secret_text(_config().gateway.ledger_url), _data()) as engine, engine.begin() as connection:
        found = key_store.all_told(connection, time.time())
    if as_json:
        _print_json(listed([described(api_key, spent) for api_key, spent in found], more=False))
    elif not found:
        print("no keys: make one with `darkroom keys create --name …`")
    else:
        print("\n".join(format_table([_HEAD, *(_row(api_key, spent) for api_key, spent in found)], right=(4, 5, 6))))
    return 0


def show(key: str, *, as_json: bool) -> int:
    """Print one key. Raises ConfigError."""
    with opened(secret_text(_config().gateway.ledger_url), _data()) as engine, engine.begin() as connection:
        found = key_store.told(connection, key, time.time())
    if found is None:
        return _unknown(key)
    if as_json:
        _print_json(described(*found))
    else:
        print("\n".join(format_table(list(_facts(*found)))))
    return 0


def revoke(key: str, *, as_json: bool) -> int:
    """Revoke a key: servers take no call with it any more, within seconds. Raises ConfigError."""
    now = time.time()
    with (
        opened(secret_text(_config().gateway.ledger_url), _data(), writes=True) as engine,
        engine.begin() as connection,
    ):
        found = key_store.told(connection, key, now) if key_store.revoke(connection, key, now) else None
        left = key_store.any_in_force(connection)
    if found is None:
        return _unknown(key)
    _forget(key)
    if not left:
        print(_NONE_LEFT, file=sys.stderr)
    if as_json:
        _print_json(described(*found))
    else:
        print(f"{key} ({found[0].name}): revoked")
    return 0


_NONE_LEFT = (
    "That was the last key. Within seconds servers answer calls from their own machine without a key again; those with "
    "a provider's key, where calls cost money, refuse every call until there is a key: their next start makes one."
)


def _what_changes(config: Config, api_key: ApiKey, *, another: bool) -> str:
    """What a new key means for clients that run. What the environment of a server says is not known here."""
    if another:
        return "Nothing changes for clients that run: the other keys go on."
    return (
        f"It is the only key. Within {config.gateway.keys_remembered_s:g} s servers refuse calls without one, from "
        "their own machine too, unless they were started with --no-auth. Give it to clients that run, as api_key or "
        f"'Authorization: Bearer …'; `darkroom keys revoke {api_key.id}` brings the former state back."
    )


def _keep(key: str) -> int:
    """Keep a key in the data folder; the exit status, 0 where that went well."""
    try:
        first_key.write(_data(), key)
    except OSError as error:
        print(f"darkroom: the key cannot be kept in {first_key.file(_data())}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"The key is kept in {first_key.file(_data())}, for this machine's commands.", file=sys.stderr)
    return 0


def _forget(number: str) -> None:
    """Delete a revoked key from the data folder. One that stays there opens nothing."""
    try:
        if first_key.forget(_data(), number):
            print(f"It was the one in {first_key.file(_data())}, which is deleted.", file=sys.stderr)
    except (OSError, first_key.FirstKeyUnreadable) as error:
        print(f"The file {first_key.file(_data())} stays as it is: {error}", file=sys.stderr)


def _config() -> Config:
    return load(Path(os.environ.get("DARKROOM_CONFIG", SHIPPED)), os.environ)


def _data() -> Path:
    return Path(os.environ.get("DARKROOM_DATA", ".darkroom"))


def _rights(args: argparse.Namespace) -> dict[str, Any]:
    """What the options name: what was not given is not among it, what was given as none is None."""
    options = {"budget": args.budget, "rpm": args.rpm, "concurrency": args.concurrency, "models": args.models}
    options |= {"providers": args.providers, "expires_at": args.expires}
    return {name: None if value == NONE else value for name, value in options.items() if value is not None}


def _misused(error: ValidationError | KeyRejected) -> int:
    if isinstance(error, KeyRejected):
        field, expected = error.field, str(error)
    else:
        first = error.errors(include_url=False)[0]
        field, expected = str(first["loc"][0]), str(first["msg"])
    option = "--expires" if field == "expires_at" else f"--{field}"
    print(f"darkroom: {option} cannot be used: {expected}", file=sys.stderr)
    return 2


def _unknown(key: str) -> int:
    print(f"darkroom: there is no key {key!r}", file=sys.stderr)
    return 1


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _row(api_key: ApiKey, spent: int) -> tuple[str, ...]:
    return (
        api_key.id,
        api_key.name,
        _state(api_key),
        str(api_key.budget or "-"),
        f"{spent / MICROS:.4f}" if api_key.budget else "-",
        str(api_key.rpm or "-"),
        str(api_key.concurrency or "-"),
        _reach(api_key),
    )


def _facts(api_key: ApiKey, spent: int) -> Iterator[tuple[str, str]]:
    yield "key", api_key.id
    yield "name", api_key.name
    yield "state", _state(api_key)
    yield "made", _when(api_key.created_at)
    if api_key.expires_at is not None:
        yield "expires", _when(api_key.expires_at)
    if api_key.budget is not None:
        yield "budget", str(api_key.budget)
        left = max(0, api_key.budget.limit - spent)
        yield "spent", f"{spent / MICROS:.6f} USD, with what is held for jobs that go on; {left / MICROS:.6f} left"
        if (until := api_key.budget.period(time.time()).until) is not None:
            yield "anew at", until
    yield "requests", f"{api_key.rpm} a minute" if api_key.rpm else "as many as come"
    yield "jobs", f"{api_key.concurrency} at once" if api_key.concurrency else "as many as come"
    yield "may use", _reach(api_key)


def _limits(api_key: ApiKey) -> list[str]:
    """A grant's limits in words."""
    found = [f"budget {api_key.budget}"] if api_key.budget else []
    found += [f"{api_key.rpm} requests a minute"] if api_key.rpm else []
    found += [f"{api_key.concurrency} jobs at once"] if api_key.concurrency else []
    found += [f"until {_when(api_key.expires_at)}"] if api_key.expires_at else []
    return [*found, _reach(api_key)]


def _reach(api_key: ApiKey) -> str:
    names = [*sorted(api_key.models or ()), *(f"at {name}" for name in sorted(api_key.providers or ()))]
    return ("admin, " if api_key.admin else "") + (", ".join(names) or "every model")


def _state(api_key: ApiKey) -> str:
    if api_key.revoked_at is not None:
        return "revoked"
    return "expired" if api_key.expires_at is not None and api_key.expires_at <= time.time() else "good"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
