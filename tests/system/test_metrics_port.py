"""`metrics_port`: the metrics on a port of their own, from one process and from two."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.keys import api_key
from tests.support.ports import free_port
from tests.support.running import COMMAND, clean_environ, serving, until

KEYS = {"DARKROOM_API_KEYS": api_key("one"), "DARKROOM_ADMIN_KEY": api_key("admin")}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_metrics_are_there_and_nowhere_else(tmp_path: Path, workers: int) -> None:
    """Without a key on their port; beside the calls there is no such address, not even for the admin."""
    url = f"http://127.0.0.1:{(port := free_port())}/metrics"
    environ = {**KEYS, "DARKROOM_GATEWAY__METRICS_PORT": str(port)}
    with serving(tmp_path, ["--workers", str(workers)], environ) as served:
        admin = {"authorization": f"Bearer {api_key('admin')}"}
        for _ in range(8):
            httpx.get(f"{served.root}/v1/models", headers=admin).raise_for_status()
        beside = httpx.get(f"{served.root}/metrics", headers=admin)
        # A process writes what it counted before it answers; the sum is over all of them.
        counted = 'darkroom_requests_total{code="200",method="GET",route="/v1/models"} 8.0'
        until(lambda: counted in httpx.get(url).raise_for_status().text, "eight calls are counted")
        document = httpx.get(f"{served.root}/openapi.json", headers=admin).json()

    assert (beside.status_code, beside.json()["error"]["code"]) == (404, "unknown_url")
    assert "/metrics" not in document["paths"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """It is told as a mistake of the configuration, and nothing is left running."""
    with serving(tmp_path, environ={}) as served:
        taken = served.root.rpartition(":")[2]
        environ = clean_environ(
            DARKROOM_DATA=str(tmp_path / "other"),
            DARKROOM_GATEWAY__METRICS_PORT=taken,
        )
        ran = subprocess.run(
            [*COMMAND, "--port", str(free_port())], env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    assert ran.returncode not in (0, -signal.SIGKILL)
    assert "gateway.metrics_port" in ran.stderr
    assert f"127.0.0.1:{taken}" in ran.stderr
    assert "Traceback" not in ran.stderr
