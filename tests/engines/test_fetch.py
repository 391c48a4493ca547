"""Fetching weights: the hub's own client, over HTTP, from a hub that speaks as the real one does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository, owner/name. `sent` replaces what is sent for a file, whatever was said of it."""

    files: dict[str, bytes]
    sent: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def describe(self) -> dict[str, Any]:
        siblings = []
        for name, data in self.files.items():
            git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            one: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
            if name.endswith((".safetensors", ".bin", ".ckpt")):
                one["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
            siblings.append(one)
        return {"id": "owner/name", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "openrail++"}}


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    """A hub with the tiny ControlNet, and what else lies about in such repositories."""
    files = {file.name: file.read_bytes() for file in (tiny / "controlnet").iterdir()}
    made = Hub(files={**files, "README.md": b"# A net\n", "old.ckpt": b"x" * 1000})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(f"{self.command} {self.path}")
            if self.path.startswith("/api/models/owner/name/revision/v1"):
                return self.answer(json.dumps(made.describe()).encode(), {"Content-Type": "application/json"})
            prefix = f"/owner/name/resolve/{COMMIT}/"
            name = self.path.removeprefix(prefix).partition("?")[0]
            if not self.path.startswith(prefix) or name not in made.files:
                return self.answer(b'{"error":"not found"}', {"X-Error-Code": "RepoNotFound"}, 404)
            data = made.sent.get(name, made.files[name])
            etag = hashlib.sha256(made.files[name]).hexdigest()
            return self.answer(data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))})

        do_HEAD = do_GET  # noqa: N815 - the name that the library looks for

        def answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(tiny: Path, tmp_path: Path) -> Path:
    file = tmp_path / "worker.toml"
    file.write_text(
        f"""
        [worker]
        engine = "tile-diffusion"
        [tile-diffusion]
        base = "{tiny / "base"}"
        controlnet = "owner/name@v1"
        """
    )
    return file


def weights(action: str, config: Path, hub: Hub, **more: Any) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(config.parent / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DARKROOM_DATA": str(config.parent / "data"),
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "gateway", "worker", "weights", action, f"--config={config}"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.run(command, text=True, timeout=100, env=environ, check=False, **streams)


def folder(config: Path) -> Path:
    return config.parent / "data" / "weights" / "owner--name@v1"


def test_fetch(config: Path, hub: Hub) -> None:
    """What is needed and nothing else, at the commit that the revision is; checked, and not fetched again."""
    done = weights("fetch", config, hub)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"owner/name at {COMMIT}" in done.stdout
    assert "licence: openrail++" in done.stdout
    there = {file.name for file in folder(config).iterdir() if file.is_file()}
    assert there == {"config.json", "diffusion_pytorch_model.safetensors", "darkroom-weights.json"}
    record = json.loads((folder(config) / "darkroom-weights.json").read_text())
    assert (record["commit"], record["licence"]) == (COMMIT, "openrail++")
    hub.asked.clear()
    assert weights("fetch", config, hub).returncode == 0
    assert weights("list", config, hub).returncode == 0
    assert hub.asked == []


def test_a_bar(config: Path, hub: Hub) -> None:
    """In a terminal it is shown how far it is."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    try:
        done = weights("fetch", config, hub, stderr=theirs)
        os.close(theirs)
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)

    assert done.returncode == 0
    assert "diffusion_pytorch_model.safetensors: 100%|" in shown


def test_what_is_not_what_the_hub_says(config: Path, hub: Hub) -> None:
    """A file that comes with other bytes is not kept, and the next try gets it."""
    name = "diffusion_pytorch_model.safetensors"
    hub.sent[name] = hub.files[name][:-1] + bytes([hub.files[name][-1] ^ 1])
    done = weights("fetch", config, hub)

    assert done.returncode == 2
    assert "does not have the sha256 hash" in done.stderr
    assert "was deleted" in done.stderr
    assert not (folder(config) / name).exists()
    assert weights("list", config, hub).returncode == 1
    hub.sent.clear()
    again = weights("fetch", config, hub)
    assert again.returncode == 0, again.stderr


def test_altered_later(config: Path, hub: Hub) -> None:
    """`verify` looks at every byte; `fetch` gets what is not as it was."""
    assert weights("fetch", config, hub).returncode == 0
    file = folder(config) / "config.json"
    file.write_bytes(file.read_bytes().replace(b"{", b"[", 1))

    assert weights("list", config, hub).returncode == 0
    done = weights("verify", config, hub)
    assert done.returncode == 1
    assert "does not have the git hash" in done.stdout
    again = weights("fetch", config, hub)
    assert again.returncode == 0, again.stdout + again.stderr
    assert weights("verify", config, hub).returncode == 0


def test_no_such_thing(config: Path, hub: Hub) -> None:
    """A revision that is not there, and a hub that is not there, are said in a line."""
    config.write_text(config.read_text().replace("@v1", "@v2"))
    done = weights("fetch", config, hub)
    assert done.returncode == 2
    assert "controlnet: cannot fetch owner/name@v2" in done.stderr
    assert "Traceback" not in done.stderr
    hub.url = "http://127.0.0.1:9"
    done = weights("fetch", config, hub)
    assert done.returncode == 2
    assert "cannot fetch" in done.stderr
    assert "Traceback" not in done.stderr
