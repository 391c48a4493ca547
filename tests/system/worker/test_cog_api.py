"""Cog's HTTP API, row by row: each test runs against our worker and against Cog's own server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from tests.support.workers import PLAY, Running, busy, cog, free, play, receiver, status, until, worker

Start: TypeAlias = Callable[[Path], AbstractContextManager[Running]]
JSON = {"content-type": "application/json"}


def ours(tmp_path: Path) -> AbstractContextManager[Running]:
    return worker(tmp_path, *PLAY, "--slots=1", "--webhooks")


BOTH = pytest.mark.parametrize("start", [ours, cog])


@pytest.fixture(scope="module", params=[ours, cog])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with one slot that the tests of this file share."""
    with request.param(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
async def client(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        await until(lambda: free(client))
        yield client


async def test_index(client: httpx.AsyncClient) -> None:
    """The index names the other routes."""
    answer = await client.get("/")

    assert answer.status_code == 200
    said = answer.json()
    assert said["predictions_url"] == "/predictions"
    assert said["healthcheck_url"] == "/health-check"
    assert said["predictions_cancel_url"] == "/predictions/{prediction_id}/cancel"
    assert said["shutdown_url"] == "/shutdown"


async def test_health(client: httpx.AsyncClient) -> None:
    """A worker that is ready says so, and how its setup went."""
    answer = await client.get("/health-check")

    assert answer.status_code == 200
    said = answer.json()
    assert said["status"] == "READY"
    assert said["setup"]["status"] == "succeeded"
    assert said["setup"]["started_at"] < said["setup"]["completed_at"]


async def test_document(client: httpx.AsyncClient) -> None:
    """The OpenAPI document has the engine's name and its inputs."""
    document = (await client.get("/openapi.json")).json()

    assert document["info"]["title"] == "play"
    wanted = document["components"]["schemas"]["Input"]
    assert wanted["required"] == ["text"]
    assert sorted(wanted["properties"], key=lambda name: wanted["properties"][name]["x-order"])[:2] == [
        "text",
        "seconds",
    ]
    assert wanted["properties"]["seconds"].items() >= {
        "type": "number", "minimum": 0, "maximum": 30, "default": 0,
    }.items()  # fmt: skip
    assert wanted["properties"]["mode"]["enum"] == ["a", "b"]
    assert document["components"]["schemas"]["Output"]["type"] == "string"


async def test_prediction(client: httpx.AsyncClient) -> None:
    """A prediction that succeeds is answered with its output and its time."""
    answer = await client.post("/predictions", json=play(seconds=0.1) | {"id": "mine"})

    assert answer.status_code == 200
    said = answer.json()
    assert said["id"] == "mine"
    assert said["status"] == "succeeded"
    assert said["output"]
    assert 0.1 <= said["metrics"]["predict_time"] < 1
    assert isinstance(said["logs"], str)
    assert "error" not in said


async def test_failure(client: httpx.AsyncClient) -> None:
    """A prediction that fails is answered with 200, its status and the reason."""
    answer = await client.post("/predictions", json=play("fail"))

    assert answer.status_code == 200
    said = answer.json()
    assert said["status"] == "failed"
    assert "asked to fail" in said["error"]
    assert said["id"]
    assert "output" not in said


@pytest.mark.parametrize(
    ("given", "wrong", "kind"),
    [
        ({}, "text", "value_error.missing"),
        ({"text": 3}, "text", "value_error"),
        ({"text": None}, "text", "value_error"),
        ({"text": "x", "seconds": 31}, "seconds", "value_error"),
        ({"text": "x", "seconds": -0.1}, "seconds", "value_error"),
        ({"text": "x", "seconds": "1"}, "seconds", "value_error"),
        ({"text": "x", "seconds": True}, "seconds", "value_error"),
        ({"text": "x", "times": 1.5}, "times", "value_error"),
        ({"text": "x", "loud": "yes"}, "loud", "value_error"),
        ({"text": "x", "mode": "c"}, "mode", "value_error"),
    ],
)
async def test_bad_input(client: httpx.AsyncClient, given: dict[str, Any], wrong: str, kind: str) -> None:
    """An input that the schema does not allow is refused, with its place."""
    answer = await client.post("/predictions", json={"input": given})

    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["body", "input", wrong]
    assert problem["type"] == kind
    assert problem["msg"]


async def test_all_mistakes_are_told(client: httpx.AsyncClient) -> None:
    """Every input that is wrong is named, not only the first."""
    answer = await client.post("/predictions", json={"input": {"seconds": "x", "mode": "c", "text": "x"}})

    assert answer.status_code == 422
    assert {problem["loc"][2] for problem in answer.json()["detail"]} == {"seconds", "mode"}


async def test_unknown_input(client: httpx.AsyncClient) -> None:
    """An input that the engine does not have does not stop the prediction."""
    answer = await client.post("/predictions", json=play(creativity=0.3))

    assert answer.status_code == 200
    assert answer.json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (b"{bad", JSON, 400),
        (b'{"input": {"text": "x", "seconds": NaN}}', JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b'{"input": {}}', {"content-type": "text/plain"}, 415),
        (b"x=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b'"text"', JSON, 422),
        (b'{"input": 3}', JSON, 422),
        (b'{"id": 3, "input": {"text": "x"}}', JSON, 422),
        (b"", {}, 422),
    ],
)
async def test_bad_body(client: httpx.AsyncClient, content: bytes, headers: dict[str, str], code: int) -> None:
    """A body that is not a request is refused with the code that says why, and takes no slot."""
    answer = await client.post("/predictions", content=content, headers=headers)

    assert answer.status_code == code
    assert await status(client) == "READY"


async def test_capacity(client: httpx.AsyncClient) -> None:
    """When all slots are taken, a prediction is refused with 409 and the worker says BUSY."""
    held = asyncio.create_task(client.put("/predictions/held", json=play(seconds=20)))
    await until(lambda: busy(client))

    answer = await client.post("/predictions", json=play())

    assert answer.status_code == 409
    assert answer.json() == {"error": "At capacity - all prediction slots busy", "status": "failed"}
    await client.post("/predictions/held/cancel")
    await held


async def succeeds(client: httpx.AsyncClient, id: str | None = None) -> bool:  # noqa: A002 - a prediction's id
    """Whether a prediction, with an id of ours or without, succeeds now; false only where there is no place for it."""
    put = client.post("/predictions", json=play()) if id is None else client.put(f"/predictions/{id}", json=play())
    answer = await put
    assert answer.status_code == 409 or answer.json()["status"] == "succeeded", answer.text
    return answer.status_code != 409


async def test_cancel(client: httpx.AsyncClient) -> None:
    """A sync prediction that is cancelled is answered as such without output, and its slot is free soon."""
    held = asyncio.create_task(client.put("/predictions/held", json=play(seconds=20)))
    await until(lambda: busy(client))

    answer = await client.post("/predictions/held/cancel")

    assert (answer.status_code, answer.json()) == (200, {})
    ended = await asyncio.wait_for(held, 2)
    assert ended.status_code == 200
    assert ended.json()["status"] == "canceled"
    assert "output" not in ended.json()
    # coglet gives the slot back a moment after the answer: until then it says 409.
    await until(lambda: succeeds(client))


async def test_cancel_of_nothing(client: httpx.AsyncClient) -> None:
    """A prediction that is not running cannot be cancelled, nor one that has ended."""
    await client.put("/predictions/over", json=play())

    for name in ("never", "over"):
        answer = await client.post(f"/predictions/{name}/cancel")
        assert (answer.status_code, answer.json()) == (404, {})


async def test_same_id_while_running(client: httpx.AsyncClient) -> None:
    """The same id while it runs is answered at once with its state, and does not run twice."""
    held = asyncio.create_task(client.put("/predictions/held", json=play(seconds=20)))
    await until(lambda: busy(client))

    answer = await asyncio.wait_for(client.put("/predictions/held", json=play(seconds=20)), 2)

    assert answer.status_code == 202
    said = answer.json()
    assert (said["id"], said["status"]) == ("held", "processing")
    assert said["input"]["text"] == "hello"
    await client.post("/predictions/held/cancel")
    assert (await held).json()["status"] == "canceled"


async def test_same_id_afterwards(client: httpx.AsyncClient) -> None:
    """The same id runs again once it has ended."""
    first = await client.put("/predictions/again", json=play("one"))
    # coglet gives the slot back a moment after the answer: until then it says 409.
    await until(lambda: succeeds(client, "again"))

    assert (first.status_code, first.json()["status"]) == (200, "succeeded")


async def test_ids_that_differ(client: httpx.AsyncClient) -> None:
    """An id in the body that is not the one of the address is refused; the same one is taken."""
    other = await client.put("/predictions/one", json=play() | {"id": "other"})
    same = await client.put("/predictions/one", json=play() | {"id": "one"})

    assert other.status_code == 422
    assert other.json()["detail"] == [
        {"loc": ["body", "id"], "msg": "prediction ID must match the ID supplied in the URL", "type": "value_error"}
    ]
    assert same.status_code == 200


async def test_no_polling(client: httpx.AsyncClient) -> None:
    """A prediction cannot be asked for."""
    assert (await client.get("/predictions/one")).status_code == 405
    assert (await client.get("/nowhere")).status_code == 404


async def test_respond_async(client: httpx.AsyncClient) -> None:
    """`Prefer: respond-async` is answered at once; anything else in that header is not taken for it."""
    prefer = {"prefer": "respond-async"}
    answer = await client.post("/predictions", json=play(seconds=20) | {"id": "later"}, headers=prefer)

    assert (answer.status_code, answer.json()) == (202, {"id": "later", "status": "starting"})
    assert await status(client) == "BUSY"
    await client.post("/predictions/later/cancel")
    await until(lambda: free(client))
    waited = await client.post("/predictions", json=play(), headers={"prefer": "respond-async, wait=5"})
    assert waited.status_code == 200


async def test_hang_up(server: Running, client: httpx.AsyncClient) -> None:
    """A client that hangs up cancels its prediction, and the slot is free soon."""
    async with server.client() as leaving:
        held = asyncio.create_task(leaving.post("/predictions", json=play(seconds=20)))
        await until(lambda: busy(client))
        held.cancel()
        await asyncio.wait([held])

    await until(lambda: free(client), 3)


async def test_webhook(client: httpx.AsyncClient) -> None:
    """An async prediction is told of by webhook, to its end."""
    async with receiver() as (url, events):
        body = play(seconds=0.2) | {"id": "hooked", "webhook": url}
        await client.post("/predictions", json=body, headers={"prefer": "respond-async"})
        await until(lambda: any(event["status"] == "succeeded" for event in events))

    [end] = [event for event in events if event["status"] == "succeeded"]
    assert end["id"] == "hooked"
    assert end["output"]
    assert {event["status"] for event in events} <= {"starting", "processing", "succeeded"}


async def test_webhook_filter(client: httpx.AsyncClient) -> None:
    """Only the events that were asked for are sent."""
    async with receiver() as (url, events):
        body = play("fail", seconds=0.2) | {"webhook": url, "webhook_events_filter": ["completed"]}
        await client.post("/predictions", json=body, headers={"prefer": "respond-async"})
        await until(lambda: events)
        await asyncio.sleep(0.3)

    [end] = events
    assert end["status"] == "failed"
    assert "asked to fail" in end["error"]


@BOTH
async def test_drain(start: Start, tmp_path: Path) -> None:
    """A worker that is told to stop finishes and answers what runs, and then exits with 0."""
    with start(tmp_path) as running:
        async with running.client() as client:
            held = asyncio.create_task(client.post("/predictions", json=play(seconds=1)))
            await until(lambda: busy(client))
            running.process.send_signal(signal.SIGTERM)
            answer = await held
        assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
        assert running.process.wait(5) == 0


@BOTH
async def test_shutdown(start: Start, tmp_path: Path) -> None:
    """`POST /shutdown` ends the process with 0."""
    with start(tmp_path) as running:
        async with running.client() as client:
            answer = await client.post("/shutdown")
        assert (answer.status_code, answer.json()) == (200, {})
        assert running.process.wait(5) == 0


@pytest.mark.parametrize("which", ["worker", "cog"])
async def test_starting(which: str, tmp_path: Path) -> None:
    """Before its setup is finished a worker answers, says STARTING, and refuses predictions with 503."""
    engine = ("--engine", "play_engines:SlowToLoad")
    with (
        worker(tmp_path, *engine, ready="STARTING")
        if which == "worker"
        else cog(tmp_path, ready="STARTING", loading=1) as running
    ):
        async with running.client() as client:
            health = await client.get("/health-check")
            answer = await client.post("/predictions", json=play())
            await until(lambda: free(client))
            later = await client.post("/predictions", json=play())

    assert health.status_code == 200
    assert health.json()["setup"]["status"] == "starting"
    assert answer.status_code == 503
    assert answer.json()["status"] == "failed"
    assert "Setup has not finished" in answer.json()["error"]
    assert later.json()["status"] == "succeeded"
