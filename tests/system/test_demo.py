"""The demo as people run it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.running import clean_environ, until


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, str, Path]]:
    """A running demo with its gateway's and its switches' addresses, and what it printed."""
    root = f"http://127.0.0.1:{(port := free_port())}"
    log = tmp_path / "demo.log"
    # The providers share a process, which may take seconds for an answer on a busy machine.
    environ = clean_environ(DARKROOM_GATEWAY__SUBMIT_TIMEOUT_S="60")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.demo", "--port", str(port), "--seconds", "0.2"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environ,
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or _answers(root), f"the demo serves\n{log.read_text()}")
        found = re.search(r"POST (http://127\.0\.0\.1:\d+)/", log.read_text())
        assert found, log.read_text()
        yield process, root, found[1], log
    finally:
        process.kill()
        process.wait()


def _answers(root: str) -> bool:
    try:
        return httpx.get(f"{root}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_the_demo(demo: tuple[subprocess.Popen[bytes], str, str, Path], photo: bytes) -> None:
    """A call goes to the cheapest, with that one switched off to the next, and Ctrl-C ends it well."""
    process, root, control, log = demo

    def call() -> list[str]:
        answer = httpx.post(
            f"{root}/openai/v1/images/edits",
            data={"model": "clarity-upscaler", "prompt": "a cup", "size": "1024x1024", "response_format": "url"},
            files={"image": photo},
            timeout=60,
        )
        assert answer.status_code == 200, f"{answer.text}\n{log.read_text()}"
        return [f"{attempt['provider']} {attempt['outcome']}" for attempt in answer.json()["metadata"]["attempts"]]

    assert call() == ["replicate ok"]
    assert httpx.post(f"{control}/replicate/down").json()["replicate"]["is"] == "down"
    assert call() == ["replicate failed", "segmind ok"]
    told = httpx.get(f"{control}/").json()
    assert {name: state["billed"] for name, state in told.items()} == {
        "replicate": 1, "fal": 0, "segmind": 1, "apiframe": 0,
    }  # fmt: skip
    assert httpx.post(f"{control}/replicate/sideways").status_code == 404
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
