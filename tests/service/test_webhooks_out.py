"""Callers are told of their jobs at addresses of their own: by a gateway, by several, by one that was killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.settings.loader import SHIPPED
from tests.simulators.common import Fault
from tests.simulators.fal import FalAi
from tests.simulators.receiver import Receiver
from tests.support.hooked import around, ask, begin, caller, ended
from tests.support.keys import api_key
from tests.support.postgres import postgres
from tests.support.running import serving, until
from tests.support.world import Canary, gateway

pytestmark = pytest.mark.system

ONE, TWO = api_key("one"), api_key("two")
KEYS = {"DARKROOM_API_KEYS": f"{ONE},{TWO}"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A caller's server."""
    with Receiver().running() as running:
        yield running


@pytest.fixture
def fal() -> Iterator[FalAi]:
    """A provider."""
    with FalAi(run_s=0.05).running() as running:
        yield running


def secret(url: str, key: str | None = None, prefix: str = "/openai/v1") -> str:
    """What the caller with this key checks its webhooks with."""
    with caller(url, key=key) as client:
        answer = client.get(f"{url}{prefix}/webhooks/secret")
        assert answer.headers["cache-control"] == "no-store"
        return str(answer.json()["key"])


def test_each_caller_is_told_of_its_own(receiver: Receiver, fal: FalAi, tmp_path: Path) -> None:
    """A job's end is told once, signed with its key's secret; secrets and addresses stay out of the log."""
    with serving(tmp_path, (), around({"fal": fal}, receiver, **KEYS)) as served:
        secrets = {key: secret(served.root, key) for key in (ONE, TWO)}
        assert secret(served.root, ONE, "/v1") == secrets[ONE] != secrets[TWO]
        receiver.answers.append(500)
        for key in (ONE, TWO):
            with caller(served.root, key=key) as client:
                job = begin(client, receiver, f"/{key}?token=very-private")
                until(lambda: receiver.at(f"/{key}"), "the job is told of")  # noqa: B023 - it is called at once
                [message] = receiver.at(f"/{key}")
                told = message.verified(secrets[key])
                assert (told["type"], told["data"]["id"]) == ("image.job.completed", job)
                assert ended(client, job)["status"] == "completed"
    log = served.log.read_text()
    assert "webhook.not_delivered" in log
    for private in (*secrets.values(), "very-private", "whsec_"):
        assert private not in log


def test_what_is_told(receiver: Receiver, fal: FalAi, tmp_path: Path) -> None:
    """A failure is told as well, unless the caller asked for other events."""
    environ = around({"fal": fal}, receiver, DARKROOM_DATA=str(tmp_path))
    with gateway(SHIPPED, environ) as served, caller(served.url) as client:
        for path, fields in (("/both", {}), ("/good", {"webhook_events": "completed"})):
            fal.faults.script("job", Fault(kind="job", word="FAILED"))
            job = begin(client, receiver, path, **fields)
            assert ended(client, job)["status"] == "failed"
        begin(client, receiver, "/last")
        until(lambda: receiver.at("/last"), "the last job is told of")
        assert [message.json["type"] for message in receiver.at("/both")] == ["image.job.failed"]
        assert receiver.at("/good") == []


def test_progress(receiver: Receiver, fal: FalAi, tmp_path: Path) -> None:
    """Whoever asks for it is told how far the job is."""
    fal.run_s = 1.0
    environ = around({"fal": fal}, receiver, DARKROOM_DATA=str(tmp_path))
    with gateway(SHIPPED, environ) as served, caller(served.url) as client:
        begin(client, receiver, webhook_events='["progress", "completed"]')
        until(lambda: any(m.json["type"] == "image.job.completed" for m in receiver.messages), "its end is told")
        told = [message.json["data"] for message in receiver.messages if message.json["type"] == "image.job.progress"]
        assert told
        assert all(0 < data["progress"] <= 1 and data["status"] == "in_progress" for data in told)


@pytest.mark.parametrize("address", ["http://{canary}/x", "https://10.0.0.1/x", "https://[::1]/x", "file:///x", "x"])
def test_a_private_address_is_refused(address: str, fal: FalAi, tmp_path: Path) -> None:
    """A job whose webhook would go to a network of ours is not begun."""
    with Canary().running() as canary:
        environ = around({"fal": fal}, DARKROOM_DATA=str(tmp_path))
        with gateway(SHIPPED, environ) as served, caller(served.url) as client:
            answer = ask(client, background="true", webhook_url=address.format(canary=canary.url[7:]))
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "webhook_url")
        assert (fal.books.taken, canary.seen) == ([], [])


def test_two_processes(receiver: Receiver, fal: FalAi, tmp_path: Path) -> None:
    """Two processes beside one embedded database send each message once, those that had to wait as well."""
    receiver.answers.extend([503] * 10)
    with serving(tmp_path, ["--workers", "2"], around({"fal": fal}, receiver)) as served:
        with caller(served.root) as client:
            jobs = [begin(client, receiver) for _ in range(20)]
        _each_once(receiver, jobs)
        for outcome, tries in (("delivered", 20), ("refused", 10)):
            sent = partial(served.metric, "darkroom_webhooks_sent_total", outcome=outcome)
            until(lambda: sent() == tries, f"{tries} are {outcome}")  # noqa: B023 - it is called at once


def test_two_machines(receiver: Receiver, fal: FalAi) -> None:
    """Two gateways that share a Postgres send each message once, with one secret, and look out for each other."""
    receiver.answers.extend([503] * 10)
    with ExitStack() as stack:
        server = stack.enter_context(postgres())
        environ = around({"fal": fal}, receiver, DARKROOM_GATEWAY__LEDGER_URL=server.url)
        folders = [Path(stack.enter_context(TemporaryDirectory())) for _ in range(2)]
        roots = [stack.enter_context(serving(folder, (), environ)).root for folder in folders]
        jobs = []
        for root in roots:
            with caller(root) as client:
                jobs += [begin(client, receiver) for _ in range(10)]
        _each_once(receiver, jobs)
        assert len({secret(root) for root in roots}) == 1
        receiver.messages[-1].verified(secret(roots[0]))


def _each_once(receiver: Receiver, jobs: list[str]) -> None:
    until(lambda: sum(m.status == 200 for m in receiver.messages) >= len(jobs), "every job is told of")
    taken = [message for message in receiver.messages if message.status == 200]
    assert sorted(message.json["data"]["id"] for message in taken) == sorted(jobs)
    refused = Counter(message.id for message in receiver.messages if message.status == 503)
    assert max(refused.values()) == 1
    assert refused.keys() <= {message.id for message in taken}


def test_killed(receiver: Receiver, fal: FalAi, tmp_path: Path) -> None:
    """What was still to be told when the gateway was killed, the next one tells, under the same id and secret."""
    receiver.usual = 503
    environ = around({"fal": fal}, receiver)
    with serving(tmp_path, (), environ) as served:
        before = secret(served.root)
        with caller(served.root) as client:
            job = begin(client, receiver)
        until(lambda: receiver.messages, "the job is told of, in vain")
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()
    receiver.usual = 200
    with serving(tmp_path, (), environ) as served:
        until(lambda: receiver.messages[-1].status == 200, "the job is told of")
        last = receiver.messages[-1]
        assert {message.id for message in receiver.messages} == {last.id}
        assert last.verified(before)["data"]["id"] == job
        assert secret(served.root) == before
        assert len(fal.books.taken) == 1
