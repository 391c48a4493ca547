"""Two gateways on one ledger: each knows the jobs of the other one, waits for them, follows and cancels them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.settings.loader import SHIPPED
from tests.simulators.apiframe import Apiframe
from tests.simulators.common import Fault, size
from tests.simulators.replicate import Simulator
from tests.support import warm
from tests.support.hooked import around, ask, caller, ended
from tests.support.postgres import postgres
from tests.support.running import clean_environ, until
from tests.support.world import gateway

pytestmark = pytest.mark.early


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Clients of two gateways, the providers behind both, and the environment that they have in common."""

    here: httpx.Client
    there: httpx.Client
    replicate: Simulator
    apiframe: Apiframe
    environ: Mapping[str, str]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two gateways with one database and one folder of files."""
    with ExitStack() as stack:
        replicate = stack.enter_context(Simulator(boot_s=0.01, run_s=0.05).running())
        apiframe = stack.enter_context(Apiframe(run_s=0.05).running())
        more = {"DARKROOM_DATA": str(tmp_path_factory.mktemp("data")), "DARKROOM_GATEWAY__DEADLINE_S": "60"}
        if request.param == "postgres":
            more["DARKROOM_GATEWAY__LEDGER_URL"] = stack.enter_context(postgres()).url
        environ = around({"replicate": replicate, "apiframe": apiframe}, **more)
        served = [stack.enter_context(gateway(SHIPPED, environ)) for _ in range(2)]
        here, there = (stack.enter_context(caller(one.url)) for one in served)
        yield Pair(here=here, there=there, replicate=replicate, apiframe=apiframe, environ=environ)


def begun(pair: Pair, provider: str) -> str:
    """Begin a job here, and wait until its provider has it; its id."""
    sim = pair.replicate if provider == "replicate" else pair.apiframe
    before = len(sim.books.taken)
    answer = ask(pair.here, background="true", routing=json.dumps({"only": [provider]}))
    assert answer.status_code == 202, answer.text
    until(lambda: len(sim.books.taken) > before, "its provider has it")
    return str(answer.json()["id"])


def test_a_job_of_the_other_is_waited_for(pair: Pair) -> None:
    """The other gateway waits for its end, and gives the picture at its own address."""
    pair.replicate.run_s = 1.0
    job = begun(pair, "replicate")
    assert pair.there.get(f"/images/jobs/{job}").json()["status"] == "in_progress"
    body = pair.there.get(f"/images/jobs/{job}?wait=30").json()
    pair.replicate.run_s = 0.05
    url = body["result"]["data"][0]["url"]

    assert body["status"] == "completed"
    assert url.startswith(
        f"{pair.there.base_url.scheme}://{pair.there.base_url.host}:{pair.there.base_url.port}/files/"
    )
    assert size(httpx.get(url).content) == (48, 32)
    assert [entry["id"] for entry in pair.there.get("/images/jobs?limit=1").json()["data"]] == [job]


def test_a_job_of_the_other_is_followed(pair: Pair) -> None:
    """The other gateway tells that it goes on, and its end with the result."""
    pair.replicate.run_s = 1.0
    job = begun(pair, "replicate")
    with pair.there.stream("GET", f"/images/jobs/{job}", headers={"accept": "text/event-stream"}) as stream:
        lines = list(stream.iter_lines())
    pair.replicate.run_s = 0.05
    names = [line.removeprefix("event: image.job.") for line in lines if line.startswith("event: ")]
    last: Any = json.loads(next(line for line in reversed(lines) if line.startswith("data: ")).removeprefix("data: "))

    assert names[0] == "in_progress"
    assert names[-1] == last["status"] == "completed"
    assert last["result"]["data"][0]["url"]


def test_a_job_of_the_other_is_cancelled(pair: Pair) -> None:
    """The cancel reaches whoever works on it, and through it the provider; both tell the same end."""
    pair.replicate.faults.script("job", Fault(kind="job", word="stuck"))
    job = begun(pair, "replicate")
    answer = pair.there.post(f"/images/jobs/{job}/cancel")

    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert list(pair.replicate.jobs.values())[-1].status == "canceled"
    told = pair.here.get(f"/images/jobs/{job}").json()
    assert (told["status"], told["cost"]) == ("cancelled", answer.json()["cost"])


def test_what_cannot_be_cancelled_is_refused_by_the_other(pair: Pair) -> None:
    """The other gateway knows from the ledger who has the job, and says at once that it cannot be cancelled."""
    pair.apiframe.run_s = 1.0
    job = begun(pair, "apiframe")
    answer = pair.there.post(f"/images/jobs/{job}/cancel")
    pair.apiframe.run_s = 0.05

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_cancellable")
    assert ended(pair.there, job)["status"] == "completed"


def test_a_key_begins_one_job_at_both(pair: Pair) -> None:
    """The call that repeats a background job at the other gateway is given that job, with its result if it has one."""
    headers = {"idempotency-key": "once", "prefer": "respond-async"}
    first = ask(pair.here, headers=headers)
    ended(pair.here, first.json()["id"])
    again = ask(pair.there, headers=headers)

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["result"]["data"][0]["url"]


def test_the_commands_beside_the_gateways(pair: Pair) -> None:
    """What the commands read of the ledger, while it is written, is what the API tells."""
    pair.replicate.run_s = 1.1
    ended(pair.here, begun(pair, "replicate"))  # more than a second before the next one
    pair.replicate.run_s = 0.05
    job = begun(pair, "replicate")
    ended(pair.here, job)
    root = str(pair.there.base_url).partition("/openai")[0]

    assert _told(pair, "jobs", job) == httpx.get(f"{root}/v1/requests/{job}").json()
    listed = httpx.get(f"{root}/v1/requests?limit=20").json()
    assert _told(pair, "jobs", "--limit", "20") == listed
    summed = httpx.get(f"{root}/v1/requests?summary=true").json()["by_provider"]
    rows = {row["provider"]: row for row in _told(pair, "costs")["data"]}
    assert {name: (row["attempts"], pytest.approx(row["cost"])) for name, row in rows.items()} == {
        name: (sums["attempts"], sums["cost"]) for name, sums in summed.items()
    }
    for by in ("day", "model", "key"):
        others = _told(pair, "costs", "--by", by)["data"]
        assert sum(row["cost"] for row in others) == pytest.approx(sum(row["cost"] for row in rows.values()))
        assert len({row[by] for row in others}) == len(others), others
        assert sum(row["attempts"] for row in others) == sum(row["attempts"] for row in rows.values())
    assert _told(pair, "jobs", "--purge", "--before", "0s")["count"] >= 1
    assert pair.here.get(f"/images/jobs/{job}").status_code == 404


def _told(pair: Pair, *arguments: str) -> Any:
    ran = warm.command([*arguments, "--json"], environ=clean_environ(**pair.environ))
    assert (ran.returncode, ran.stderr) == (0, "")
    return json.loads(ran.stdout)
