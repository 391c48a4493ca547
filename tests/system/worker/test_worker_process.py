"""What our worker does beyond Cog: limits, refusals, slots, hard cases of its life and death."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from httpx_aiohttp import AiohttpTransport

from tests.support.workers import (
    ENVIRONMENT,
    PLAY,
    Running,
    await_status,
    busy,
    data_uri,
    ended,
    free,
    from_data_uri,
    play,
    receiver,
    status,
    until,
    worker,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A worker with two slots and without webhooks that the tests of this file share."""
    with worker(tmp_path_factory.mktemp("server"), *PLAY, "--slots=2", "--max-body=40000000") as running:
        yield running


@pytest.fixture
async def client(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


async def concurrency(client: httpx.AsyncClient) -> tuple[int, int]:
    """Slots taken, and slots."""
    said = (await client.get("/health-check")).json()["concurrency"]
    return said["current"], said["max"]


async def test_output_is_a_data_uri(client: httpx.AsyncClient) -> None:
    """The output is a data URI of what the engine made, with its times and without the input."""
    said = (await client.post("/predictions", json=play("hällo"))).json()

    assert said["output"] == data_uri("hällo".encode(), "text/plain")
    assert said["started_at"] < said["completed_at"]
    assert "input" not in said


async def test_picture_reaches_the_engine(client: httpx.AsyncClient) -> None:
    """A data URI reaches the engine as bytes: plain, with parameters, and with its slashes escaped."""
    uri = data_uri(bytes(1000))
    for written in (uri, uri.replace(";", ";charset=utf-8;", 1), uri.replace("/", "\\/", 1)):
        content = f'{{"input":{{"text":"x","image":"{written}"}}}}'
        answer = await client.post("/predictions", content=content, headers={"content-type": "application/json"})
        assert answer.json()["logs"] == "1000 bytes\n"


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("http://127.0.0.1:9/x.png", "does not fetch URLs"),
        ("https://example.com/x.png", "does not fetch URLs"),
        (base64.b64encode(b"bare").decode(), "data:<media type>;base64,<data>"),
        ("file:///etc/passwd", "data:<media type>;base64,<data>"),
        ("data:image/png;base64,????", "not valid base64"),
        ("data:image/png,plain", "data:<media type>;base64,<data>"),
        (["data:image/png;base64,QUJD"], "not of type"),
        (7, "not of type"),
    ],
)
async def test_other_pictures_are_refused(client: httpx.AsyncClient, image: object, told: str) -> None:
    """A picture that is not a data URI is refused, and the refusal says what is taken."""
    answer = await client.post("/predictions", json=play(image=image))

    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["body", "input", "image"]
    assert told in problem["msg"]
    assert len(problem["msg"]) < 300


async def test_numbers(client: httpx.AsyncClient) -> None:
    """As in JSON Schema, 2.0 is an integer; a number beyond all bounds is refused and breaks nothing."""
    whole = await client.post("/predictions", json=play("ab", times=2.0))
    huge = await client.post("/predictions", json=play(seconds=10**400, times=10**400))

    assert from_data_uri(whole.json()["output"]) == b"abab"
    assert {problem["loc"][2] for problem in huge.json()["detail"]} == {"seconds", "times"}


async def test_null(client: httpx.AsyncClient) -> None:
    """Null is no value: fine for an input that may be left out, refused for one that has a default."""
    fine = await client.post("/predictions", json=play(times=None, image=None))
    refused = await client.post("/predictions", json=play(seconds=None))

    assert fine.json()["status"] == "succeeded"
    assert refused.status_code == 422


async def test_ignored_inputs_are_told(client: httpx.AsyncClient) -> None:
    """What the engine does not know is named in the logs."""
    said = (await client.post("/predictions", json=play(creativity=1, prompt="x"))).json()

    assert "['creativity', 'prompt']" in said["logs"]


@pytest.mark.parametrize("told", [True, False])
async def test_body_too_large(client: httpx.AsyncClient, told: bool) -> None:
    """A body above the limit is refused, whether its length was told or not, and takes no slot."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(41):
            yield bytes(1_000_000)

    headers = {"content-type": "application/json"} | ({"content-length": "41000000"} if told else {})
    answer = await client.post("/predictions", content=body(), headers=headers)

    assert answer.status_code == 413
    assert "40000000" in answer.text
    assert (await concurrency(client))[0] == 0


async def test_browsers_are_refused(client: httpx.AsyncClient) -> None:
    """A page in a browser cannot end the worker or its work."""
    answer = await client.post("/shutdown", headers={"origin": "https://example.com"})

    assert answer.status_code == 403
    assert await status(client) == "READY"


async def test_webhooks_are_off(client: httpx.AsyncClient) -> None:
    """Unless the operator allows it no address is called, and the refusal names the switch."""
    answer = await client.post("/predictions", json=play() | {"webhook": "http://127.0.0.1:9/"})

    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["body", "webhook"]
    assert "--webhooks" in problem["msg"]


async def chunks() -> AsyncIterator[bytes]:
    """Twenty megabytes."""
    for _ in range(100):
        yield bytes(200_000)


async def test_slots(client: httpx.AsyncClient) -> None:
    """Two slots hold two predictions; a third is refused without its body being read."""
    held = [asyncio.create_task(client.put(f"/predictions/{name}", json=play(seconds=20))) for name in "ab"]
    await until(lambda: busy(client))

    assert await concurrency(client) == (2, 2)
    # Not JSON: it would be 400 if it were read.
    assert (await client.post("/predictions", content=b"{", headers={"content-type": "text/plain"})).status_code == 409

    # Neither client nor server minds that the body was on its way.
    async with httpx.AsyncClient(base_url=client.base_url, transport=AiohttpTransport()) as other:
        for each in (client, other) * 2:
            large = await each.post("/predictions", content=chunks(), headers={"content-type": "application/json"})
            assert large.status_code == 409

    for name in "ab":
        await client.post(f"/predictions/{name}/cancel")
    assert [answer.json()["status"] for answer in await asyncio.gather(*held)] == ["canceled", "canceled"]
    assert await concurrency(client) == (0, 2)


async def test_hang_up_within_the_body(server: Running, client: httpx.AsyncClient) -> None:
    """A client that leaves in the middle of its body gives back its slot."""
    address = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(address[0], int(address[1]))
    writer.write(b"POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
    await writer.drain()
    await until(lambda: _taken(client, 1))
    writer.close()

    await until(lambda: _taken(client, 0))
    assert not await reader.read()


async def _taken(client: httpx.AsyncClient, slots: int) -> bool:
    return (await concurrency(client))[0] == slots


async def test_same_id_twice_at_once(client: httpx.AsyncClient) -> None:
    """Of two requests with one id that come at once, one runs and the other is told its state."""
    body = play(seconds=0.5, image=data_uri(bytes(3_000_000)))
    answers = await asyncio.gather(*(client.put("/predictions/twin", json=body) for _ in "ab"))

    assert sorted(answer.status_code for answer in answers) == [200, 202]
    assert "image" not in next(a for a in answers if a.status_code == 202).json().get("input", {})


@pytest.mark.timing
async def test_large_bodies_do_not_hold_the_loop(client: httpx.AsyncClient) -> None:
    """While 28 MB go in and 80 MB come out, the worker answers others at once."""
    waits: list[float] = []

    async def look() -> None:
        while True:
            began = time.perf_counter()
            await client.get("/health-check")
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)

    sent = data_uri(bytes(20_000_000))
    content = f'{{"input":{{"text":"abcd","times":15000000,"seconds":0.2,"image":"{sent}"}}}}'.encode()
    looking = asyncio.create_task(look())
    await asyncio.sleep(0.5)
    # How long it takes on this machine, with whatever else runs on it.
    idle, waits[:] = max(waits), []
    # Another process: who is measured is not to share this test's event loop.
    command = [sys.executable, "-c", _POST, str(client.base_url)]
    posting = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
    length, _ = await posting.communicate(content)
    looking.cancel()

    print(f"longest wait for /health-check: {max(waits) * 1000:.0f} ms, idle {idle * 1000:.0f} ms")
    assert int(length) > 80_000_000
    assert max(waits) < 0.2 + 5 * idle


_POST = """
import http.client, sys, urllib.parse
connection = http.client.HTTPConnection(urllib.parse.urlsplit(sys.argv[1]).netloc, timeout=30)
headers = {"content-type": "application/json"}
connection.request("POST", "/predictions", sys.stdin.buffer.read(), headers)
print(len(connection.getresponse().read()))
"""


async def test_webhook_is_sent_until_it_is_taken(tmp_path: Path) -> None:
    """The last event is tried again when its receiver is ill, comes once more only, and after all others."""
    with worker(tmp_path, *PLAY, "--webhooks") as running:
        async with running.client() as client, receiver(503, 429) as (url, events):
            body = play("abc", seconds=2, loud=True, times=1_000_000) | {"webhook": url}
            await client.post("/predictions", json=body, headers={"prefer": "respond-async"})
            await until(lambda: [event["status"] for event in events].count("succeeded") == 3)
            await asyncio.sleep(0.5)

    *before, first, second, third = events
    assert {event["status"] for event in before} == {"processing"}
    assert all("output" not in event for event in before)
    assert "s to go" in before[-1]["logs"]
    assert first == second == third
    assert from_data_uri(third["output"]) == b"abc" * 1_000_000


async def test_drain_waits_for_the_webhook(tmp_path: Path) -> None:
    """A worker that is told to stop finishes an async prediction and tells of it before it exits."""
    with worker(tmp_path, *PLAY, "--webhooks") as running:
        async with running.client() as client, receiver(503) as (url, events):
            body = play(seconds=0.5) | {"webhook": url, "webhook_events_filter": ["completed"]}
            await client.post("/predictions", json=body, headers={"prefer": "respond-async"})
            running.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(running.process.wait, 10)

    assert code == 0
    assert [event["status"] for event in events] == ["succeeded", "succeeded"]


async def test_interrupt_drains(tmp_path: Path) -> None:
    """Ctrl-C lets what runs finish, too."""
    with worker(tmp_path, *PLAY) as running:
        async with running.client() as client:
            held = asyncio.create_task(client.post("/predictions", json=play(seconds=1)))
            await until(lambda: _taken(client, 1))
            running.process.send_signal(signal.SIGINT)
            assert (await held).json()["status"] == "succeeded"
        assert running.process.wait(5) == 0


@pytest.mark.parametrize(("grace", "signals"), [("0.3", 1), ("30", 2)])
async def test_grace_ends(tmp_path: Path, grace: str, signals: int) -> None:
    """When the grace is over, or the worker is told twice, what runs is cancelled and still answered."""
    with worker(tmp_path, *PLAY, f"--grace={grace}") as running:
        async with running.client() as client:
            held = asyncio.create_task(client.post("/predictions", json=play(seconds=20)))
            await until(lambda: _taken(client, 1))
            for _ in range(signals):
                running.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.05)
            assert (await held).json()["status"] == "canceled"
        assert running.process.wait(5) == 0


async def test_a_run_that_does_not_end(tmp_path: Path) -> None:
    """An engine that does not hear that it is cancelled keeps its slot, and cannot keep the process."""
    with worker(tmp_path, "--engine=play_engines:Deaf", "--slots=1", "--grace=0") as running:
        async with running.client() as client:
            held = asyncio.create_task(client.put("/predictions/deaf", json=play(seconds=30)))
            await until(lambda: busy(client))
            assert (await client.post("/predictions/deaf/cancel")).status_code == 200
            await asyncio.sleep(0.3)
            assert await status(client) == "BUSY"
            held.cancel()
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 12) == 1
    assert "did not stop" in running.lines[-1]


async def test_setup_failed(tmp_path: Path) -> None:
    """A worker whose engine cannot be loaded stays to tell why, and takes no work."""
    with worker(tmp_path, "--engine=play_engines:Unloadable", ready="SETUP_FAILED") as running:
        async with running.client() as client:
            setup = (await client.get("/health-check")).json()["setup"]
            answer = await client.post("/predictions", json=play())

    assert setup["status"] == "failed"
    assert "the weights are not there" in setup["logs"]
    assert (answer.status_code, answer.json()["status"]) == (503, "failed")
    # One line each, with the traceback.
    assert all(line.startswith("worker: ") for line in running.lines)
    assert any("Traceback" in line and "the weights are not there" in line for line in running.lines)


async def test_broken_engine(tmp_path: Path) -> None:
    """An engine that says it is broken makes its worker DEFUNCT: the run fails, and no more is taken."""
    with worker(tmp_path, *PLAY) as running:
        async with running.client() as client:
            failed = await client.post("/predictions", json=play("break"))
            said = await status(client)
            refused = await client.post("/predictions", json=play())

    assert failed.json()["error"] == "asked to break"
    assert said == "DEFUNCT"
    assert refused.status_code == 503


def test_told_to_stop_while_starting(tmp_path: Path) -> None:
    """A worker that still loads its engine ends at once."""
    with worker(tmp_path, "--engine=play_engines:NeverLoads", ready="STARTING") as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(5) == 0


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "providers.worker", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=20, check=False)


def test_port(tmp_path: Path) -> None:
    """A worker listens where it is told, and a second one cannot: it says so and exits with 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        second = command("--port", port)
    argv = [sys.executable, "-m", "providers.worker", "--port", port]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, stderr=log, env=ENVIRONMENT)
    with ended(process):
        await_status(f"http://127.0.0.1:{port}", "READY")

    assert command("--fd=99").returncode == 1
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr
    assert f"lanczos-bp is listening on 127.0.0.1 port {port}" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--engine=clarity"], "lanczos-bp"),
        (["--engine=nowhere:Engine"], "nowhere"),
        (["--engine=play_engines:Nothing"], "Nothing"),
        (["--slots=0"], "--slots"),
        (["--fd=-1"], "--fd"),
        (["--port=65536"], "--port"),
        (["--grace=nan"], "--grace"),
    ],
)
def test_bad_arguments(arguments: list[str], told: str) -> None:
    """A command line that cannot be used ends with 2, and names what is wrong."""
    ended = command(*arguments)

    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.timing
def test_start_is_fast(tmp_path: Path) -> None:
    """From the start of the process until it is ready it is well under a second."""
    began = time.monotonic()
    with worker(tmp_path):
        taken = time.monotonic() - began

    print(f"ready after {taken:.2f} s")
    assert taken < 3  # 0.3 s on a quiet machine; tests share theirs


def test_the_gateway_is_not_imported() -> None:
    """A worker's process has nothing of the gateway in it, nor what only the gateway needs."""
    code = "import sys, providers.worker.main, providers.worker.engines.lanczos_bp; print(*sys.modules)"
    argv = [sys.executable, "-c", code]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout.split()

    assert "starlette.applications" in loaded
    assert not {"gateway", "pydantic", "httpx", "providers.base"} & set(loaded)


async def test_free_after_all(client: httpx.AsyncClient) -> None:
    """After all of the above no slot is lost."""
    await until(lambda: free(client))
    assert await concurrency(client) == (0, 2)
