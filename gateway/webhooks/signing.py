"""Signatures of webhooks and file URLs, all derived from one secret of the server."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from gateway.database.engine import insert_new
from gateway.database.schema import SECRETS
from gateway.database.writer import Database

_NAME = "webhooks"
_PREFIX = "whsec_"
_BYTES = 32
# Half of a SHA-256: keeps URLs short, and is still impossible to guess.
_MAC_DIGITS = 32


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Derives secrets and signatures from the server's `master` secret."""

    master: bytes = field(repr=False)

    def of_caller(self, key: str) -> str:
        """The webhook secret of an API key, given the key's id, in the format of Standard Webhooks."""
        return _PREFIX + base64.b64encode(hmac.digest(self.master, f"webhook:{key}".encode(), "sha256")).decode()

    def headers(self, key: str, name: str, body: bytes, at: float) -> dict[str, str]:
        """The headers of a message, by Standard Webhooks 1.0. `at` is in seconds since the epoch."""
        secret = base64.b64decode(self.of_caller(key).removeprefix(_PREFIX))
        content = f"{name}.{int(at)}.".encode() + body
        signature = base64.b64encode(hmac.digest(secret, content, "sha256")).decode()
        return {"webhook-id": name, "webhook-timestamp": str(int(at)), "webhook-signature": f"v1,{signature}"}

    def path(self, provider: str, attempt: str) -> str:
        """The path at which a provider reports on an attempt; it cannot be guessed."""
        return f"/hooks/{provider}/{attempt}/{self._mac(provider, attempt)}"

    def is_path(self, provider: str, attempt: str, mac: str) -> bool:
        """Whether a report path is valid, compared in constant time."""
        return hmac.compare_digest(self._mac(provider, attempt).encode(), mac.encode())

    def file(self, name: str, expires: int) -> str:
        """The signature of a file's URL that is valid until `expires`, in seconds since the epoch."""
        return hmac.new(self.master, f"file:{expires}:{name}".encode(), "sha256").hexdigest()

    def is_file(self, name: str, expires: int, signature: str) -> bool:
        """Whether a file's signature is valid, compared in constant time."""
        return hmac.compare_digest(self.file(name, expires).encode(), signature.encode())

    def _mac(self, provider: str, attempt: str) -> str:
        return hmac.new(self.master, f"hook:{provider}:{attempt}".encode(), "sha256").hexdigest()[:_MAC_DIGITS]


async def open_secrets(database: Database, configured: str | None) -> SigningKeys:
    """The keys derived from the operator's `whsec_…`, else from the secret in the ledger, created at the first start.

    Raises LedgerDown.
    """
    kept = configured if configured is not None else await database.write(_stored_secret)
    return SigningKeys(base64.b64decode(kept.removeprefix(_PREFIX)))


def _stored_secret(connection: Connection) -> str:
    value = _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()
    connection.execute(insert_new(connection, SECRETS).values(name=_NAME, value=value))
    return str(connection.execute(select(SECRETS.c.value).where(SECRETS.c.name == _NAME)).scalar_one())
