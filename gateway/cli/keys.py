"""`darkroom keys`: creates, lists and revokes API keys in the database, whether or not a server is running."""

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
    """Create a key and print it on a line of its own. Raises ConfigError, also for an unusable ledger."""
    config = _config()
    try:
        fields = ApiKeyCreate(name=args.name, admin=args.admin, **_limit_options(args))
        api_key, key = make(fields, config, time.time())
    except (ValidationError, KeyRejected) as error:
        return _report_invalid(error)
    # The first key may be created before the first start: this creates the ledger if necessary.
    engine = prepare_ledger(config.gateway, _data())
    with engine.begin() as connection:
        has_others = key_store.any_in_force(connection)
        if args.keep and (status := _save(key)):
            return status
        key_store.add(connection, api_key)
    engine.dispose()
    print(_client_notice(config, api_key, has_others=has_others), file=sys.stderr)
    if as_json:
        _print_json({**described(api_key, 0), "key": key})
        return 0
    print(
        f"{api_key.id} ({api_key.name}): {', '.join(_limits(api_key))}. The key, which is not shown again:",
        file=sys.stderr,
    )
    print(key)
    return 0


def change(args: argparse.Namespace, *, as_json: bool) -> int:
    """Change the limits of a key, and print it. Raises ConfigError, also for an unusable ledger."""
    config, now = _config(), time.time()
    with opened(secret_text(config.gateway.ledger_url), _data(), writes=True) as engine, engine.begin() as connection:
        api_key = key_store.find(connection, args.id)
        if api_key is None:
            return _report_unknown(args.id)
        try:
            key_store.change(connection, changed(api_key, ApiKeyPatch(**_limit_options(args)), config, now))
        except (ValidationError, KeyRejected) as error:
            return _report_invalid(error)
    return show(args.id, as_json=as_json)


def show_all(*, as_json: bool) -> int:
    """Print every key's id and limits, never the secret key. Raises ConfigError."""
    with opened(secret_text(_config().gateway.ledger_url), _data()) as engine, engine.begin() as connection:
        found = key_store.all_with_spent(connection, time.time())
    if as_json:
        _print_json(listed([described(api_key, spent) for api_key, spent in found], more=False))
    elif not found:
        print("no API keys; create one with: darkroom keys create --name NAME")
    else:
        print("\n".join(format_table([_HEAD, *(_row(api_key, spent) for api_key, spent in found)], right=(4, 5, 6))))
    return 0


def show(key: str, *, as_json: bool) -> int:
    """Print one key. Raises ConfigError."""
    with opened(secret_text(_config().gateway.ledger_url), _data()) as engine, engine.begin() as connection:
        found = key_store.with_spent(connection, key, time.time())
    if found is None:
        return _report_unknown(key)
    if as_json:
        _print_json(described(*found))
    else:
        print("\n".join(format_table(list(_facts(*found)))))
    return 0


def revoke(key: str, *, as_json: bool) -> int:
    """Revoke a key: within seconds every server refuses it. Raises ConfigError."""
    now = time.time()
    with (
        opened(secret_text(_config().gateway.ledger_url), _data(), writes=True) as engine,
        engine.begin() as connection,
    ):
        found = key_store.with_spent(connection, key, now) if key_store.revoke(connection, key, now) else None
        any_left = key_store.any_in_force(connection)
    if found is None:
        return _report_unknown(key)
    _delete_saved(key)
    if not any_left:
        print(_LAST_KEY_NOTICE, file=sys.stderr)
    if as_json:
        _print_json(described(*found))
    else:
        print(f"{key} ({found[0].name}): revoked")
    return 0


_LAST_KEY_NOTICE = (
    "That was the last API key. Within seconds, servers without a provider key accept requests from their own machine "
    "without an API key again. Servers with a provider key, where requests cost money, refuse every request until a "
    "key exists; their next start creates one."
)


def _client_notice(config: Config, api_key: ApiKey, *, has_others: bool) -> str:
    """What a new key means for running clients. A server's own environment is not visible from here."""
    if has_others:
        return "Running clients are not affected: the other keys remain valid."
    return (
        f"This is the only API key. Within {config.gateway.key_cache_s:g} s servers refuse requests without a key, "
        "also from their own machine, unless they were started with --no-auth. Give the key to running clients, as "
        f"api_key or 'Authorization: Bearer …', or undo this with: darkroom keys revoke {api_key.id}"
    )


def _save(key: str) -> int:
    """Save a key in the data folder; return the exit status, 0 on success."""
    try:
        first_key.write(_data(), key)
    except OSError as error:
        print(f"darkroom: cannot save the key in {first_key.file(_data())}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"The key was saved in {first_key.file(_data())}, for commands on this machine.", file=sys.stderr)
    return 0


def _delete_saved(number: str) -> None:
    """Delete a revoked key from the data folder. A key that remains there is harmless: it is not valid."""
    try:
        if first_key.forget(_data(), number):
            print(f"The file {first_key.file(_data())} held this key and was deleted.", file=sys.stderr)
    except (OSError, first_key.FirstKeyUnreadable) as error:
        print(f"The file {first_key.file(_data())} was not deleted: {error}", file=sys.stderr)


def _config() -> Config:
    return load(Path(os.environ.get("DARKROOM_CONFIG", SHIPPED)), os.environ)


def _data() -> Path:
    return Path(os.environ.get("DARKROOM_DATA", ".darkroom"))


def _limit_options(args: argparse.Namespace) -> dict[str, Any]:
    """The limits given as options: an option that was not given is absent, one given as `none` is None."""
    options = {"budget": args.budget, "rpm": args.rpm, "concurrency": args.concurrency, "models": args.models}
    options |= {"providers": args.providers, "expires_at": args.expires}
    return {name: None if value == NONE else value for name, value in options.items() if value is not None}


def _report_invalid(error: ValidationError | KeyRejected) -> int:
    if isinstance(error, KeyRejected):
        field, expected = error.field, str(error)
    else:
        first = error.errors(include_url=False)[0]
        field, expected = str(first["loc"][0]), str(first["msg"])
    option = "--expires" if field == "expires_at" else f"--{field}"
    print(f"darkroom: invalid {option}: {expected}", file=sys.stderr)
    return 2


def _report_unknown(key: str) -> int:
    print(f"darkroom: no such API key: {key!r}", file=sys.stderr)
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
    yield "created", _when(api_key.created_at)
    if api_key.expires_at is not None:
        yield "expires", _when(api_key.expires_at)
    if api_key.budget is not None:
        yield "budget", str(api_key.budget)
        left = max(0, api_key.budget.limit - spent)
        reserved = "including reservations for running jobs"
        yield "spent", f"{spent / MICROS:.6f} USD ({reserved}), {left / MICROS:.6f} USD left"
        if (until := api_key.budget.period(time.time()).until) is not None:
            yield "resets at", until
    yield "requests", f"{api_key.rpm} a minute" if api_key.rpm else "unlimited"
    yield "jobs", f"{api_key.concurrency} at once" if api_key.concurrency else "unlimited"
    yield "may use", _reach(api_key)


def _limits(api_key: ApiKey) -> list[str]:
    """A key's limits in words."""
    limits = [f"budget {api_key.budget}"] if api_key.budget else []
    limits += [f"{api_key.rpm} requests a minute"] if api_key.rpm else []
    limits += [f"{api_key.concurrency} jobs at once"] if api_key.concurrency else []
    limits += [f"until {_when(api_key.expires_at)}"] if api_key.expires_at else []
    return [*limits, _reach(api_key)]


def _reach(api_key: ApiKey) -> str:
    names = [*sorted(api_key.models or ()), *(f"at {name}" for name in sorted(api_key.providers or ()))]
    return ("admin, " if api_key.admin else "") + (", ".join(names) or "every model")


def _state(api_key: ApiKey) -> str:
    if api_key.revoked_at is not None:
        return "revoked"
    return "expired" if api_key.expires_at is not None and api_key.expires_at <= time.time() else "active"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
