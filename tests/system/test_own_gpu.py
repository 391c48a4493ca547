"""A card of one's own, from weights in a folder to a picture by the OpenAI SDK: with tiny networks, on a CPU."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from tests.support import running
from tests.support.paths import COFFEE, ROOT
from tests.support.photo import opened
from tests.support.ports import free_port
from tests.support.running import Serve, Served
from tests.support.workers import Running, worker

# The first test has the start of both workers in its time.
pytestmark = [pytest.mark.early, pytest.mark.timeout(300)]

if not importlib.util.find_spec("torch"):
    pytest.skip("torch is not installed", allow_module_level=True)

README = ROOT / "README.md"
SMALL = {"tiling_width": 32, "tiling_height": 32, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    make = [sys.executable, "-m", "tests.engines.networks", str(folder)]
    subprocess.run(make, check=True, timeout=100, cwd=README.parent)
    (folder / "worker.toml").write_text(
        f"""
        [worker]
        weights = "{folder}"
        [tile-diffusion]
        base = "./base"
        controlnet = "./controlnet"
        [esrgan]
        model = "./compact-x2.safetensors"
        """
    )
    return folder


@pytest.fixture(scope="module")
def workers(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    """One worker with each engine."""
    config = f"--config={weights / 'worker.toml'}"
    with (
        worker(tmp_path_factory.mktemp("one"), config, "--engine=tile-diffusion", "--webhooks", patience=90) as one,
        worker(tmp_path_factory.mktemp("two"), config, "--engine=esrgan", patience=90) as two,
    ):
        yield [one, two]


@pytest.fixture(scope="module")
def gateway(workers: list[Running], serve: Serve) -> Served:
    return serve(DARKROOM_PROVIDERS__LOCAL__WORKERS=json.dumps([one.url for one in workers]))


@pytest.fixture(scope="module")
def sdk(gateway: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as made:
        yield made


def small(file: Path | io.BytesIO) -> None:
    """Save a piece of the photograph of 96 x 64 pixels."""
    cropped(file, 96, 64)


def cropped(file: Path | io.BytesIO, width: int, height: int) -> None:
    """Save a piece of the photograph."""
    with opened(COFFEE.read_bytes()) as whole:
        whole.crop((200, 120, 200 + width, 120 + height)).save(file, "PNG")


def edit(sdk: OpenAI, model: str, **extra: Any) -> Any:
    """A small picture from the middle of the photograph."""
    buffer = io.BytesIO()
    small(buffer)
    return sdk.images.edit(
        model=model,
        image=("coffee.png", buffer.getvalue(), "image/png"),
        prompt="a cup of coffee",
        response_format="b64_json",
        extra_body=extra,
    )


def test_clarity_at_home(sdk: OpenAI) -> None:
    """clarity-upscaler is answered by the card, not degraded, and it is said by what."""
    answer = edit(sdk, "clarity-upscaler", seed=5, **SMALL)
    metadata = answer.model_extra["metadata"]

    assert opened(base64.b64decode(answer.data[0].b64_json)).size == (192, 128)
    assert metadata["executed_model"] == "tile-diffusion (base, controlnet)"
    assert (metadata["provider"], metadata["cost"]) == ("local", 0)
    assert metadata["attempts"][0]["model"] == "tile-diffusion (base, controlnet)"
    assert metadata["warnings"] == []
    again = edit(sdk, "clarity-upscaler", seed=5, **SMALL)
    assert again.data[0].b64_json == answer.data[0].b64_json


def test_what_is_taken_out_of_a_prompt_is_told(sdk: OpenAI) -> None:
    """What the engine does otherwise than asked stands among the warnings."""
    answer = edit(sdk, "clarity-upscaler", negative_prompt="blur <lora:more_details:1>", **SMALL)

    assert answer.model_extra["metadata"]["warnings"] == [
        "LoRAs are not for prompts to choose: more_details was taken out. Always on: none."
    ]


def test_not_degraded(sdk: OpenAI) -> None:
    """No header says that it falls short, and the one that names the model names the weights."""
    raw = sdk.images.with_raw_response.edit(
        model="clarity-upscaler", image=COFFEE, prompt="x", extra_body={"scale_factor": 1, "creativity": 0}
    )

    assert "x-darkroom-degraded" not in raw.headers
    assert raw.headers["x-darkroom-model"] == "tile-diffusion (base, controlnet)"


def test_what_it_does_not_do(sdk: OpenAI) -> None:
    """A parameter of Clarity's that this engine has not is refused by name, before anything is run."""
    for extra, said in (({"handfix": "hands_only"}, "handfix"), ({"scheduler": "Restart"}, "scheduler")):
        with pytest.raises(BadRequestError) as caught:
            edit(sdk, "clarity-upscaler", **extra)
        assert caught.value.param == said
        assert "tile-diffusion" in caught.value.message or "local" in caught.value.message


def test_a_mistake_that_only_the_engine_sees(sdk: OpenAI) -> None:
    """It comes back as the caller's mistake, with the name of the field; the engine's own words are in the log."""
    with pytest.raises(BadRequestError, match="HTTP 422 \\(about 'tiling_width'\\)"):
        edit(sdk, "clarity-upscaler", tiling_width=40)


def test_real_esrgan_at_home(sdk: OpenAI) -> None:
    """The other engine serves the other model."""
    answer = edit(sdk, "real-esrgan", scale_factor=3)

    assert opened(base64.b64decode(answer.data[0].b64_json)).size == (288, 192)
    assert answer.model_extra["metadata"]["executed_model"] == "esrgan (compact-x2.safetensors)"


def test_progress_of_a_job(workers: list[Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows a job is told of the steps: the worker tells the gateway, at its public address."""
    port = free_port()
    monkeypatch.setattr(running, "free_port", lambda: port)
    environ = {
        "DARKROOM_PROVIDERS__LOCAL__WORKERS": json.dumps([workers[0].url]),
        "DARKROOM_GATEWAY__PUBLIC_URL": f"http://127.0.0.1:{port}",
    }
    shares: list[float] = []
    # Some dozens of tiles: it takes seconds.
    cropped(picture := io.BytesIO(), 240, 160)
    with (
        running.serving(tmp_path, (), environ) as gateway,
        httpx.Client(base_url=gateway.base_url, timeout=100) as http,
    ):
        fields = {"model": "clarity-upscaler", "prompt": "x"}
        fields |= {"scale_factor": "1.2", "creativity": "1", "num_inference_steps": "12", "seed": "1"}
        started = http.post(
            "/images/edits",
            data=fields | {"tiling_width": "32", "tiling_height": "32"},
            files={"image": picture.getvalue()},
            headers={"Prefer": "respond-async"},
        )
        assert started.status_code == 202, started.text
        stream = {"accept": "text/event-stream"}
        with http.stream("GET", f"/images/jobs/{started.json()['id']}", headers=stream) as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    body = json.loads(line.removeprefix("data: "))
                    if body.get("progress"):
                        shares.append(body["progress"])

        kept = http.get(f"/images/jobs/{started.json()['id']}").json()
        written = httpx.get(f"{gateway.root}/v1/requests/{started.json()['id']}").json()

    assert kept["result"]["metadata"]["executed_model"] == "tile-diffusion (base, controlnet)"
    # And in the ledger, for whoever asks next year.
    assert [attempt["model"] for attempt in written["attempts"]] == ["tile-diffusion (base, controlnet)"]
    assert len(set(shares)) > 3
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_readme(weights: Path, tmp_path: Path) -> None:
    """From weights in a folder to the picture, as the README has it: ten lines at most, and they work."""
    text = README.read_text().partition("\n### Your own GPU\n")[2]
    [block] = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[:1]
    lines = block.splitlines()
    assert len(lines) <= 10
    first = next(number for number, line in enumerate(lines) if "worker --engine" in line)
    assert all("pip install" in line or "venv" in line or "weights fetch" in line for line in lines[:first])

    worker_port, port = free_port(), free_port()
    script = "\n".join(lines[first:])
    for old, new in (
        ("worker --engine", f"worker --port {worker_port} --engine"),
        ("serve &", f"serve --port {port} &"),
        (":5000", f":{worker_port}"),
        (":8000", f":{port}"),
        (".venv/bin/darkroom", f"{shlex.quote(sys.executable)} -m gateway"),
    ):
        assert old in script
        script = script.replace(old, new)
    (tmp_path / "tests" / "data").mkdir(parents=True)
    small(tmp_path / "tests" / "data" / "coffee.png")
    environ = {
        **os.environ,
        "DARKROOM_WORKER_CONFIG": str(weights / "worker.toml"),
        "DARKROOM_DATA": str(tmp_path),
        "PYTHONPATH": str(README.parent),
    }
    answer = tmp_path / "answer.json"
    with (tmp_path / "log").open("wb") as log, answer.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, env=environ, stdout=output, stderr=log, start_new_session=True
        )
    try:
        # The last line is the call; the servers that were started before it go on.
        assert process.wait(110) == 0, (tmp_path / "log").read_text()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
    said = json.loads(answer.read_text())

    assert said["metadata"]["executed_model"] == "tile-diffusion (base, controlnet)"
    assert said["size"] == "192x128"
    assert said["metadata"]["warnings"] == []
