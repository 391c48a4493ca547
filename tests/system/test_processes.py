"""Starting, stopping, several processes, keys, and a worker that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import Omit, OpenAI
from openai.types import ImagesResponse

from tests.service.clients.test_python_errors import check
from tests.support.keys import api_key
from tests.support.photo import flat, picture
from tests.support.running import COMMAND, STOP_S, Serve, Served, clean_environ, processes, serving, until

PNG = flat(20, 10)
FIRST, SECOND, THIRD = (api_key(word) for word in ("first", "second", "third"))
KEYS = f"{FIRST},{SECOND}"


@pytest.fixture(scope="module")
def two(serve: Serve) -> Served:
    """A gateway of two processes."""
    return serve("--workers", "2")


@pytest.fixture(scope="module")
def locked(serve: Serve) -> Served:
    """A gateway that asks for a key."""
    return serve(DARKROOM_API_KEYS=KEYS)


def call(served: Served, headers: dict[str, Any] | None = None) -> ImagesResponse:
    """One small call over a connection of its own."""
    with OpenAI(base_url=served.base_url, api_key="none") as client:
        return client.images.edit(image=PNG, prompt="", model="lanczos-bp", extra_headers=headers)


def test_two_processes(two: Served) -> None:
    """Both serve, and /metrics is the sum over both, whichever of them is asked."""
    calls, route = 40, {"route": "/openai/v1/images/edits"}

    def counted() -> list[float]:
        return [
            two.metric("darkroom_requests_total", **route, code="200", method="POST"),
            two.metric("darkroom_request_seconds_count", **route),
            two.metric("darkroom_images_total", model="lanczos-bp", provider="local", format="png"),
            two.metric("darkroom_attempts_total", provider="local", outcome="ok"),
            two.metric("darkroom_image_bytes_in_total"),
        ]

    before: list[float] = []

    def at_rest() -> bool:
        last, before[:] = list(before), counted()
        return before == last

    # A request is counted when its last byte is out, which is a moment after its client has it.
    until(at_rest, "the calls of other tests are counted")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: call(two), range(calls)))

    assert all(picture(answer).size == (40, 20) for answer in answers)
    until(lambda: two.metric("darkroom_request_seconds_count", **route) >= before[1] + calls, "every call is counted")
    for _ in range(4):
        assert [now - then for now, then in zip(counted(), before, strict=True)] == [*[calls] * 4, calls * len(PNG)]
        assert two.metric("darkroom_jobs_in_progress") == 0


def test_each_serves(two: Served) -> None:
    """Each of the two processes serves by itself while the other is held, and one worker serves both."""
    gateways = [line.pid for line in two.descendants() if "spawn_main" in line.command]
    assert len(gateways) == 2
    for held in gateways:
        # At rest: one that is held in the middle of a write keeps the other from writing, until it is given up.
        time.sleep(0.5)
        os.kill(held, signal.SIGSTOP)
        try:
            assert picture(call(two)).size == (40, 20)
        finally:
            os.kill(held, signal.SIGCONT)
    assert len(two.workers()) == 1


def test_a_picture_of_one_process_is_served_by_both(two: Served) -> None:
    """An address holds whichever process is asked for it."""
    response = call(two)

    assert response.data
    codes = {httpx.get(str(response.data[0].url)).status_code for _ in range(16)}
    assert codes == {200}


def shown(headers: dict[str, Any]) -> str:
    """An id for a test that is the same in every process."""
    return str({name: "omitted" if isinstance(value, Omit) else value for name, value in headers.items()})


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {FIRST}"},
        {"Authorization": f"bearer {SECOND}"},
        {"Authorization": f"BEARER   {SECOND}"},
        {"Authorization": Omit(), "api-key": FIRST},
        {"Authorization": Omit(), "API-Key": SECOND},
    ],
    ids=shown,
)
def test_keys(locked: Served, headers: dict[str, Any]) -> None:
    """Each key opens, as a bearer in any case or as `api-key`."""
    assert picture(call(locked, headers)).size == (40, 20)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {FIRST[:-1]}"},
        {"Authorization": f"Bearer {KEYS}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {FIRST}"},
        {"Authorization": Omit()},
        {"Authorization": Omit(), "api-key": THIRD},
    ],
    ids=shown,
)
def test_wrong_keys(locked: Served, headers: dict[str, Any]) -> None:
    """Any other key, and none, is AuthenticationError."""
    with pytest.raises(openai.AuthenticationError) as caught:
        call(locked, headers)

    check(caught.value, 401, "invalid_api_key", None)
    assert caught.value.response.headers["www-authenticate"] == "Bearer"


def test_with_keys_other_hosts_may_call(locked: Served) -> None:
    """With a key the name under which the server was called does not matter, and results are addressed with it."""
    response = call(locked, {"Authorization": f"Bearer {FIRST}", "Host": "pictures.example:8443"})

    assert response.data
    assert str(response.data[0].url).startswith("http://pictures.example:8443/files/")


def test_what_needs_no_key(locked: Served) -> None:
    """Probes and results are open: a probe has no key, and a result's name is its secret."""
    response = call(locked, {"Authorization": f"Bearer {SECOND}"})

    assert response.data
    assert httpx.get(str(response.data[0].url)).status_code == 200
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/v1/models", 401)):
        assert httpx.get(f"{locked.root}{path}").status_code == status, path


def test_keys_stay_out_of_the_log(locked: Served) -> None:
    """Neither the keys nor wrong ones nor prompts are in the log, and each request is, under its id."""
    with OpenAI(base_url=locked.base_url, api_key=FIRST) as client:
        response = client.images.edit(image=PNG, prompt="a very private prompt", model="lanczos-bp")

    request_id = str(response._request_id)
    # The line is written when the answer is out, which is a moment after its client has it.
    until(lambda: request_id in locked.log.read_text(), "the request is in the log")
    log = locked.log.read_text()
    for secret in (*KEYS.split(","), THIRD, "a very private prompt", "iVBOR"):
        assert secret not in log


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_only_this_machine(tmp_path: Path, host: str) -> None:
    """Without keys no other address is listened on: the message says why and what to do, the status is 2."""
    ran = subprocess.run(
        [*COMMAND, "--host", host, "--port", "1"], cwd=tmp_path, env=clean_environ(), capture_output=True, text=True
    )

    assert ran.returncode == 2
    assert host in ran.stderr
    assert "DARKROOM_API_KEYS" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_worker_is_restarted(serve: Serve) -> None:
    """When the embedded worker is killed another one takes its place, and calls work again."""
    served = serve()
    call(served)
    [worker] = served.workers()
    os.kill(worker.pid, signal.SIGKILL)

    # Without the SDK's own retries: the job waits for the next worker.
    with OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
        response = client.images.edit(image=PNG, prompt="", model="lanczos-bp")

    assert picture(response).size == (40, 20)
    [another] = served.workers()
    assert another.pid != worker.pid


def test_a_worker_dies_at_work(serve: Serve) -> None:
    """A worker that dies over a job costs the caller nothing but time: the job is done again by the next one."""
    served = serve()
    [worker] = served.workers()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(_slow_call, served)
        until(lambda: served.metric("darkroom_jobs_in_progress") == 1, "the call has begun")
        os.kill(worker.pid, signal.SIGKILL)
        assert slow.result().size == "3200x3200"
    assert [line.pid for line in served.workers()] != [worker.pid]


def test_cold_start(tmp_path: Path) -> None:
    """From nothing to the first enlarged picture it is not long; the seconds are in the output."""
    with serving(tmp_path, command=COMMAND) as served:
        assert picture(call(served)).size == (40, 20)
        print(f"cold start: {served.seconds:.2f} s to the first answer of /readyz")
        assert served.seconds < 20


def test_work_in_progress_is_finished(tmp_path: Path) -> None:
    """SIGTERM ends the server after the calls that it has taken, not under them."""
    with serving(tmp_path) as served, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(_slow_call, served)
        until(lambda: served.metric("darkroom_jobs_in_progress") == 1, "the call has begun")
        workers = {worker.pid for worker in served.workers()}
        served.process.send_signal(signal.SIGTERM)
        assert slow.result().size == "3200x3200"
        assert served.process.wait(STOP_S) == 0
        assert workers
        assert not workers & {line.pid for line in processes() if line.state[0] != "Z"}


def _slow_call(served: Served) -> ImagesResponse:
    with OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
        return client.images.edit(
            image=flat(200, 200), prompt="", model="lanczos-bp", output_format="webp", size="3200x3200"
        )
