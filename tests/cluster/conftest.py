"""A local Ray cluster on the CPU that serves what deploy/ray/serve.yaml says, with another engine and two replicas.

Not part of the whole suite: `make test-ray` runs it. Without ray nothing is collected, and the target says so.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.paths import ROOT
from tests.support.ports import free_port

collect_ignore_glob = [] if importlib.util.find_spec("ray") else ["test_*.py"]

SERVE = ROOT / "deploy" / "ray" / "serve.yaml"
START_S = 90.0


@dataclass(frozen=True)
class Cluster:
    """Where it serves, and its log. `process` is that of its driver, which reads `config`."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    config: Path

    def change(self, **args: object) -> None:
        """Deploy the application with other arguments, as `serve deploy` does."""
        config = yaml.safe_load(self.config.read_text())
        config["applications"][0]["args"] |= args
        self.config.write_text(yaml.safe_dump(config))
        self.process.send_signal(signal.SIGHUP)

    def replicas(self) -> dict[int, float]:
        """The processes of the engine by their id, with the seconds of CPU that each has taken."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                title = (folder / "cmdline").read_bytes()
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            # Others on this machine may have clusters too.
            if title.startswith(b"ray::ServeReplica:darkroom-worker:engine") and str(self.log.parent) in _environ(
                folder
            ):
                found[int(folder.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found


def _environ(folder: Path) -> str:
    try:
        return (folder / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The deployment as it ships, on this machine's CPUs."""
    folder = tmp_path_factory.mktemp("ray")
    port = free_port()
    config = yaml.safe_load(SERVE.read_text())
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    config["applications"][0]["args"] |= {
        "engine": "lanczos-bp", "num_gpus": 0, "num_cpus": 1, "min_replicas": 2, "max_replicas": 2, "webhooks": True,
    }  # fmt: skip
    # Beside it one whose engine does what a test tells it.
    play = {"engine": "play_engines:Play", "num_gpus": 0, "num_cpus": 0.1}
    config["applications"].append(
        {"name": "play", "route_prefix": "/play", "import_path": config["applications"][0]["import_path"], "args": play}
    )
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    # Sockets below it have paths of 107 bytes at most.
    paths = os.pathsep.join([str(SERVE.parents[2]), str(SERVE.parents[2] / "tests" / "support")])
    environ = {**os.environ, "PYTHONPATH": paths, "DARKROOM_TEST_CLUSTER": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    start = [sys.executable, "-m", "tests.cluster.local", str(folder / "serve.yaml")]
    log = folder / "ray.log"
    with log.open("wb") as output:
        process = subprocess.Popen(start, stdout=output, stderr=output, env=environ, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, process, log)
        yield Cluster(url, log, process, folder / "serve.yaml")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        said = log.read_text()
        assert process.poll() is None, said[-5000:]
        assert "DEPLOY_FAILED" not in said, said[-5000:]
        try:
            both = [httpx.get(f"{url}{path}/health-check", timeout=5).json() for path in ("", "/play")]
            if all(said.get("status") == "READY" for said in both):
                return
        except (httpx.TransportError, ValueError):
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-5000:])
