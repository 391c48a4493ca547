"""`/readyz` tells probes whether, and the admin alone why: strangers learn no addresses and no missing keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from gateway.auth.keys import ApiKey, draw
from gateway.database.writer import Database, LedgerDown
from tests.support.hooked import ask, caller
from tests.support.world import World, world

PLAIN, ADMIN = "the-key-of-one-caller-out-of-many", "the-key-of-the-admin-and-of-nobody-else"
# Nobody listens there.
WORKER = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """A gateway with keys, with one provider and with a worker that is not there."""
    environ = {
        "DARKROOM_API_KEYS": PLAIN,
        "DARKROOM_ADMIN_KEY": ADMIN,
        "DARKROOM_PROVIDERS__LOCAL__WORKERS": f'["{WORKER}"]',
    }
    with world("replicate", environ=environ) as found:
        yield found


def readyz(url: str, **headers: str) -> httpx.Response:
    """Ask."""
    return httpx.get(f"{url}/readyz", headers=headers)


@pytest.mark.parametrize("key", [None, PLAIN, "no-key-of-ours"])
def test_probes_are_told_whether(there: World, key: str | None) -> None:
    """Without a key, with one that is not the admin's, and with a wrong one: the status, and nothing else."""
    answer = readyz(there.url, **({"authorization": f"Bearer {key}"} if key else {}))

    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "ledger": "up"})


def test_the_admin_is_told_why(there: World) -> None:
    """Each route of each model: which are ready, and what is missing for the others."""
    models = readyz(there.url, authorization=f"Bearer {ADMIN}").json()["models"]

    assert models["clarity-upscaler"]["replicate"]["state"] == "ready"
    assert "FAL_KEY" in models["clarity-upscaler"]["fal"]["detail"]
    assert "worker 1 is" in models["lanczos-bp"]["local"]["detail"]


def test_no_caller_is_told_where_the_workers_are(there: World) -> None:
    """Neither by the models nor by an error: what is down is told by its number."""
    with caller(there.url, key=PLAIN) as client:
        failed = ask(client, model="lanczos-bp")
        assert failed.status_code == 503
        models = client.get("/models").text
    assert "worker 1 is" in models
    assert "127.0.0.1:9" not in models + failed.text


def test_without_keys_this_machine_is_the_admin() -> None:
    """And whoever comes by another name, or through a proxy, is a probe."""
    with world("replicate") as open_to_all:
        assert "models" in readyz(open_to_all.url).json()
        for headers in (
            {"host": "pictures.example"},
            {"x-forwarded-for": "203.0.113.7"},
            {"origin": "https://a.example"},
        ):
            answer = readyz(open_to_all.url, **headers)
            assert (answer.status_code, answer.json()) == (200, {"status": "ready", "ledger": "up"})


@pytest.mark.parametrize("away", ["fails", "hangs"])
def test_a_probe_does_not_wait_for_the_ledger(monkeypatch: pytest.MonkeyPatch, away: str) -> None:
    """Whose it is cannot be told then: it is told whether, and a call that needs that gets its 503."""

    async def read(self: Database, operation: object) -> ApiKey:
        if away == "hangs":
            await asyncio.Event().wait()
        raise LedgerDown("away")

    with world("replicate") as started:
        monkeypatch.setattr(Database, "read", read)
        # The register of keys, which is in the ledger, has to say whose this is.
        key = {"authorization": f"Bearer {draw()[1]}"}
        assert set(readyz(started.url, **key).json()) == {"status", "ledger"}
        if away == "fails":
            assert httpx.get(f"{started.url}/v1/models", headers=key).status_code == 503
