"""SIGTERM under fifty running jobs: what is nearly done is finished, the rest is left to the next process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types import ImagesResponse

from tests.chaos import ledger
from tests.chaos.calls import Call
from tests.chaos.clients import is_picture_of
from tests.chaos.front import front
from tests.chaos.gateway import Gateway, gateway
from tests.chaos.providers import Clouds, clouds
from tests.simulators.clouds import ALL
from tests.support.running import until

_JOBS = 50
_GRACE_S = 3.0
# Whose jobs are done within the grace time, and whose are not.
_QUICK = ("fal", "apiframe")
_SLOW = tuple(name for name in ALL if name not in _QUICK)


def test_sigterm(tmp_path: Path) -> None:
    """The process ends by itself and in time; callers are sent away with their job's id, and join it once more."""
    calls = [
        Call(number=i, kind="plain", seed=1000 + i, colour=(i, 200, 30), order=(ALL[i % len(ALL)],))
        for i in range(_JOBS)
    ]
    # Fifty submits at once take their time on a busy machine, and none of them is lost.
    environ = {"DARKROOM_GATEWAY__GRACE_S": str(_GRACE_S), "DARKROOM_GATEWAY__SUBMIT_TIMEOUT_S": "20"}
    with (
        clouds(*ALL) as there,
        gateway(tmp_path, {**there.environ, **environ}) as served,
        front(served.port) as before,
    ):
        for name, sim in there.sims.items():
            sim.run_s = 0.5 if name in _QUICK else 6.0
        heard = asyncio.run(_calls(calls, before.base_url, served, there))
        ledger.settle(served.url, 30)
        entries = ledger.read(served.url, {call.seed: call.colour for call in calls})

        assert served.crashes() == []
        assert sorted(bill.unit for bill in there.bills() if bill.billed) == [call.seed for call in calls]
        assert len(there.bills()) == _JOBS
    assert [(entry.state, entry.images) for entry in entries] == [("completed", 1)] * _JOBS
    # The quick ones were all answered, before the signal or after it; the slow ones came again once.
    sent_away = {seed: responses for seed, responses in heard.items() if len(responses) > 1}
    assert sent_away.keys() == {call.seed for call in calls if call.order[0] in _SLOW}
    for first, last in sent_away.values():
        assert first.status_code == 503
        assert int(first.headers["retry-after"]) > 0
        assert first.headers["x-darkroom-job"] == last.headers["x-darkroom-job"]
        assert last.headers["idempotent-replayed"] == "true"


async def _calls(calls: list[Call], base_url: str, served: Gateway, there: Clouds) -> Mapping[int, list[Any]]:
    """Make all calls, end the gateway when each has its job, start it again; all responses by the calls' seeds."""
    heard: defaultdict[int, list[Any]] = defaultdict(list)

    async def one(call: Call) -> None:
        async def receive(response: Any) -> None:
            heard[call.seed].append(response)

        http = DefaultAsyncHttpxClient(event_hooks={"response": [receive]})
        async with AsyncOpenAI(base_url=base_url, api_key="none", timeout=60, http_client=http) as sdk:
            response: ImagesResponse = await sdk.images.edit(**call.fields())
        assert response.data
        assert is_picture_of(str(response.data[0].b64_json), call.colour)

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(one(call))
        await asyncio.to_thread(until, lambda: len(there.bills()) == _JOBS, "every job is taken")
        served.terminate()
        assert await asyncio.to_thread(served.ended, _GRACE_S + 1) == 0
        await asyncio.to_thread(served.start)
    return heard
