"""Keys over HTTP: what each may, what it is told of its limits, and what it sees."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIStatusError, OpenAI, RateLimitError

from tests.simulators.clouds import ALL
from tests.simulators.common import tiny
from tests.support import warm
from tests.support.hooked import ask, caller, ended
from tests.support.keys import api_key
from tests.support.running import until
from tests.support.world import World, world

ADMIN, PLAIN = api_key("the-admins-own"), api_key("a-plain-one")
APIFRAME = json.dumps({"only": ["apiframe"]})
PRICE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A gateway that asks for keys, and its providers."""

    world: World
    admin: httpx.Client
    folder: Path

    def make(self, **given: Any) -> str:
        """Make a key as the admin does."""
        answer = self.admin.post("/keys", json={"name": "made", **given})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    def id_of(self, key: str) -> str:
        """A key's id."""
        return f"key_{key.split('_')[1]}"

    @contextmanager
    def bearing(self, key: str) -> Iterator[httpx.Client]:
        """A caller with a key."""
        with caller(self.world.url, key=key) as client:
            yield client

    def spent(self, key: str) -> float:
        """What a key has spent in its budget's period."""
        return float(self.admin.get(f"/keys/{self.id_of(key)}").json()["budget"]["spent"])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A gateway before all four providers."""
    folder = tmp_path_factory.mktemp("data")
    environ = {
        "DARKROOM_ADMIN_KEY": ADMIN,
        "DARKROOM_API_KEYS": PLAIN,
        "DARKROOM_DATA": str(folder),
        "DARKROOM_GATEWAY__KEY_CACHE_S": "0.2",
    }
    with world(*ALL, environ=environ) as running, caller(running.url, key=ADMIN) as admin:
        yield Guarded(world=running, admin=admin, folder=folder)


def code_of(answer: httpx.Response) -> str:
    """The code of an error, whose envelope is whole."""
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    return str(error["code"])


def test_a_key_is_needed(guarded: Guarded) -> None:
    """None, a wrong one and a revoked one are told the same."""
    key = guarded.make()
    assert guarded.admin.delete(f"/keys/{guarded.id_of(key)}").json()["revoked_at"] > 0
    told = []
    for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": f"Bearer {key}"}):
        answer = httpx.get(f"{guarded.world.url}/v1/models", headers=headers)
        assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")
        told.append(answer.json())
    assert told[0] == told[1] == told[2]


def test_what_only_the_admin_may(guarded: Guarded) -> None:
    """Another key neither makes keys, nor sees them, nor reads the metrics."""
    key = guarded.make()
    for who in (key, PLAIN):
        headers = {"authorization": f"Bearer {who}"}
        for method, path in (
            ("GET", "/v1/keys"),
            ("POST", "/openai/v1/keys"),
            ("GET", f"/v1/keys/{guarded.id_of(key)}"),
            ("GET", "/metrics"),
        ):
            answer = httpx.request(method, f"{guarded.world.url}{path}", headers=headers)
            assert (answer.status_code, code_of(answer)) == (403, "admin_key_required"), path
    assert httpx.get(f"{guarded.world.url}/metrics", headers={"authorization": f"Bearer {ADMIN}"}).status_code == 200


def test_a_key_made_for_an_admin(guarded: Guarded) -> None:
    """It may what the admin may."""
    with guarded.bearing(guarded.make(admin=True)) as client:
        assert client.get("/keys").status_code == 200


def test_the_register(guarded: Guarded) -> None:
    """Keys are listed with their limits and without themselves; the answer that has one is not to be stored."""
    answer = guarded.admin.post(
        "/keys",
        json={
            "name": "n8n", "rpm": 60, "concurrency": 4, "budget": "25/month", "models": ["dall-e-2"],
            "providers": ["fal"], "expires_at": time.time() + 1000,
        },
    )  # fmt: skip
    made = answer.json()
    listed = guarded.admin.get("/keys").json()["data"][0]
    key = made.pop("key")

    assert answer.headers["cache-control"] == "no-store"
    assert listed == made
    assert (made["models"], made["providers"], made["rpm"], made["concurrency"]) == (
        ["clarity-upscaler"],
        ["fal"],
        60,
        4,
    )
    assert made["budget"] | {"until": 0} == {
        "limit": 25.0, "every": "month", "spent": 0.0, "left": 25.0, "currency": "USD", "until": 0,
    }  # fmt: skip
    assert key not in guarded.admin.get("/keys").text
    assert guarded.admin.get("/keys/key_none").status_code == 404


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x", "rpm": 0}, "rpm"),
        ({"name": "x", "rpm": "60"}, "rpm"),
        ({"name": "x", "concurrency": -1}, "concurrency"),
        ({"name": "x", "budget": "25/year"}, "budget"),
        ({"name": "x", "models": ["none"]}, "models"),
        ({"name": "x", "models": []}, "models"),
        ({"name": "x", "providers": ["none"]}, "providers"),
        ({"name": "x", "expires_at": 1.0}, "expires_at"),
        ({"name": "x", "secret": "mine"}, "secret"),
    ],
)
def test_what_is_no_key(guarded: Guarded, given: dict[str, Any], param: str) -> None:
    """A wish that cannot be granted is told with its name, and no key is made."""
    before = len(guarded.admin.get("/keys").json()["data"])
    answer = guarded.admin.post("/keys", json=given)

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert len(guarded.admin.get("/keys").json()["data"]) == before
    assert guarded.admin.post("/keys", content=b"[" * 9999).status_code == 400


def test_requests_a_minute(guarded: Guarded) -> None:
    """OpenAI's headers count down; then the SDK is told when to come again, before any work was done."""
    key = guarded.make(rpm=2)
    with guarded.bearing(key) as client:
        left = [ask(client).headers["x-ratelimit-remaining-requests"] for _ in range(2)]
        assert left == ["1", "0"]
        taken = sum(guarded.world.taken(name) for name in ALL)
        answer = client.post("/images/edits", content=b"nobody reads this")
    assert (answer.status_code, code_of(answer)) == (429, "rate_limit_exceeded")
    assert answer.headers["x-ratelimit-limit-requests"] == "2"
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert sum(guarded.world.taken(name) for name in ALL) == taken
    with OpenAI(base_url=f"{guarded.world.url}/openai/v1", api_key=key, max_retries=0) as sdk:
        with pytest.raises(RateLimitError):
            sdk.images.edit(model="clarity-upscaler", image=("in.png", tiny()), prompt="a cup")
        # What buys nothing is not counted.
        assert sdk.models.list().data


def test_calls_at_once(guarded: Guarded) -> None:
    """A call too many is told so at once, and taken when another one has ended."""
    sim: Any = guarded.world.sims["replicate"]
    routing = json.dumps({"only": ["replicate"]})
    sim.run_s = 3.0
    with guarded.bearing(guarded.make(concurrency=1)) as client:
        job = ask(client, background="true", routing=routing).json()["id"]
        until(lambda: client.get(f"/images/jobs/{job}").json()["status"] == "in_progress", "it goes on")
        answer = ask(client, routing=routing)
        sim.run_s = 0.05
        assert (answer.status_code, code_of(answer)) == (429, "rate_limit_exceeded"), answer.text
        assert answer.headers["retry-after"] == "1"
        assert "x-should-retry" not in answer.headers
        assert ended(client, job)["status"] == "completed"
        assert ask(client, routing=routing).status_code == 200


def test_a_budget(guarded: Guarded) -> None:
    """What is over it is told with what is left and until when, and an SDK does not repeat it."""
    key = guarded.make(budget=f"{2 * PRICE}/month")
    with guarded.bearing(key) as client:
        assert [ask(client, routing=APIFRAME).status_code for _ in range(2)] == [200, 200]
    assert guarded.spent(key) == pytest.approx(2 * PRICE)
    taken = guarded.world.taken("apiframe")
    with (
        OpenAI(base_url=f"{guarded.world.url}/openai/v1", api_key=key, max_retries=2) as sdk,
        pytest.raises(RateLimitError) as caught,
    ):
        sdk.images.edit(
            model="clarity-upscaler", image=("in.png", tiny()), prompt="a cup", extra_body={"routing": APIFRAME}
        )
    answer = caught.value.response
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    assert "has $0.0000 left; this request needs $0.0300. It resets at 20" in answer.json()["error"]["message"]
    assert guarded.world.taken("apiframe") == taken
    assert guarded.world.metric("darkroom_refused_total", key=ADMIN, reason="budget") >= 1


def test_what_a_key_may_is_changed(guarded: Guarded) -> None:
    """A larger budget holds from the next call on, with what was spent; what is not named stays."""
    key = guarded.make(budget=f"{PRICE}/month", rpm=100)
    path = f"/keys/{guarded.id_of(key)}"
    with guarded.bearing(key) as client:
        assert ask(client, routing=APIFRAME).status_code == 200
        assert code_of(ask(client, routing=APIFRAME)) == "insufficient_quota"
        found = guarded.admin.patch(path, json={"budget": f"{2 * PRICE}/month"}).json()
        assert (found["budget"]["limit"], found["budget"]["spent"], found["rpm"]) == (2 * PRICE, PRICE, 100)
        assert ask(client, routing=APIFRAME).status_code == 200
        # Another period is another account: what was had in it is counted from the jobs.
        assert guarded.admin.patch(path, json={"budget": f"{3 * PRICE}/day", "rpm": None}).json()["rpm"] is None
        answer = ask(client, routing=APIFRAME)
        assert answer.status_code == 200
        assert "x-ratelimit-limit-requests" not in answer.headers
        assert guarded.spent(key) == pytest.approx(3 * PRICE)
        assert code_of(ask(client, routing=APIFRAME)) == "insufficient_quota"
        assert guarded.admin.patch(path, json={"budget": None}).json()["budget"] is None
        assert ask(client, routing=APIFRAME).status_code == 200
        assert guarded.admin.patch(path, json={"name": "other"}).status_code == 400
        assert guarded.admin.patch("/keys/key_none", json={}).status_code == 404


def test_a_budget_that_does_not_reach_for_all(guarded: Guarded) -> None:
    """Of four pictures that are one too many none is bought, in the background either."""
    with guarded.bearing(guarded.make(budget=f"{3 * PRICE}")) as client:
        taken = guarded.world.taken("apiframe")
        answer = ask(client, routing=APIFRAME, n="4")
        assert (answer.status_code, code_of(answer)) == (429, "insufficient_quota")
        assert "does not reset" in answer.json()["error"]["message"]
        headers = {"idempotency-key": "once"}
        job = ask(client, routing=APIFRAME, n="4", background="true", headers=headers).json()["id"]
        found = ended(client, job)
        assert found["status"] == "failed"
        assert found["error"]["code"] == "insufficient_quota"
        assert guarded.world.taken("apiframe") == taken
        # It cost nothing, so that the same key may be used again, once there is money.
        assert ask(client, routing=APIFRAME, n="3").status_code == 200
        assert client.get(f"/images/jobs/{job}").json()["error"]["code"] == "insufficient_quota"


def test_what_a_spent_budget_leaves(guarded: Guarded) -> None:
    """What is paid for is still handed out, and what costs nothing is still done."""
    with guarded.bearing(guarded.make(budget=f"{PRICE}/day")) as client:
        headers = {"idempotency-key": "mine"}
        first = ask(client, routing=APIFRAME, headers=headers)
        assert first.status_code == 200
        again = ask(client, routing=APIFRAME, headers=headers)
        assert again.status_code == 200
        assert again.headers["idempotent-replayed"] == "true"
        assert client.get(f"/images/jobs/{first.json()['id']}").status_code == 200
        assert code_of(ask(client, routing=APIFRAME)) == "insufficient_quota"


def test_models_and_providers(guarded: Guarded) -> None:
    """A key sees and uses its own models, at its own providers."""
    key = guarded.make(models=["real-esrgan", "clarity-upscaler"], providers=["fal"])
    with guarded.bearing(key) as client:
        names = {model["id"] for model in client.get("/models").json()["data"]}
        assert {"real-esrgan", "dall-e-2"} <= names
        assert "lanczos-bp" not in names
        assert code_of(client.get("/models/aura-sr")) == "model_not_allowed"
        assert ask(client).json()["metadata"]["provider"] == "fal"
        answer = ask(client, model="aura-sr")
        assert (answer.status_code, code_of(answer)) == (403, "model_not_allowed")
        answer = ask(client, routing=APIFRAME)
        assert (answer.status_code, code_of(answer)) == (403, "provider_not_allowed")


def test_what_a_key_sees(guarded: Guarded) -> None:
    """Its own jobs and requests; another's are not there for it, and all are for the admin."""
    with guarded.bearing(guarded.make()) as one, guarded.bearing(guarded.make()) as two:
        job = ask(one).json()["id"]
        requests = f"{guarded.world.url}/v1/requests"
        for path in (f"images/jobs/{job}", f"{requests}/{job}"):
            assert one.get(path).status_code == 200
            assert two.get(path).status_code == 404
            assert guarded.admin.get(path).status_code == 200
        assert two.post(f"/images/jobs/{job}/cancel").status_code == 404
        assert two.delete(f"{requests}/{job}/payload").status_code == 404
        assert two.get("/images/jobs").json()["data"] == []
        assert two.get(requests).json()["data"] == []
        assert [entry["id"] for entry in one.get(requests).json()["data"]] == [job]
        assert job in [entry["id"] for entry in guarded.admin.get(requests).json()["data"]]
        assert one.get("/webhooks/secret").json() != two.get("/webhooks/secret").json()


@pytest.mark.system
def test_a_key_that_the_command_made(guarded: Guarded) -> None:
    """The running server knows it at once, and refuses it soon after it was revoked."""
    environ = {**os.environ, "DARKROOM_DATA": str(guarded.folder)}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return warm.command(["keys", *arguments], environ=environ)

    made = command("create", "--name", "from the shell", "--rpm", "5", "--budget", "1/day")
    key = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    assert key.count("\n") == 0
    with guarded.bearing(key) as client:
        assert ask(client).status_code == 200
        shown = command("show", guarded.id_of(key)).stdout
        assert "from the shell" in shown
        assert "$1.00/day" in shown
        assert command("change", guarded.id_of(key), "--rpm", "none", "--concurrency", "3").returncode == 0
        found = guarded.admin.get(f"/keys/{guarded.id_of(key)}").json()
        assert (found["rpm"], found["concurrency"], found["budget"]["limit"]) == (None, 3, 1.0)
        assert command("revoke", guarded.id_of(key)).returncode == 0
        until(lambda: ask(client).status_code == 401, "it is refused", 5)
    assert key not in command("list").stdout
    assert "revoked" in command("list").stdout
    assert command("show", "key_none").returncode == 1
    assert command("create", "--name", "x", "--budget", "lots").returncode == 2
    with pytest.raises(APIStatusError), OpenAI(base_url=f"{guarded.world.url}/v1", api_key=key, max_retries=0) as sdk:
        sdk.models.list()
