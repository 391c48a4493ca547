"""The engines in a real worker process, over Cog's HTTP API."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.engines.calls import encoded, photo
from tests.support.workers import Running, data_uri, from_data_uri, receiver, until, worker

pytestmark = pytest.mark.early

LARGE = data_uri(encoded(photo(300, 200).resize((2000, 1500))))


@pytest.fixture(scope="module")
def config(tiny: Path) -> Path:
    """A user's config file."""
    file = tiny / "worker.toml"
    file.write_text(
        f"""
        [worker]
        engine = "tile-diffusion"
        [tile-diffusion]
        base = "{tiny / "base"}"
        controlnet = "{tiny / "controlnet"}"
        devices = ["cpu"]
        [esrgan]
        model = "{tiny / "compact-x4.safetensors"}"
        devices = ["cpu"]
        """
    )
    return file


@pytest.fixture(scope="module")
def running(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with worker(tmp_path_factory.mktemp("worker"), f"--config={config}", "--webhooks", patience=90) as made:
        yield made


def asked(**inputs: Any) -> dict[str, Any]:
    small = {"tiling_width": 16, "tiling_height": 16, "num_inference_steps": 4, "scheduler": "Euler", "seed": 7}
    return {"input": {"image": data_uri(encoded(photo(64, 48))), **small, **inputs}}


async def test_a_picture(running: Running) -> None:
    """Ready when it is warm; one prediction at a time; the answer names engine and weights."""
    async with running.client() as client:
        health = (await client.get("/health-check")).json()
        assert (health["status"], health["concurrency"]["max"]) == ("READY", 1)
        assert health["version"]["model"] == "tile-diffusion (base, controlnet)"
        answer = (await client.post("/predictions", json=asked())).json()

    assert answer["status"] == "succeeded"
    assert answer["model"] == "tile-diffusion (base, controlnet)"
    assert "progress: 99 % (pass 1 of 1, step 2 of 2)" in answer["logs"]
    assert Image.open(io.BytesIO(from_data_uri(answer["output"]))).size == (128, 96)


async def test_its_document(running: Running) -> None:
    """What it takes is told, and nothing that it does not do."""
    async with running.client() as client:
        document = (await client.get("/openapi.json")).json()
    properties = document["components"]["schemas"]["Input"]["properties"]

    assert document["info"]["title"] == "tile-diffusion"
    assert properties["handfix"]["enum"] == ["disabled"]
    assert "DPM++ 3M SDE Karras" in properties["scheduler"]["enum"]
    assert not {"sd_model", "lora_links", "custom_sd_model", "pattern"} & properties.keys()


@pytest.mark.parametrize(
    ("inputs", "field", "said"),
    [
        ({"handfix": "hands_only"}, "handfix", "'hands_only' is not one of disabled"),
        ({"scheduler": "Restart"}, "scheduler", "'Restart' is not one of DPM++ 3M SDE Karras, "),
        ({"creativity": 1.5}, "creativity", "1.5 is greater than the maximum of 1"),
        ({"tiling_width": 40}, "tiling_width", "40 is no multiple of 16"),
        ({"scale_factor": 16, "image": LARGE}, "scale_factor", "pixels are more than"),
    ],
)  # fmt: skip
async def test_refused(running: Running, inputs: dict[str, Any], field: str, said: str) -> None:
    """By the input's name."""
    async with running.client() as client:
        answer = await client.post("/predictions", json=asked(**inputs))

    assert answer.status_code == 422
    [detail] = answer.json()["detail"]
    assert detail["loc"][-1] == field
    assert said in detail["msg"]


async def test_progress_and_cancel(running: Running) -> None:
    """A webhook tells of the steps as they are done; a cancelled run gives its slot back within one."""
    async with receiver() as (hook, events), running.client() as client:
        body = asked(num_inference_steps=100, creativity=1, scale_factor=4)
        headers = {"Prefer": "respond-async"}
        more = {"webhook": hook, "webhook_events_filter": ["logs", "completed"]}
        sent = await client.put("/predictions/long", json=body | more, headers=headers)
        assert sent.status_code == 202
        await until(lambda: any("progress: " in event.get("logs", "") for event in events))
        assert (await client.post("/predictions/long/cancel")).status_code == 200
        await until(lambda: events[-1]["status"] == "canceled", 30)

        async def free() -> bool:
            return bool((await client.get("/health-check")).json()["status"] == "READY")

        await until(free)


async def test_metrics(running: Running) -> None:
    """What was done, how fast for each megapixel, and by how many tiles at once."""
    async with running.client() as client:
        await client.post("/predictions", json=asked())
        await client.post("/predictions", json=asked(image=data_uri(b"no picture")))
        page = (await client.get("/metrics")).text
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }

    assert found["darkroom_worker_predictions_total", ("status", "succeeded")] >= 1
    assert found["darkroom_worker_predictions_total", ("status", "failed")] >= 1
    assert found["darkroom_worker_seconds_per_megapixel_count",] >= 1
    assert found["darkroom_worker_seconds_per_megapixel_sum",] > 0
    assert found["darkroom_worker_tile_batch", ("device", "cpu")] == 8
    assert found["darkroom_worker_slots", ("state", "all")] == 1
    weights = ("engine", "tile-diffusion"), ("model", "tile-diffusion (base, controlnet)"), ("version", "1")
    assert found["darkroom_worker_info", *weights] == 1


async def test_esrgan(config: Path, tmp_path: Path) -> None:
    """The other engine, by the command line."""
    with worker(tmp_path, f"--config={config}", "--engine=esrgan", patience=90) as running:
        async with running.client() as client:
            answer = (
                await client.post("/predictions", json={"input": {"image": data_uri(encoded(photo(40, 30)))}})
            ).json()

    assert answer["model"] == "esrgan (compact-x4.safetensors)"
    assert Image.open(io.BytesIO(from_data_uri(answer["output"]))).size == (160, 120)


def start(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "worker", "--port=0", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environ}, check=False
    )  # fmt: skip


def test_without_weights(tmp_path: Path) -> None:
    """It does not start, and says in a line what to do."""
    for engine, said in (("tile-diffusion", "weights fetch --engine tile-diffusion"), ("esrgan", "put them there")):
        done = start(f"--engine={engine}", DARKROOM_DATA=str(tmp_path))
        assert done.returncode == 2
        [line] = [line for line in done.stderr.splitlines() if "ERROR" in line]
        assert said in line


def test_a_device_that_is_not_there(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(config.read_text().replace('["cpu"]', '["cuda:9"]'))
    done = start(f"--config={file}")

    assert done.returncode == 2
    assert "devices: 'cuda:9' cannot be used" in done.stderr


def test_weights_that_cannot_be_loaded(config: Path, tiny: Path, tmp_path: Path) -> None:
    """What shows only as it is loaded is told by the health check, as Cog does."""
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "net.safetensors"
    parts = load_file(tiny / "compact-x4.safetensors")
    save_file({name: value for name, value in parts.items() if not name.startswith("body.0")}, broken)
    file = tmp_path / "worker.toml"
    file.write_text(config.read_text().replace(str(tiny / "compact-x4.safetensors"), str(broken)))
    with worker(tmp_path, f"--config={file}", "--engine=esrgan", ready="SETUP_FAILED", patience=90) as running:
        health = httpx.get(f"{running.url}/health-check").json()
        assert "net.safetensors is no network that spandrel knows" in health["setup"]["logs"]
