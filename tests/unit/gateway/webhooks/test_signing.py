"""Secrets, and what is derived from them."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from gateway.webhooks.signing import SigningKeys, open_secrets
from tests.support.office import SECRETS, opened

BODY = b'{"type":"image.job.completed"}'


def test_the_official_verifier_takes_it() -> None:
    """A message is good for whoever has the key's own secret, and for nobody else."""
    headers = SECRETS.headers("key_a", "msg_1", BODY, time.time())
    assert Webhook(SECRETS.of_caller("key_a")).verify(BODY, headers) == {"type": "image.job.completed"}
    for secret, body in ((SECRETS.of_caller("key_b"), BODY), (SECRETS.of_caller("key_a"), BODY + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers)


def test_an_old_message_is_not_taken() -> None:
    """The time of the try is signed: what was recorded long ago is worth nothing."""
    headers = SECRETS.headers("key_a", "msg_1", BODY, time.time() - 3600)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS.of_caller("key_a")).verify(BODY, headers)


def test_addresses() -> None:
    """An address holds for its provider and its attempt alone."""
    provider, attempt, mac = SECRETS.path("fal", "dr-1").removeprefix("/hooks/").split("/")
    assert (provider, attempt, len(mac)) == ("fal", "dr-1", 32)
    assert SECRETS.is_path("fal", "dr-1", mac)
    others = [("fal", "dr-2", mac), ("replicate", "dr-1", mac), ("fal", "dr-1", mac[:-1]), ("fal", "dr-1", "")]
    assert not any(SECRETS.is_path(*other) for other in (*others, ("fal", "dr-1", "\N{SNOWMAN}")))
    assert not SigningKeys(b"another").is_path("fal", "dr-1", mac)


def test_it_is_not_shown() -> None:
    """No log that shows the object shows the secret."""
    assert "\\x" not in repr(SECRETS)
    assert repr(SECRETS) == "SigningKeys()"


async def test_drawn_once(url: str | None, tmp_path: Path) -> None:
    """Processes that start at one time, and all later ones, have one secret."""
    async with opened(url, tmp_path) as one, opened(url, tmp_path) as two, opened(url, tmp_path) as three:
        drawn = await asyncio.gather(*(open_secrets(database, None) for database in (one, two, three) * 8))
        assert len({secrets.master for secrets in drawn}) == 1
        assert len(drawn[0].master) == 32
    async with opened(url, tmp_path) as later:
        assert await open_secrets(later, None) == drawn[0]


async def test_the_operators_own(tmp_path: Path) -> None:
    """One from the config is used as it is."""
    async with opened(None, tmp_path) as database:
        configured = "whsec_" + base64.b64encode(b"x" * 32).decode()
        assert (await open_secrets(database, configured)).master == b"x" * 32


def test_the_signature_of_a_file_is_of_its_name_and_its_time() -> None:
    """Nothing of an address can be changed, and another server signs otherwise."""
    secrets, other = SigningKeys(bytes(32)), SigningKeys(bytes(31) + b"x")
    signature = secrets.file("a.png", 100)

    assert secrets.is_file("a.png", 100, signature)
    assert not secrets.is_file("b.png", 100, signature)
    assert not secrets.is_file("a.png", 101, signature)
    assert not secrets.is_file("a.png", 100, "\u00e9")
    assert not other.is_file("a.png", 100, signature)
    assert secrets.file("0:a.png", 10) != secrets.file("a.png", 100)
