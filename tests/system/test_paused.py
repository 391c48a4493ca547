"""A real process that is stopped in the middle of a paid call for longer than its lease, and goes on afterwards."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.settings.loader import SHIPPED
from tests.chaos.gateway import PATIENCE, Gateway
from tests.chaos.gateway import gateway as process
from tests.chaos.providers import Clouds, clouds
from tests.support.hooked import ask, caller, ended
from tests.support.postgres import postgres
from tests.support.running import until
from tests.support.world import gateway

# Whose jobs live in the connection that began them: nobody else can ask for these.
HELD = ("fal",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A process that is to be paused, the address of another gateway over the same Postgres, the providers of both."""

    paused: Gateway
    other: str
    there: Clouds


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Each knows the other by its lease alone, of a second."""
    folder = tmp_path_factory.mktemp("paused")
    with ExitStack() as stack:
        there = stack.enter_context(clouds(*HELD, run_s=3.0))
        environ = {
            **PATIENCE,
            **there.environ,
            "DARKROOM_DATA": str(folder / "data"),
            "DARKROOM_GATEWAY__LEDGER_URL": stack.enter_context(postgres()).url,
            "DARKROOM_PROVIDERS__FAL__MODE": "run",
        }
        paused = stack.enter_context(process(folder, environ))
        other = stack.enter_context(gateway(SHIPPED, environ)).url
        yield Pair(paused=paused, other=other, there=there)


@contextmanager
def stopped(served: Gateway) -> Iterator[None]:
    """Let a process stand still."""
    running = served._process
    assert running is not None
    running.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        running.send_signal(signal.SIGCONT)


def job_of(client: httpx.Client, job: str) -> Any:
    """A job as the API shows it."""
    return client.get(f"/images/jobs/{job}").json()


@pytest.mark.parametrize("provider", HELD)
def test_a_process_that_is_paused_in_a_paid_call(pair: Pair, provider: str) -> None:
    """The other process gives up what lives in the paused one's connection; the picture that comes there afterwards is
    the job's, is billed once and is shown by both."""
    sim = pair.there.sims[provider]
    before = len(sim.books.taken)
    with caller(pair.paused.url) as here, caller(pair.other) as there:
        asked = {"model": "clarity-upscaler", "background": "true", "routing": json.dumps({"only": [provider]})}
        answer = ask(here, headers={"idempotency-key": provider}, **asked)
        assert answer.status_code == 202, answer.text
        job = str(answer.json()["id"])
        until(lambda: len(sim.books.taken) > before, "the provider has it")
        with stopped(pair.paused):
            until(lambda: job_of(there, job)["status"] == "failed", "given up")
            assert job_of(there, job)["error"]["code"] == "upstream_outcome_unknown"
        until(lambda: job_of(there, job)["status"] == "completed", "the picture came after all")
        for client in (here, there):
            found = ended(client, job)
            assert found["error"] is None
            assert len(found["result"]["data"]) == 1
            assert found["cost"] > 0
        again = ask(there, headers={"idempotency-key": provider}, **asked)
        assert again.json()["id"] == job
    assert len(sim.books.taken) == before + 1
    assert pair.paused.crashes() == []


@pytest.mark.parametrize("background", ["true", "false"])
def test_a_request_that_its_caller_has_given_up(pair: Pair, background: str) -> None:
    """It waits for a process that stands still, and its SDK repeats it elsewhere meanwhile: it is bought once."""
    sim = pair.there.sims["fal"]
    asked: dict[str, Any] = {
        "model": "clarity-upscaler",
        "background": background,
        "prompt": f"given up: {background}",
        "routing": json.dumps({"only": ["fal"]}),
    }
    before = len(sim.books.taken)
    with caller(pair.paused.url) as here, caller(pair.other) as there:
        here.timeout = httpx.Timeout(0.5)
        with stopped(pair.paused):
            with pytest.raises(httpx.ReadTimeout):
                ask(here, **asked)
            again = ask(there, headers={"x-stainless-retry-count": "1"}, **asked)
        here.timeout = httpx.Timeout(60)
        after = ask(here, **{**asked, "prompt": "and one more"})  # once it is there, the one before has been looked at
        for answer, client in ((again, there), (after, here)):
            assert answer.status_code == (202 if background == "true" else 200), answer.text
            if background == "true":
                ended(client, answer.json()["id"])
    assert len(sim.books.taken) == before + 2
