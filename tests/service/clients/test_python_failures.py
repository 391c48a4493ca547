"""What goes wrong behind the gateway or at its limits, as the Python SDK raises it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai import APIStatusError, OpenAI

from tests.service.clients.test_python_errors import check
from tests.support.fake_cog import FakeCog, after, answer, data_uri, hold
from tests.support.photo import coffee, flat
from tests.support.ports import dead_port
from tests.support.running import Serve, Served
from tests.support.scripted_cog import as_workers, container, enlarge

pytestmark = pytest.mark.system

PNG = flat(20, 10)


@pytest.fixture(scope="module")
def small(serve: Serve) -> Served:
    """A gateway with small limits and little patience."""
    return serve(
        DARKROOM_GATEWAY__MAX_UPLOAD_BYTES="50000",
        DARKROOM_GATEWAY__MAX_BODY_BYTES="200000",
        DARKROOM_GATEWAY__BODY_TIMEOUT_S="0.5",
    )


@pytest.fixture(scope="module")
def containers() -> Iterator[FakeCog]:
    with container() as made:
        yield made


@pytest.fixture
def cog(containers: FakeCog) -> Iterator[FakeCog]:
    """The container, well again after each test."""
    containers.jobs.clear()
    containers.cancelled.clear()
    yield containers
    containers.play = enlarge
    containers.plays.clear()


@pytest.fixture(scope="module")
def strained(containers: FakeCog, serve: Serve) -> Served:
    """A gateway with one container, a queue of one and two seconds for a request."""
    return serve(
        DARKROOM_PROVIDERS__LOCAL__WORKERS=as_workers(containers),
        DARKROOM_PROVIDERS__LOCAL__MAX_QUEUE="1",
        DARKROOM_GATEWAY__DEADLINE_S="2",
    )


@pytest.fixture
def gpu(strained: Served) -> Iterator[OpenAI]:
    """The SDK with its own retries, at the gateway with the container."""
    with OpenAI(base_url=strained.base_url, api_key="none") as client:
        yield client


@pytest.mark.parametrize("copies", [1, 3], ids=["file", "body"])
def test_too_large(small: Served, copies: int) -> None:
    """A file, and a body, that are over their limits are refused while they are read."""
    picture = coffee(300, 200)
    assert 50_000 < len(picture) < 200_000
    image: Any = picture if copies == 1 else [PNG[:8] + bytes(45_000)] * 5
    with OpenAI(base_url=small.base_url, api_key="none") as client, pytest.raises(APIStatusError) as caught:
        client.images.edit(image=image, prompt="")

    if copies == 1:
        check(caught.value, 413, "file_too_large", "image")
    else:
        check(caught.value, 413, "request_too_large", None)


def test_far_too_large(small: Served) -> None:
    """The SDK gets to read the answer even when it is still sending a body a hundred times too large."""
    with OpenAI(base_url=small.base_url, api_key="none") as client, pytest.raises(APIStatusError) as caught:
        client.images.edit(image=bytes(20_000_000), prompt="")

    check(caught.value, 413, "request_too_large", None)


def test_too_large_in_chunks(small: Served) -> None:
    """Without a Content-Length the limit holds all the same."""

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(20):
            yield bytes(10_000)

    response = httpx.post(
        f"{small.base_url}/images/edits",
        content=chunks(),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "file_too_large"


def test_slow_body(small: Served) -> None:
    """A body that does not arrive in time is a 408, which the SDKs repeat."""

    def chunks() -> Iterator[bytes]:
        yield b"--x\r\n"
        time.sleep(1.5)

    response = httpx.post(
        f"{small.base_url}/images/edits",
        content=chunks(),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )

    assert response.status_code == 408
    assert response.json()["error"]["code"] == "request_timeout"


def test_body_cut_short(small: Served) -> None:
    """A multipart body without its end is an error, not a form with fields missing."""
    response = httpx.post(
        f"{small.base_url}/images/edits",
        content=b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na',
        headers={"content-type": "multipart/form-data; boundary=x"},
    )

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "truncated_body"


def test_failed(gpu: OpenAI, cog: FakeCog) -> None:
    """A failed job is a 502 with its attempts, and the SDK does not buy it again."""
    cog.play = answer(200, {"status": "failed", "error": "CUDA out of memory"})
    with pytest.raises(openai.InternalServerError) as caught:
        gpu.images.edit(image=PNG, prompt="")

    check(caught.value, 502, "all_providers_failed", None)
    attempts = caught.value.response.json()["error"]["metadata"]["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["failed"]
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(cog.jobs) == 1


def test_not_the_picture(gpu: OpenAI, cog: FakeCog) -> None:
    """A result that is no picture, or a single pixel, is not handed on."""
    for output in ("data:image/png;base64,bm8gcGljdHVyZQ==", data_uri(flat(1, 1))):
        cog.play = answer(200, {"status": "succeeded", "output": output})
        with pytest.raises(openai.InternalServerError) as caught:
            gpu.images.edit(image=PNG, prompt="")
        check(caught.value, 502, "all_providers_failed", None)
        assert "undecodable" in caught.value.response.text


def test_another_size(gpu: OpenAI, cog: FakeCog) -> None:
    """A whole picture of another size than was asked for is paid for: it is delivered, and the caller is told."""
    cog.play = answer(200, {"status": "succeeded", "output": data_uri(flat(99, 99))})
    made = gpu.images.edit(image=PNG, prompt="")

    assert made.data
    assert "99x99" in " ".join(made.model_dump()["metadata"]["warnings"])


def test_refused_by_the_provider(gpu: OpenAI, cog: FakeCog) -> None:
    """What the container does not take is the caller's to mend: a 400 with the field that the container speaks of."""
    cog.play = answer(
        422, {"detail": [{"loc": ["body", "input", "dynamic"], "msg": "too small", "type": "value_error"}]}
    )
    with pytest.raises(openai.BadRequestError) as caught:
        gpu.images.edit(image=PNG, prompt="", extra_body={"dynamic": 1})

    assert caught.value.code
    assert "'dynamic'" in str(caught.value)
    assert "too small" not in caught.value.response.text
    assert len(cog.jobs) == 1


def test_failed_in_a_stream(gpu: OpenAI, cog: FakeCog) -> None:
    """Once a stream has begun an error is an event, and the SDK raises it with its code."""
    cog.play = answer(200, {"status": "failed", "error": "CUDA out of memory"})
    with gpu.images.edit(image=PNG, prompt="", stream=True) as stream, pytest.raises(openai.APIError) as caught:
        list(stream)

    assert caught.value.code == "all_providers_failed"
    assert caught.value.type == "server_error"
    assert caught.value.message == "No provider returned an image: local: the job failed."
    assert "CUDA" not in str(caught.value.body)


def test_some_fail(gpu: OpenAI, cog: FakeCog) -> None:
    """When one of two pictures fails the other is delivered, and the answer says that one is missing."""
    cog.plays = [answer(200, {"status": "failed", "error": "CUDA out of memory"})]
    response: Any = gpu.images.edit(image=PNG, prompt="", n=2)

    assert len(response.data) == 1
    assert response.metadata["partial"] is True
    assert sorted(attempt["outcome"] for attempt in response.metadata["attempts"]) == ["failed", "ok"]


def test_deadline(gpu: OpenAI, cog: FakeCog) -> None:
    """A picture that is not ready in time is a 504, its job is cancelled, and the SDK does not buy it again."""
    cog.play = hold
    with pytest.raises(openai.InternalServerError) as caught:
        gpu.images.edit(image=PNG, prompt="")

    check(caught.value, 504, "deadline_exceeded", None)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(cog.jobs) == 1
    assert cog.cancelled == cog.jobs


def test_at_capacity(strained: Served, cog: FakeCog) -> None:
    """When the queue is full a call is a 429 that says when to come back, and the others are served."""
    cog.play = _slowly

    def call(number: int) -> openai.RateLimitError | None:
        with OpenAI(base_url=strained.base_url, api_key="none", max_retries=0) as client:
            try:
                client.images.edit(image=PNG, prompt=str(number))
            except openai.RateLimitError as error:
                return error
            return None

    with ThreadPoolExecutor(5) as pool:
        refused = [error for error in pool.map(call, range(5)) if error]

    assert len(refused) == 3
    for error in refused:
        assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert int(error.response.headers["retry-after"]) > 0


def test_unreachable(serve: Serve) -> None:
    """A worker that nobody answers for is a 503 that may be repeated."""
    workers = f'["http://127.0.0.1:{dead_port()}"]'
    served = serve(ready=503, DARKROOM_PROVIDERS__LOCAL__WORKERS=workers, DARKROOM_GATEWAY__DEADLINE_S="5")
    with (
        OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.images.edit(image=PNG, prompt="", model="clarity-upscaler")

    check(caught.value, 503, "upstream_unavailable", None)
    assert "x-should-retry" not in caught.value.response.headers
    assert int(caught.value.response.headers["retry-after"]) > 0


async def _slowly(cog: FakeCog, job: str, given: dict[str, Any]) -> Any:
    await after(0.5)(cog, job, given)
    return await enlarge(cog, job, given)
