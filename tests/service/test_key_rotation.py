"""Several keys of one provider, end to end: the next one serves, once, and the caller hears of nothing."""

from __future__ import annotations

import httpx
import pytest

from tests.service.test_accounts import BROKE_ANSWERS
from tests.simulators.clouds import ALL, CLOUDS, KEYS
from tests.simulators.common import Fault
from tests.support.faults import says
from tests.support.world import World, world

OTHER = "another-key:fedcba9876543210"
REFUSALS = {
    "revoked": lambda name: says(401, {"detail": "invalid key", "error": "invalid key"}),
    "exhausted": lambda name: BROKE_ANSWERS[name],
    "throttled": lambda name: says(429, {"detail": "slow down", "error": "slow down"}, retry_after="30"),
}


def with_two_keys(name: str) -> dict[str, str]:
    """The environment in which the provider's first key is another than the one that it knows."""
    variable, key = CLOUDS[name].key_variable, KEYS[name]
    return {variable: f"{OTHER},{key}"}


def asked_with(there: World, name: str, key: str) -> int:
    """How many submits a provider refused for a key."""
    return there.sims[name].faults.refused[key]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_next_key_serves(name: str, refusal: str) -> None:
    """One attempt, one bill, the result from the account that has the job; and the refused key is left alone."""
    with world(name, environ=with_two_keys(name)) as there:
        there.sims[name].faults.keys[OTHER] = REFUSALS[refusal](name)
        answer = there.edit(routing=f'{{"only": ["{name}"]}}')
        refused = asked_with(there, name, OTHER)
        again = there.edit(prompt="another cup", routing=f'{{"only": ["{name}"]}}')

        assert (answer.status, answer.story) == (200, [f"{name} ok"])
        assert again.story == [f"{name} ok"]
        assert refused == 1
        assert asked_with(there, name, OTHER) == refused
        assert (there.taken(name), there.billed(name)) == (2, 2)
        ledger = httpx.get(f"{there.url}/v1/requests").json()["data"]
        assert [len(entry["attempts"]) for entry in ledger] == [1, 1]
        assert there.strayed() == []


@pytest.mark.parametrize("name", ALL)
def test_no_key_serves(name: str) -> None:
    """Both are refused: the provider is, once, and no caller hears why."""
    with world(name, environ=with_two_keys(name)) as there:
        there.sims[name].faults.keys[OTHER] = REFUSALS["revoked"](name)
        there.sims[name].faults.keys[KEYS[name]] = REFUSALS["revoked"](name)
        answer = there.edit(retries=0, routing=f'{{"only": ["{name}"]}}')

        assert (answer.status, answer.code) == (503, "upstream_unavailable")
        assert answer.story == [f"{name} unusable"]
        assert "invalid key" not in answer.text
        assert there.taken(name) == 0


def test_another_fault_than_the_keys() -> None:
    """An answer that says nothing of the key is no reason to buy with another one."""
    with world("fal", environ=with_two_keys("fal")) as there:
        there.sims["fal"].faults.keys[OTHER] = Fault(status=422, body={"detail": "no such scale"})
        answer = there.edit(retries=0, routing='{"only": ["fal"]}')

        assert (answer.status, answer.story) == (400, ["fal rejected"])
        assert there.taken("fal") == 0
