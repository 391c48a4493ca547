"""The budget race: two hundred calls at once on a budget for ten buy ten, in one process and in two."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.simulators.apiframe import Apiframe
from tests.support.hooked import around, ask, caller
from tests.support.keys import api_key
from tests.support.postgres import postgres
from tests.support.running import serving

CALLS = 200
ADMIN = api_key("the-admins-own")
PRICE = 0.03


def outcome(answer: httpx.Response) -> str:
    """What became of a call."""
    return "ok" if answer.status_code == 200 else str(answer.json()["error"]["code"])


def race(roots: Sequence[str], key: str) -> Counter[str]:
    """Two hundred calls at once, over these gateways in turn; how often each thing happened."""
    start = threading.Barrier(CALLS)

    def call(number: int) -> str:
        with caller(roots[number % len(roots)], key=key) as client:
            start.wait(60)
            return outcome(ask(client, routing=json.dumps({"only": ["apiframe"]})))

    with ThreadPoolExecutor(CALLS) as pool:
        return Counter(pool.map(call, range(CALLS)))


@pytest.mark.parametrize("place", ["one", "two", "two on postgres"])
@pytest.mark.timeout(180)
def test_the_budget_race(place: str, tmp_path: Path) -> None:
    """Exactly ten submits, ten pictures, and a hundred and ninety that were told why not."""
    with ExitStack() as stack:
        sim = stack.enter_context(Apiframe(run_s=0.05).running())
        environ = around({"apiframe": sim}, DARKROOM_ADMIN_KEY=ADMIN, DARKROOM_GATEWAY__DEADLINE_S="120")
        if place == "two on postgres":
            environ["DARKROOM_GATEWAY__LEDGER_URL"] = stack.enter_context(postgres()).url
        arguments = ["--workers", "2"] if place == "two" else []
        served = [stack.enter_context(serving(tmp_path, arguments, environ))]
        if place == "two on postgres":
            (tmp_path / "second").mkdir()
            served.append(stack.enter_context(serving(tmp_path / "second", [], environ)))
        with caller(served[0].root, key=ADMIN) as admin:
            made = admin.post("/keys", json={"name": "racer", "budget": f"{10 * PRICE:.2f}/total"}).json()
            counted = race([one.root for one in served], made["key"])
            budget = admin.get(f"/keys/{made['id']}").json()["budget"]

    assert counted == {"ok": 10, "insufficient_quota": CALLS - 10}
    assert len(sim.books.taken) == 10
    assert budget["spent"] == pytest.approx(10 * PRICE)
    assert budget["left"] == pytest.approx(0)
