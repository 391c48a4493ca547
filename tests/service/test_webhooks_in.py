"""Providers tell of their jobs: what that gains, and that nothing depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from gateway.webhooks.signing import SigningKeys
from tests.service.test_failover import LARGE, of
from tests.simulators.common import Fault, size
from tests.simulators.fal import FalAi
from tests.simulators.replicate import Simulator
from tests.support.clock import Faster
from tests.support.faults import says
from tests.support.hooked import PUBLIC, around, ask, caller, ended
from tests.support.keys import api_key
from tests.support.postgres import postgres
from tests.support.running import serving, until
from tests.support.world import World, world

pytestmark = pytest.mark.early

SECRET = "whsec_" + "A" * 43 + "="
HOOKED = {**PUBLIC, "DARKROOM_GATEWAY__WEBHOOK_SECRET": SECRET}
SECRETS = SigningKeys(bytes(32))
# So that a job may be looked for to the end, and its webhook be waited for.
PATIENT = {"DARKROOM_GATEWAY__DEADLINE_S": "60", "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "40"}
LOST = {"hang": Fault(kind="hang", after=True), "cut": Fault(kind="cut", after=True)}
RECEIVED = "darkroom_webhooks_received_total"


@contextmanager
def hooked(name: str, times: float = 1, **environ: str) -> Iterator[World]:
    """A world of one provider that can reach the gateway. Its time passes `times` as fast."""
    with world(name, environ={**HOOKED, **environ}, clock=Faster(times)) as there:
        yield there


class _Every(set[str]):
    """A set of all there is."""

    def __contains__(self, name: object) -> bool:
        return True


def blind(there: World) -> None:
    """Let no list of the provider's show which job is which."""
    if "replicate" in there.sims:
        of(there, Simulator).lag_s = 3600.0
    else:
        of(there, FalAi).history.withheld = _Every()


def silence(there: World) -> None:
    """Let the provider tell nothing."""
    if "replicate" in there.sims:
        of(there, Simulator).hooks.postman.off = True
    else:
        of(there, FalAi).hooks.way = "none"


def received(there: World) -> Callable[..., float]:
    """Count webhooks by their labels from now on: metrics are of the whole process."""
    outcomes = [(name, outcome) for name in ("replicate", "fal") for outcome in ("heard", "forged", "unknown")]
    before = {pair: there.metric(RECEIVED, provider=pair[0], outcome=pair[1]) for pair in outcomes}

    def count(name: str, outcome: str) -> float:
        return there.metric(RECEIVED, provider=name, outcome=outcome) - before[name, outcome]

    return count


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("name", ["replicate", "fal"])
def test_a_lost_answer_is_found_again(name: str, fault: str) -> None:
    """A submit whose answer was lost, and that no list shows, is known by its webhook: the caller has its picture."""
    with hooked(name, 4, **PATIENT) as there:
        blind(there)
        there.sims[name].faults.script("submit", LOST[fault])
        answer = there.edit()
        assert (answer.status, answer.story) == (200, [f"{name} ok"])
        assert [size(picture) for picture in answer.images] == [(48, 32)]
        assert (there.taken(name), there.billed(name)) == (1, 1)


@pytest.mark.parametrize("name", ["replicate", "fal"])
def test_without_a_webhook_it_is_not(name: str) -> None:
    """The test above, turned round: where nobody tells, the answer stays lost, and nothing is bought again."""
    with hooked(name, 4, **PATIENT) as there:
        blind(there)
        silence(there)
        there.sims[name].faults.script("submit", LOST["cut"])
        answer = there.edit()
        assert (answer.status, answer.code) == (504, "upstream_outcome_unknown")
        assert there.taken(name) == 1


def test_one_that_comes_too_late_is_a_picture_all_the_same() -> None:
    """After the caller was told that the outcome is unknown, a webhook has the picture fetched: a repeat is given it.

    That the same webhook comes again, and once more when all is over, changes nothing.
    """
    with hooked("fal", 4, **PATIENT) as there, caller(there.url) as client:
        fal = of(there, FalAi)
        blind(there)
        silence(there)
        fal.faults.script("submit", LOST["cut"])
        key = {"idempotency-key": "cup-1"}
        first = ask(client, headers=key)
        assert first.json()["error"]["code"] == "upstream_outcome_unknown"
        [job] = fal.books.taken
        address, headers, body = _told(fal, job)
        for _ in range(2):
            assert httpx.post(address, content=body, headers=headers).json() == {"ok": True}
        found = ended(client, first.headers["x-darkroom-job"])
        assert (found["status"], found["error"]) == ("completed", None)
        again = ask(client, headers=key)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert httpx.post(address, content=body, headers=headers).json() == {"ok": True}
        assert ended(client, first.headers["x-darkroom-job"]) == found
        assert (fal.books.taken, fal.books.billed) == ([job], 1)


def _told(fal: FalAi, job: str) -> tuple[str, dict[str, str], bytes]:
    """What fal would tell of a job, and where."""
    body = fal.hooks.body(fal._tasks[job])
    return fal.hooks.addresses[job], fal.hooks.headers(job, body), body


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
@pytest.mark.parametrize("name", ["replicate", "fal"])
def test_nobody_waits_for_the_next_look(name: str, told: bool) -> None:
    """A provider that has no time for looks is looked at when it calls; without a call not before the deadline.

    There the job is cancelled, which comes too late, and its picture is had in any case: a lost webhook costs time.
    """
    with hooked(name) as there:
        sim = there.sims[name]
        if isinstance(sim, Simulator | FalAi):
            sim.run_s = 3.0
        if not told:
            silence(there)
        sim.faults.script("poll", says(429, {"detail": "slow down"}, retry_after="3600"))
        answer = there.edit()
        assert (answer.status, answer.story) == (200, [f"{name} ok"])
        assert sum("cancel" in path for _, path in sim.books.requests) == (0 if told else 1)
        assert (there.taken(name), there.billed(name)) == (1, 1)


def test_progress_is_passed_on_without_a_look(photo: bytes) -> None:
    """What tells that a job goes on is heard, and nobody asks for its end because of it."""
    with hooked("replicate", 1, **LARGE) as there:
        sim = of(there, Simulator)
        sim.run_s = 4.5  # a busy machine writes fewer lines in a second
        sim.faults.script("poll", says(429, {"detail": "slow down"}, retry_after="3600"))
        assert there.edit(photo, size="1200x800").status == 200
        told = [event for event, _, status in sim.hooks.postman.tries if status == 200]
        assert told[0] == "start"
        assert told.count("logs") > 10
        assert sim.books.count("GET", "/v1/predictions/") <= 3


@pytest.mark.parametrize(
    "way", [{"forged": True}, {"copies": 3}, {"late_s": 0.5}, {"shuffled": True}, {"off": True}], ids=str
)
def test_replicates_webhooks_change_nothing(way: dict[str, bool | int | float]) -> None:
    """Forged, again and again, late, in disorder or never: each call has its picture, for one job each."""
    with hooked("replicate") as there:
        sim, count = of(there, Simulator), received(there)
        for name, value in way.items():
            setattr(sim.hooks.postman, name, value)
        for number in range(1, 3):
            answer = there.edit()
            assert (answer.status, answer.story) == (200, ["replicate ok"])
            assert (there.taken("replicate"), there.billed("replicate")) == (number, number)
        if "off" not in way:
            expected = "forged" if "forged" in way else "heard"
            until(lambda: count("replicate", expected) >= 2, "they have come")
            assert {status for _, _, status in sim.hooks.postman.tries} == {401 if "forged" in way else 200}
        assert len(sim.bodies) == 2


@pytest.mark.parametrize("way", ["twice", "late", "forged", "none"])
def test_fals_webhooks_change_nothing(way: str) -> None:
    """The same, for fal."""
    with hooked("fal") as there:
        fal, count = of(there, FalAi), received(there)
        fal.hooks.way = way  # type: ignore[assignment]  # the words above
        for number in range(1, 3):
            answer = there.edit()
            assert (answer.status, answer.story) == (200, ["fal ok"])
            assert (there.taken("fal"), there.billed("fal")) == (number, number)
        if way != "none":
            expected = "forged" if way == "forged" else "heard"
            until(lambda: count("fal", expected) >= 2, "they have come")
            assert {delivery.status for delivery in fal.hooks.delivered} == {401 if way == "forged" else 200}


def test_strangers() -> None:
    """Who does not know the address, or cannot sign, is told nothing, and changes nothing."""
    with hooked("replicate") as there:
        sim, count = of(there, Simulator), received(there)
        path = SECRETS.path("replicate", "dr-1")
        expected = {
            "/hooks/replicate/dr-1/" + "0" * 32: 404,
            SECRETS.path("nobody", "dr-1"): 404,
            SECRETS.path("segmind", "dr-1"): 401,
            path: 401,
        }
        for address, status in expected.items():
            answer = httpx.post(there.url + address, content=b"{}")
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, None)
        assert httpx.get(there.url + path).status_code == 405
        large = httpx.post(there.url + path, content=bytes(2 << 20))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
        # Signed, and of a job that nobody knows any more.
        body = b'{"id": "%s", "status": "succeeded"}' % (b"a" * 26)
        signed = sim.hooks._headers("msg_1", body, False)
        assert httpx.post(there.url + path, content=body, headers=signed).json() == {"ok": True}
        for outcome, number in (("heard", 0), ("unknown", 1), ("forged", 2)):
            assert count("replicate", outcome) == number
        assert there.metric(RECEIVED, provider="nobody") == 0
        assert sim.books.taken == []


def test_providers_need_no_key_of_ours() -> None:
    """Where callers need a key, a webhook comes without one, and to the name under which the server is public."""
    with hooked("replicate", DARKROOM_API_KEYS=api_key("one")) as there:
        path, host = SECRETS.path("replicate", "dr-1"), {"host": "images.example.org"}
        body = b'{"id": "%s", "status": "succeeded"}' % (b"a" * 26)
        signed = of(there, Simulator).hooks._headers("msg_1", body, False)
        assert httpx.post(there.url + path, content=body, headers={**signed, **host}).json() == {"ok": True}
        assert httpx.get(f"{there.url}/v1/webhooks/secret").status_code == 401


def test_without_a_public_address_nobody_is_asked_to_call() -> None:
    """No provider is given an address that it could not reach."""
    with world("replicate", "fal") as there:
        for name in ("replicate", "fal"):
            assert there.edit(routing=f'{{"only": ["{name}"]}}').status == 200
        assert "webhook" not in of(there, Simulator).bodies[0]
        assert of(there, FalAi).hooks.delivered == []


@pytest.mark.system
def test_another_process_hears_of_it() -> None:
    """A webhook may come to another process than the one that works on the job: a lost answer is found all the same."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres())
        sim = stack.enter_context(Simulator(boot_s=0.01, run_s=0.05).running())
        sim.lag_s = 3600.0
        environ = around({"replicate": sim}, DARKROOM_GATEWAY__LEDGER_URL=server.url, **PATIENT)
        folders = [Path(stack.enter_context(TemporaryDirectory())) for _ in range(2)]
        other = stack.enter_context(serving(folders[0], (), environ))
        environ["DARKROOM_GATEWAY__PUBLIC_URL"] = other.root
        served = stack.enter_context(serving(folders[1], (), environ))
        sim.faults.script("submit", LOST["cut"])
        with caller(served.root) as client:
            answer = ask(client, response_format="b64_json")
        assert answer.status_code == 200, answer.text
        assert (len(sim.books.taken), sim.books.billed) == (1, 1)
        assert other.metric(RECEIVED, outcome="heard") > 0
        assert served.metric(RECEIVED) == 0
