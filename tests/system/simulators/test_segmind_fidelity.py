"""Segmind's own Python client against our Segmind: what it understands, our simulator says as Segmind does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import segmind  # type: ignore[import-untyped]
from segmind.exceptions import SegmindError  # type: ignore[import-untyped]
from segmind.files import Files  # type: ignore[import-untyped]

from tests.simulators.common import Fault, size, tiny
from tests.simulators.segmind import KEY, Segmind


@pytest.fixture
def simulated() -> Iterator[Segmind]:
    with Segmind().running() as sim:
        yield sim


@pytest.fixture
def official(simulated: Segmind, monkeypatch: pytest.MonkeyPatch) -> Iterator[segmind.SegmindClient]:
    """The official client, told of no other host than ours."""
    monkeypatch.setattr(Files, "STORAGE_BASE_URL", simulated.upload_url)
    client = segmind.SegmindClient(api_key=KEY, base_url=f"{simulated.url}/v1")
    yield client
    client._client.close()


@pytest.fixture
def address(official: segmind.SegmindClient, tmp_path: Path) -> str:
    """A picture of 24 x 16 in the storage."""
    path = tmp_path / "a.png"
    path.write_bytes(tiny())
    return str(official.files.upload(path)["file_urls"][0])


def test_it_uploads_and_the_address_holds_the_picture(address: str) -> None:
    """Storage takes the client's upload and delivers it without a key."""
    assert httpx.get(address).content == tiny()


def test_run_submits_polls_and_reads_the_result(
    official: segmind.SegmindClient, simulated: Segmind, address: str
) -> None:
    """The client follows the addresses of the submit's answer to a result whose output is the enlarged picture."""
    result = official.run("clarity-upscaler", image=address, scale_factor=2, seed=7)
    assert result["status"] == "COMPLETED"
    assert result["metrics"]["cost"] == 0.0193
    assert result["seed"] == "7"
    assert size(httpx.get(result["output"]).content) == (48, 32)
    assert simulated.books.billed == 1


def test_a_job_that_waits_is_waited_for(official: segmind.SegmindClient, simulated: Segmind, address: str) -> None:
    """QUEUED and PROCESSING are states that the client knows to go on."""
    simulated.queue_s = simulated.run_s = 0.05
    job = official.submit_async("clarity-upscaler", image=address)
    assert job.status()["status"] in {"QUEUED", "PROCESSING"}
    assert job.wait(timeout=10, interval=0.02)["status"] == "COMPLETED"


def test_a_failed_job_is_inference_failed(official: segmind.SegmindClient, simulated: Segmind, address: str) -> None:
    """The 422 with its body is what the client takes for a failed job, with the reason, and nothing is billed."""
    simulated.faults.script("job", Fault(kind="job", word="FAILED"))
    with pytest.raises(segmind.InferenceFailed) as caught:
        official.run("clarity-upscaler", image=address)
    assert caught.value.detail == "CUDA out of memory"
    assert simulated.books.billed == 0


def test_run_sync_gives_the_bytes(official: segmind.SegmindClient, address: str) -> None:
    """v1 answers with the picture itself and tells cost and time in headers."""
    response = official.run_sync("clarity-upscaler", image=address, scale_factor=2)
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-cost"] == "0.0193"
    assert size(response.content) == (48, 32)


def test_what_is_left_out_is_what_segmind_leaves_out(
    official: segmind.SegmindClient, simulated: Segmind, address: str
) -> None:
    """Without a scale the picture stays as large as it is, and the seed is 1337: the traps of this provider."""
    result = official.run("clarity-upscaler", image=address)
    assert size(httpx.get(result["output"]).content) == (24, 16)
    assert result["seed"] == "1337"


@pytest.mark.parametrize(
    ("slug", "params", "status", "detail"),
    [
        ("clarity-upscaler", {}, 400, "image is required"),
        ("no-such-model", {"image": "x"}, 404, "Model not found"),
        ("clarity-upscaler", {"image": "x", "handfix": "feet"}, 406, "handfix must be one of"),
        ("esrgan", {"image": "x", "output_format": "jpg"}, 406, "output_format must be one of"),
    ],
)
def test_refusals_are_read_by_the_client(
    official: segmind.SegmindClient, slug: str, params: dict[str, str], status: int, detail: str
) -> None:
    """The error envelope is the one that the client looks into."""
    with pytest.raises(SegmindError) as caught:
        official.run(slug, **params)
    assert caught.value.status == status
    assert detail in str(caught.value.detail)


def test_a_wrong_key_and_an_empty_purse(official: segmind.SegmindClient, simulated: Segmind, address: str) -> None:
    """401 and the 406 that means credit, in Segmind's words."""
    simulated.credits = 0.001
    with pytest.raises(SegmindError, match="Insufficient credits"):
        official.run("clarity-upscaler", image=address)
    stranger = segmind.SegmindClient(api_key="SG_wrong", base_url=f"{simulated.url}/v1")
    with pytest.raises(SegmindError, match="API key is invalid") as caught:
        stranger.run("clarity-upscaler", image=address)
    stranger._client.close()
    assert caught.value.status == 401


def test_a_record_is_forgotten_after_an_hour(official: segmind.SegmindClient, simulated: Segmind, address: str) -> None:
    """Then its id is as unknown as any other."""
    job = official.submit_async("clarity-upscaler", image=address)
    simulated.later(3601)
    with pytest.raises(SegmindError, match="not found") as caught:
        job.result()
    assert caught.value.status == 404


def test_two_equal_submits_are_two_jobs(official: segmind.SegmindClient, simulated: Segmind, address: str) -> None:
    """There is no idempotency: what is posted twice is paid twice."""
    for _ in range(2):
        official.run("clarity-upscaler", image=address, seed=1)
    assert simulated.books.billed == 2


def test_a_wrong_verb_is_a_page(simulated: Segmind) -> None:
    """405 comes as HTML, which the client can make nothing of."""
    answer = httpx.get(f"{simulated.url}/v2/clarity-upscaler", headers={"x-api-key": KEY})
    assert answer.status_code == 405
    assert answer.headers["content-type"].startswith("text/html")


def test_a_wrong_content_type_comes_before_the_key(simulated: Segmind) -> None:
    """406, not 415, and before anything else is looked at."""
    answer = httpx.post(f"{simulated.url}/v2/clarity-upscaler", content=b"{}")
    assert (answer.status_code, "content type" in answer.json()["error"]) == (406, True)


def test_too_many_requests_tell_when_the_window_ends(simulated: Segmind) -> None:
    """429 has no retry-after, only the end of the window."""
    simulated.per_minute = 0
    answer = httpx.post(f"{simulated.url}/v2/clarity-upscaler", json={}, headers={"x-api-key": KEY})
    assert answer.status_code == 429
    assert "retry-after" not in answer.headers
    assert "x-rate-limit-reset-at-utc" in answer.headers


def test_the_delivery_host_refuses_keys(simulated: Segmind, address: str) -> None:
    """Whoever sends a key there is written down."""
    assert httpx.get(address, headers={"x-api-key": KEY}).status_code == 400
    assert len(simulated.strangers) == 1
