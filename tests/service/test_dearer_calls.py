"""A caller cannot make a call dearer than what it is estimated and held at, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.hooked import ask, caller
from tests.support.world import World, world

ADMIN = "the-admins-own-key-of-enough-letters"
REPLICATE = json.dumps({"only": ["replicate"]})


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    with world("replicate", "fal", environ={"DARKROOM_ADMIN_KEY": ADMIN}) as running:
        yield running


@pytest.fixture(scope="module")
def admin(there: World) -> Iterator[httpx.Client]:
    with caller(there.url, key=ADMIN) as client:
        yield client


def bearing(admin: httpx.Client, budget: str) -> str:
    """A new key with a budget."""
    answer = admin.post("/keys", json={"name": "made", "budget": budget})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def planned(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    """The candidates of a dry run for a picture of 1200 x 800."""
    given = {"model": "clarity-upscaler", "width": "1200", "height": "800", **fields}
    answer = client.post("/images/edits?dry_run=true", files={name: (None, str(text)) for name, text in given.items()})
    found: list[dict[str, Any]] = answer.json()["candidates"]
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"num_outputs": "4"},
        {"numImages": "4"},
        {"batch_size": "8"},
        {"steps": "100"},
        {"deep[num_samples]": "4"},
        {"provider_options[replicate][num_outputs]": "4"},
        {"provider_options": '{"fal": {"input": [{"num_images": 4}]}}'},
    ],
    ids=str,
)
def test_an_undeclared_multiplier_is_refused(there: World, admin: httpx.Client, fields: dict[str, str]) -> None:
    """Before anything is bought, and with what to send instead."""
    taken = [there.taken(name) for name in there.sims]
    answer = ask(admin, headers=None, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "parameter_refused"), answer.text
    assert "Use 'n' instead" in error["message"] or "Use 'num_inference_steps' instead" in error["message"]
    assert [there.taken(name) for name in there.sims] == taken


def test_steps_have_their_price(admin: httpx.Client) -> None:
    """And the order of the routes follows it."""
    few, usual, many = (planned(admin, num_inference_steps=steps) for steps in (4, 18, 50))
    by_route = [{found["route"]: found for found in candidates} for candidates in (few, usual, many)]
    costs = [found["replicate"]["cost"] for found in by_route]
    assert costs[0] < costs[1] < costs[2]
    assert costs[2] > 2 * costs[1]
    assert len({found["fal"]["cost"] for found in by_route}) == 1
    for candidates in (few, usual, many):
        assert [found["cost"] for found in candidates] == sorted(found["cost"] for found in candidates)


def test_a_dry_run_tells_what_it_may_come_to() -> None:
    """More than the estimate where run time is billed, the estimate where it is not.

    A gateway that has bought nothing estimates the run time by its table, which the bound goes by.
    """
    with world("replicate", "fal") as fresh, caller(fresh.url) as client:
        found = {candidate["route"]: candidate for candidate in planned(client)}
    assert found["replicate"]["cost_at_most"] == pytest.approx(4 * found["replicate"]["cost"], rel=0.01)
    assert found["fal"]["cost_at_most"] == found["fal"]["cost"]


def test_a_budget_holds_what_it_may_come_to(there: World, admin: httpx.Client) -> None:
    """A call whose estimate fits and whose bill may not is not begun; afterwards what was billed counts."""
    taken = there.taken("replicate")
    expected, most = 0.002925, 0.0117
    with caller(there.url, key=bearing(admin, f"{(expected + most) / 2:.4f}/month")) as client:
        refused = ask(client, routing=REPLICATE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota"), refused.text
        assert "this request needs $0.0117" in refused.json()["error"]["message"]
    assert there.taken("replicate") == taken
    with caller(there.url, key=bearing(admin, "0.02/month")) as client:
        answer = ask(client, routing=REPLICATE)
        assert answer.status_code == 200, answer.text
        billed = answer.json()["metadata"]["cost"]
    keys = admin.get("/keys").json()["data"]
    assert min(abs(key["budget"]["spent"] - billed) for key in keys if key.get("budget")) < 1e-6
