"""Killed at each point between a call and its answer, and called again: one bill, and the picture.

The simulated providers give the moments: one that holds its answer back holds the gateway exactly there. What is to be
written, and when, is told in `gateway/ledger/store.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from openai import APIStatusError, OpenAI
from openai.types import ImagesResponse

from tests.chaos import ledger
from tests.chaos.calls import Call
from tests.chaos.clients import is_picture_of
from tests.chaos.front import front
from tests.chaos.gateway import gateway
from tests.chaos.providers import Clouds, clouds
from tests.simulators.clouds import ALL
from tests.simulators.common import Fault, Op
from tests.support.running import until

pytestmark = pytest.mark.early

_AT_ONCE = 4
# So long after a picture has begun to come each of these kills strikes, in seconds.
_AFTER_S = (0.0, 0.005, 0.01, 0.02)

Again = Literal["key", "retry"]
"""How the call is repeated: by its caller under the same idempotency key, or by the SDK itself, without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A kill while a request of the kind `op` is held at `provider`, `after_s` seconds later.

    `status` is what the call gets in the end, `billed` how many jobs cost something then.
    """

    point: str
    provider: str
    op: Op
    fault: Fault | None
    again: Again = "key"
    after_s: float = 0.0
    status: int = 200
    billed: int = 1

    @property
    def name(self) -> str:
        return f"{self.point}-{self.provider}-{self.again}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a crash came to: the answer's status, its code, the jobs that were billed, and those in the ledger."""

    status: int
    code: str | None
    is_right: bool
    billed: int
    taken: int
    entries: list[ledger.Entry]


def crashes() -> Iterator[Crash]:
    """Every point at each provider where it is there, repeated under a key; at one of them repeated by the SDK too."""
    held, lost = Fault(kind="hang"), Fault(kind="hang", after=True)
    for name in ALL:
        yield from _both(Crash(point="K4 the job runs", provider=name, op="poll", fault=held))
        yield from _both(Crash(point="K5 the picture has not come", provider=name, op="download", fault=held))
        # Apiframe takes the same submit again under the same key; of the others none can say for sure that it never
        # came, so nobody buys once more.
        known = name == "apiframe"
        never = Crash(point="K2 the submit has not come", provider=name, op="submit", fault=held)
        yield from _both(never if known else replace(never, status=504, billed=0))
        # Nobody can ask Segmind for a job whose id it did not tell.
        taken = Crash(point="K3 the submit was taken", provider=name, op="submit", fault=lost)
        yield from _both(taken if name != "segmind" else replace(taken, status=504))
        if name in ("segmind", "apiframe"):
            yield Crash(point="K1 before the submit", provider=name, op="upload", fault=held)
    drip = Fault(kind="drip", seconds=0.05)
    yield from _both(
        Crash(point="K5 half of the picture has come", provider="fal", op="download", fault=drip, after_s=0.5)
    )
    yield Crash(point="K1 before the submit", provider="segmind", op="upload", fault=held, again="retry")
    for number, after_s in enumerate(_AFTER_S):
        point = f"K6 {after_s * 1000:g} ms after the download"
        again: Again = "retry" if number % 2 else "key"
        yield Crash(point=point, provider="fal", op="download", fault=None, again=again, after_s=after_s)


def _both(crash: Crash) -> Iterator[Crash]:
    yield crash
    if crash.provider == "fal":
        yield replace(crash, again="retry")


CRASHES = {crash.name: crash for crash in crashes()}


@pytest.fixture(scope="module")
def plays(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Played]]]:
    """All crashes that are to be tested, several at once: most of them wait."""
    chosen = {item.name for item in request.session.items}
    names = [name for name in CRASHES if f"test_crash[{name}]" in chosen]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {name: pool.submit(_play, CRASHES[name], tmp_path_factory.mktemp("crash")) for name in names}


@pytest.mark.parametrize("name", CRASHES)
def test_crash(name: str, plays: Mapping[str, Future[Played]]) -> None:
    """The repeated call is the same job: it is bought once at most, and has its picture wherever that can be had."""
    crash, played = CRASHES[name], plays[name].result()

    assert played.status == crash.status, played
    assert played.billed == crash.billed, played
    assert played.taken <= 1, played
    if crash.status == 200:
        assert played.is_right, played
    else:
        assert played.code == "upstream_outcome_unknown", played
        # Whoever asks for the costs learns that this may have been one.
        assert [attempt.cost > 0 for entry in played.entries for attempt in entry.attempts] == [True], played


def _play(crash: Crash, folder: Path) -> Played:
    call = Call(number=0, kind="keyed" if crash.again == "key" else "plain", seed=10, colour=(200, 90, 30))
    with (
        clouds(crash.provider, run_s=0.2) as there,
        gateway(folder, there.environ) as served,
        front(served.port) as before,
        ThreadPoolExecutor(1) as caller,
    ):
        there.storms[crash.provider].script(crash.op, crash.fault)
        # Where the SDK repeats the call, it is one call of the SDK for its caller.
        once = 0 if crash.again == "key" else 2
        first = caller.submit(_call, before.base_url, call, once)
        _wait_for(crash, there)
        time.sleep(crash.after_s)
        served.kill()
        served.start()
        if crash.again == "key":
            first.exception(timeout=30)
            first = caller.submit(_call, before.base_url, call, 2)
        status, code, is_right = first.result(timeout=60)
        ledger.settle(served.url, 30)
        bills = there.bills()
        return Played(
            status=status,
            code=code,
            is_right=is_right,
            billed=sum(bill.billed for bill in bills),
            taken=len(bills),
            entries=ledger.read(served.url, {call.seed: call.colour}),
        )


def _wait_for(crash: Crash, there: Clouds) -> None:
    """Wait until the request of this kind is there, and has been carried out where that comes before its fault."""
    sim, storm = there.sims[crash.provider], there.storms[crash.provider]
    until(lambda: storm.asked[crash.op], f"{crash.op} at {crash.provider}")
    if crash.fault is not None and crash.fault.after:
        until(lambda: sim.books.taken, f"{crash.provider} has taken the job")


def _call(base_url: str, call: Call, retries: int) -> tuple[int, str | None, bool]:
    """One call of the SDK: the status, the error's code, and whether the picture is the right one."""
    with OpenAI(base_url=base_url, api_key="none", max_retries=retries, timeout=60) as client:
        try:
            response: ImagesResponse = client.images.edit(**call.fields())
        except APIStatusError as error:
            return error.status_code, error.code, False
    assert response.data
    return 200, None, is_picture_of(str(response.data[0].b64_json), call.colour)
