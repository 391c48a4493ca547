"""The calls on the README's first screen run as they stand there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import httpx
import pytest

from tests.clients.pictures import COFFEE, opened
from tests.clients.running import Served
from tests.clients.scripts import run_node, run_python, run_shell

README = Path(__file__).resolve().parent.parent.parent / "README.md"
BASE = "http://127.0.0.1:8000"
FIRST_SCREEN = 70  # lines


def block(language: str, holding: str, server: Served) -> str:
    """The first block of the first screen that is in this language and has this in it, at our server's address."""
    screen = "\n".join(README.read_text().splitlines()[:FIRST_SCREEN])
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", screen, re.DOTALL | re.MULTILINE)
    found = next(code for code in blocks if holding in code)
    assert BASE in found
    return found.replace(BASE, server.root)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the photograph where a checkout has it."""
    (tmp_path / "tests" / "data").mkdir(parents=True)
    shutil.copy(COFFEE, tmp_path / "tests" / "data" / "coffee.png")
    return tmp_path


def test_python(server: Served, folder: Path) -> None:
    """The Python call prints an address that opens, and writes the picture."""
    url = run_python(block("python", "images.edit", server), folder).strip()

    written = (folder / "coffee-1024.png").read_bytes()
    assert opened(written).size == (1024, 1024)
    assert opened(written).format == "PNG"
    assert httpx.get(url).content == written


def test_node(server: Served, folder: Path) -> None:
    """The Node call prints an address that opens."""
    url = run_node(block("js", "images.edit", server), folder).strip()

    assert opened(httpx.get(url).content).size == (1024, 1024)


def test_curl(server: Served, folder: Path) -> None:
    """The curl call's answer is what the README shows: the same keys, and at the address 1800 x 1200 of webp."""
    answer = json.loads(run_shell(block("sh", "curl", server), folder))
    shown = json.loads(block("json", "data", server).replace("…", "..."))

    picture = opened(httpx.get(answer["data"][0]["url"]).content)
    assert (picture.size, picture.format) == ((1800, 1200), "WEBP")
    assert answer.keys() == shown.keys()
    assert answer["data"][0].keys() == shown["data"][0].keys()
    assert answer["metadata"].keys() == shown["metadata"].keys()
    assert answer["metadata"]["attempts"][0].keys() == shown["metadata"]["attempts"][0].keys()
    for same in ("size", "background", "output_format"):
        assert answer[same] == shown[same]
    for same in ("model", "executed_model", "provider", "cost", "cost_currency"):
        assert answer["metadata"][same] == shown["metadata"][same]
    for told, written in zip(answer["metadata"]["warnings"], shown["metadata"]["warnings"], strict=True):
        assert told.startswith(written.rstrip(".").split(": ...")[0])
