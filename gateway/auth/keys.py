"""API keys: their text form, what a key allows (scopes, quotas, budget), and the keys from the environment."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Literal, get_args

from gateway.settings.types import Auth


class AuthPolicy(Enum):
    """How requests without a key are treated. Without a key, only the server's own machine is ever served."""

    REQUIRED = "required for every request"
    WHILE_KEYS_EXIST = "required while at least one key exists that is not revoked"
    OFF = "not required"


def policy(auth: Auth, *, has_keys: bool, buys: bool) -> AuthPolicy:
    """The auth policy. `has_keys`: the environment has API keys; `buys`: a provider's key is configured.

    Behind a proxy on the same machine every client looks local. So requests that cost money always need a key, unless
    the operator turns that off.
    """
    if auth == "none":
        return AuthPolicy.OFF
    return AuthPolicy.REQUIRED if auth == "required" or has_keys or buys else AuthPolicy.WHILE_KEYS_EXIST


_KEY = re.compile(r"dr_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


def draw() -> tuple[str, str]:
    """A new key's id, and the secret key, which is shown once and never stored."""
    number = secrets.token_hex(8)
    return f"key_{number}", f"dr_{number}_{secrets.token_urlsafe(32)}"


def id_of(key: str) -> str | None:
    """The id contained in a key; None if the text is not one of our keys."""
    match = _KEY.fullmatch(key)
    return f"key_{match[1]}" if match else None


def digest(key: str) -> bytes:
    """The stored hash of a key. Its 256 random bits need no slow hash."""
    return hashlib.sha256(key.encode()).digest()


Every = Literal["day", "week", "month", "total"]
PERIODS: tuple[Every, ...] = get_args(Every)

_MICROS = 1_000_000
_TEXT = re.compile(r"\$?([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/([a-z]+))?")
_WANTED = f"expected dollars and a period, such as 25/month (the periods: {', '.join(PERIODS)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A calendar period in UTC. `start` and `end` are in seconds since the epoch; `end` is None if it never ends."""

    name: str
    start: float
    end: float | None

    @property
    def until(self) -> str | None:
        """Its end in ISO 8601."""
        return None if self.end is None else f"{datetime.fromtimestamp(self.end, UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be spent in each period. `limit` is in micro-dollars."""

    limit: int
    every: Every

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse `25/month`, `0.50/day` or `100` (in total). Raises ValueError that says what is expected."""
        match = _TEXT.fullmatch(text.strip())
        every = (match[2] or "total") if match else ""
        if match is None or every not in PERIODS:
            raise ValueError(_WANTED)
        return cls(limit=int(Decimal(match[1]) * _MICROS), every=every)

    def period(self, at: float) -> Period:
        """The period that contains a time, in seconds since the epoch."""
        if self.every == "total":
            return Period(name="total", start=0.0, end=None)
        day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.every == "day":
            start, end = day, day + timedelta(days=1)
        elif self.every == "week":
            start = day - timedelta(days=day.weekday())
            end = start + timedelta(days=7)
        else:
            start = day.replace(day=1)
            end = (start + timedelta(days=32)).replace(day=1)
        return Period(name=f"{self.every}:{start:%Y-%m-%d}", start=start.timestamp(), end=end.timestamp())

    def __str__(self) -> str:
        amount = f"${self.limit / _MICROS:.6f}".rstrip("0")
        whole, _, cents = amount.partition(".")
        return f"{whole}.{cents:0<2}" + ("" if self.every == "total" else f"/{self.every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The limits that the ledger enforces. `concurrency` is the number of concurrent jobs over all processes."""

    budget: Budget | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key. `id` appears in the ledger and reveals nothing of the secret; "" stands for the operator's machine.

    `models` and `providers` are the only ones it may use, None means all. `rpm` is requests per minute, `concurrency`
    the number of concurrent jobs. Times are in seconds since the epoch.
    """

    id: str
    name: str = ""
    admin: bool = False
    models: frozenset[str] | None = None
    providers: frozenset[str] | None = None
    rpm: int | None = None
    concurrency: int | None = None
    budget: Budget | None = None
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    digest: bytes = field(default=b"", repr=False)

    def matches(self, digest: bytes, now: float) -> bool:
        """Whether this digest is the key's, compared in constant time, and the key is valid at this time."""
        return hmac.compare_digest(digest, self.digest) and self.good(now)

    def good(self, now: float) -> bool:
        """Whether the key is neither revoked nor expired at this time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def quota(self) -> Quota | None:
        """The limits that the ledger has to enforce; None if there are none."""
        if self.budget is None and self.concurrency is None:
            return None
        return Quota(budget=self.budget, concurrency=self.concurrency)

    @property
    def scope(self) -> str | None:
        """The id of the key whose jobs this key may see (its own); None for an admin, who sees all."""
        return None if self.admin else self.id

    def allows_model(self, model: str) -> bool:
        """Whether the key may use a model, by the model's id."""
        return self.models is None or model in self.models

    def allows_provider(self, provider: str) -> bool:
        """Whether the key's requests may go to a provider."""
        return self.providers is None or provider in self.providers


OPERATOR = ApiKey(id="", name="operator", admin=True)
"""The identity of requests from this machine while no keys exist."""


class QuotaExceeded(Exception):
    """A key's quota does not allow this now. Nothing was sent. The message is a sentence for the client."""


class BudgetExceeded(QuotaExceeded):
    """The key's remaining budget is too small."""


class ConcurrencyExceeded(QuotaExceeded):
    """The key has reached its limit of concurrent jobs."""


LEAST_LENGTH = 32
"""Minimum characters of a key: 128 bits in random hexadecimal digits, and longer than a word that people type."""


class UnusableKey(Exception):
    """The API keys in the environment cannot be used. The message names the variable or the file."""


class UnreadableKey(UnusableKey):
    """A key file cannot be read or is empty."""


class WeakKey(UnusableKey):
    """A key is short enough to be guessed."""


class StaticKeys:
    """The API keys from the environment, stored as digests."""

    def __init__(self, text: str | None, admin: str | None = None) -> None:
        parts = (part.strip() for part in (text or "").split(","))
        self._keys = tuple(_static_key(part, admin=False) for part in parts if part)
        if admin and admin.strip():
            self._keys += (_static_key(admin.strip(), admin=True),)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> StaticKeys:
        """Read `DARKROOM_API_KEYS` and `DARKROOM_ADMIN_KEY`, each also as `…_FILE`. Raises UnusableKey."""
        clients, admin = _value(environ, "DARKROOM_API_KEYS"), _value(environ, "DARKROOM_ADMIN_KEY")
        _check_strength("DARKROOM_API_KEYS", (clients or "").split(","))
        _check_strength("DARKROOM_ADMIN_KEY", [admin or ""])
        return cls(clients, admin)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, key: str) -> ApiKey | None:
        """The API key for a secret key; None if it is not one of these."""
        key_digest = digest(key)
        # All keys are compared, so that timing reveals nothing. The last match wins: the admin key.
        match = None
        for api_key in self._keys:
            if hmac.compare_digest(key_digest, api_key.digest):
                match = api_key
        return match


def presented(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer …` (any case) or `api-key`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("api-key") or None


def _check_strength(name: str, parts: Sequence[str]) -> None:
    """Raise WeakKey for a key that is too short. The message never contains the key, which may be used elsewhere."""
    keys = [part.strip() for part in parts if part.strip()]
    for number, key in enumerate(keys, 1):
        if len(key) < LEAST_LENGTH:
            which = f"key {number} of {len(keys)}" if len(keys) > 1 else "the key"
            raise WeakKey(
                f"{name}: {which} has {len(key)} characters, which is short enough to be guessed; use at least "
                f"{LEAST_LENGTH} random characters, from `openssl rand -hex 32` or "
                "`python3 -c 'import secrets; print(secrets.token_urlsafe(32))'`"
            )


def _static_key(key: str, *, admin: bool) -> ApiKey:
    key_digest = digest(key)
    number = hashlib.sha256(b"id:" + key_digest).hexdigest()[:16]
    return ApiKey(id=f"key_{number}", name="admin" if admin else "environment", admin=admin, digest=key_digest)


def _value(environ: Mapping[str, str], name: str) -> str | None:
    path = environ.get(f"{name}_FILE", "").strip()
    if not path:
        return environ.get(name)
    if environ.get(name, "").strip():
        raise UnreadableKey(f"{name} and {name}_FILE are both set: set only one of them")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableKey(f"{name}_FILE: {path} cannot be read ({type(error).__name__})") from None
    if not text.strip():
        raise UnreadableKey(f"{name}_FILE: {path} is empty")
    # Keys on separate lines are accepted as well as commas.
    return ",".join(text.split())
