"""`/v1/requests` over real HTTP: what happened and what it cost, and that each key sees its own alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.simulators.common import Fault
from tests.support.hooked import ask, caller, ended
from tests.support.keys import api_key
from tests.support.world import World, world


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """A world with two providers, in which three requests were served: by fal, by Replicate after fal, and by none."""
    with world("fal", "replicate") as found:
        with caller(found.url) as client:
            assert ask(client, headers={"idempotency-key": "first"}).status_code == 200
            found.sims["fal"].faults.script("job", Fault(kind="job", word="FAILED"))
            assert ask(client, prompt="a saucer").status_code == 200
            found.sims["fal"].faults.script("job", Fault(kind="job", word="FAILED"))
            assert ask(client, routing=json.dumps({"only": ["fal"]})).status_code == 502
        yield found


def listed(there: World, **query: object) -> Any:
    """A page of the list."""
    answer = httpx.get(f"{there.url}/v1/requests", params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_list(there: World) -> None:
    """The newest comes first, with who served it, what it cost, and why it failed; pages join without a gap."""
    newest, second = listed(there, limit=2)["data"]
    [oldest] = listed(there, limit=1, after=second["id"])["data"]

    assert [entry["status"] for entry in (newest, second, oldest)] == ["failed", "completed", "completed"]
    assert [entry["provider"] for entry in (newest, second, oldest)] == [None, "replicate", "fal"]
    assert [entry["images"] for entry in (newest, second, oldest)] == [0, 1, 1]
    assert newest["error"]["code"] == "all_providers_failed"
    assert second["error"] is oldest["error"] is None
    assert (oldest["idempotency_key"], oldest["key"], oldest["mode"]) == ("first", None, "plain")
    assert oldest["duration_ms"] > 0
    assert oldest["created_at"] < second["created_at"] < newest["created_at"] < time.time()
    assert all("parameters" not in entry for entry in (newest, second, oldest))


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"status": "failed"}, 1),
        ({"status": "completed"}, 2),
        ({"provider": "replicate"}, 1),
        ({"provider": "fal"}, 3),
        ({"provider": "fal", "status": "completed"}, 2),
        ({"model": "clarity-upscaler"}, 3),
        ({"model": "flux"}, 0),
        ({"key": "key_none"}, 0),
        ({"created_after": "2026-01-01T00:00:00Z"}, 3),
        ({"created_before": "2026-01-01"}, 0),
    ],
)
def test_filters(there: World, query: dict[str, str], count: int) -> None:
    """Each filter leaves what it names, in the list and in its sums."""
    assert len(listed(there, **query)["data"]) == count
    assert listed(there, summary="true", **query)["count"] == count


def test_times_cut_between_requests(there: World) -> None:
    """`created_after` has the request of that very moment, `created_before` has not."""
    newest, second, oldest = listed(there)["data"]
    at = f"{second['created_at']:.6f}"
    after = [entry["id"] for entry in listed(there, created_after=at)["data"]]
    before = [entry["id"] for entry in listed(there, created_before=at)["data"]]

    assert newest["id"] in after
    assert oldest["id"] in before
    assert set(after) | set(before) == {newest["id"], second["id"], oldest["id"]}
    assert not set(after) & set(before)


@pytest.mark.parametrize(
    "query", ["status=done", "created_after=soon", "created_before=", "limit=x", "after=img_0", "model=%00"]
)
def test_wrong_filters(there: World, query: str) -> None:
    """A word that means nothing is a 400 that names it."""
    answer = httpx.get(f"{there.url}/v1/requests?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_the_summary(there: World) -> None:
    """Sums are those of the list: requests, money, and both of the attempts at each provider."""
    entries = listed(there)["data"]
    sums = listed(there, summary="true")
    attempts = [attempt for entry in entries for attempt in entry["attempts"]]

    assert (sums["object"], sums["count"], sums["cost_currency"]) == ("request.summary", 3, "USD")
    assert sums["cost"] == pytest.approx(sum(entry["cost"] for entry in entries))
    assert sums["cost"] > 0
    assert {name: told["attempts"] for name, told in sums["by_provider"].items()} == {"fal": 3, "replicate": 1}
    for name, told in sums["by_provider"].items():
        spent = sum(attempt["cost"] for attempt in attempts if attempt["provider"] == name)
        assert told["cost"] == pytest.approx(spent)


def test_one_with_its_attempts(there: World) -> None:
    """One request tells what was asked, and of each attempt where it was, what was expected and what was billed."""
    entry = listed(there)["data"][1]
    found = httpx.get(f"{there.url}/v1/requests/{entry['id']}").json()
    first, second = found["attempts"]

    assert found["parameters"]["params"]["prompt"] == "a saucer"
    assert found["parameters"]["images"][0]["width"] == 24
    assert [first["provider"], first["outcome"], second["provider"], second["outcome"]] == [
        "fal", "failed", "replicate", "ok",
    ]  # fmt: skip
    assert second["upstream_id"] in there.sims["replicate"].books.taken
    assert second["cost"] == pytest.approx(there.sims["replicate"].books.bills[second["upstream_id"]], abs=2e-6)
    assert second["actual"] is True
    assert second["estimate"] > 0
    assert first["estimate"] == found["cost_estimate"] > 0
    assert found["cost"] == pytest.approx(first["cost"] + second["cost"])
    assert first["sent_at"] <= first["submitted_at"] <= first["ended_at"] <= second["sent_at"] <= second["ended_at"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "img_000000000000000000000000"), ("GET", "%20"), ("DELETE", "img_000000000000000000000000/payload")],
)
def test_unknown_requests(there: World, method: str, path: str) -> None:
    """An id that nobody was given is a 404, to read and to forget."""
    answer = httpx.request(method, f"{there.url}/v1/requests/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "request_not_found")


def test_a_payload_is_forgotten() -> None:
    """The prompt and the picture go at the caller's word, the bill stays; a job that goes on is left alone."""
    with world("fal") as there, caller(there.url) as client:
        job = ask(client, background="true", prompt="a secret").json()["id"]
        address = f"{there.url}/v1/requests/{job}"
        early = client.delete(f"{address}/payload")
        url = ended(client, job)["result"]["data"][0]["url"]
        before = httpx.get(address)
        forgotten = client.delete(f"{address}/payload").json()
        after = httpx.get(address)

        assert (early.status_code, early.json()["error"]["code"]) == (400, "job_in_progress")
        assert forgotten == {"id": job, "object": "request", "purged": True, "files_deleted": 1}
        assert "a secret" in before.text
        assert "a secret" not in after.text
        assert after.json()["parameters"] is None
        assert after.json()["cost"] == before.json()["cost"] > 0
        assert httpx.get(url).status_code == 404
        assert client.get(f"/images/jobs/{job}").json()["error"]["code"] == "result_expired"
        assert client.delete(f"{address}/payload").json()["files_deleted"] == 0


def test_each_key_sees_its_own() -> None:
    """Another key's requests and jobs are not there: not to read, list, sum up, go on after, cancel or forget."""
    with (
        world("fal", environ={"DARKROOM_API_KEYS": f"{api_key('one')},{api_key('two')}"}) as there,
        caller(there.url, key=api_key("one")) as one,
        caller(there.url, key=api_key("two")) as two,
    ):
        mine, theirs = (ended(client, ask(client, background="true").json()["id"])["id"] for client in (one, two))
        reached = f"{there.url}/v1/requests"
        entry = one.get(f"{reached}/{mine}").json()
        other = two.get(f"{reached}/{theirs}").json()["key"]

        for path in (reached, "/images/jobs"):
            assert [found["id"] for found in one.get(path).json()["data"]] == [mine]
            assert one.get(path, params={"after": theirs}).status_code == 400
        assert one.get(reached, params={"summary": "true"}).json()["cost"] == entry["cost"]
        assert one.get(reached, params={"key": other}).json()["data"] == []
        for refused in (
            one.get(f"{reached}/{theirs}"),
            one.delete(f"{reached}/{theirs}/payload"),
            one.get(f"/images/jobs/{theirs}"),
            one.get(f"/images/jobs/{theirs}", headers={"accept": "text/event-stream"}),
            one.post(f"/images/jobs/{theirs}/cancel"),
        ):
            assert refused.status_code == 404
        assert two.get(f"{reached}/{theirs}").json()["parameters"] is not None
        assert entry["key"] != other
        assert api_key("one") not in (entry["key"], other)
        with caller(there.url) as nobody:
            assert nobody.get(reached).status_code == nobody.get(f"/images/jobs/{mine}").status_code == 401
