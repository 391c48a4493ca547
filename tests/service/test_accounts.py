"""Our own account at a provider: a key or a credit that ran out is our trouble, and no caller hears of it."""

from __future__ import annotations

import pytest

from tests.simulators.clouds import ALL
from tests.support.faults import says
from tests.support.world import world

BROKE = "Insufficient credits. Top up at the billing page."
BROKE_ANSWERS = {
    "fal": says(403, {"detail": "User is locked. Reason: Exhausted balance. Top up at the billing page."}),
    "replicate": says(402, {"title": "Insufficient credit", "detail": BROKE}),
    "segmind": says(406, {"error": BROKE}),
    "apiframe": says(402, {"error": BROKE, "creditsRequired": 3, "creditsAvailable": 0}),
}


@pytest.mark.parametrize("name", ALL)
def test_an_empty_account_is_left_alone(name: str) -> None:
    """The next route serves, and the next call does not ask the provider without credit at all."""
    rescue = "replicate" if name == "fal" else "fal"
    with world(name, rescue) as there:
        sim = there.sims[name]
        sim.faults.always("submit", BROKE_ANSWERS[name])
        order = f'{{"order": ["{name}"]}}'
        assert there.edit(routing=order).story == [f"{name} unusable", f"{rescue} ok"]
        asked = len(sim.books.requests)
        assert there.edit(routing=order).story == [f"{rescue} ok"]
        assert len(sim.books.requests) == asked
        excluded = there.dry_run()["excluded"]
        assert "cannot be used with our account" in next(e["reason"] for e in excluded if e["provider"] == name)


@pytest.mark.parametrize("name", ["fal", "replicate", "segmind", "apiframe"])
def test_our_empty_account_is_nobody_elses_business(name: str) -> None:
    """What a provider says of our credit reaches no caller: not in the answer, not in the list of attempts."""
    with world(name, "replicate" if name == "fal" else "fal") as there:
        there.sims[name].faults.always("submit", BROKE_ANSWERS[name])
        answer = there.edit(routing=f'{{"order": ["{name}"]}}')
        assert answer.status == 200
        assert not [word for word in ("Top up", "Insufficient", "balance", "billing") if word in answer.text]


def test_an_empty_account_with_nobody_to_help_is_our_trouble() -> None:
    """503 without a word of credit: a caller cannot pay for us."""
    with world("fal") as there:
        there.sims["fal"].faults.always("submit", BROKE_ANSWERS["fal"])
        answer = there.edit(retries=0)
        assert (answer.status, answer.code) == (503, "upstream_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert not [word for word in ("Top up", "Exhausted", "billing") if word in answer.text]
