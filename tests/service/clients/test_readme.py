"""The calls of the README run as they stand there: those of the first screen, and those about jobs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.paths import COFFEE, ROOT
from tests.support.photo import opened
from tests.support.running import Served
from tests.support.scripts import run_node, run_python, run_shell

README = ROOT / "README.md"
BASE = "http://127.0.0.1:8000"
FIRST_SCREEN = 70  # lines


def block(language: str, holding: str, server: Served) -> str:
    """The first block of the first screen that is in this language and has this in it, at our server's address."""
    screen = "\n".join(README.read_text().splitlines()[:FIRST_SCREEN])
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", screen, re.DOTALL | re.MULTILINE)
    found = next(code for code in blocks if holding in code)
    assert BASE in found
    return found.replace(BASE, server.root)


def section(title: str, server: Served) -> list[str]:
    """The shell blocks under a heading, at our server's address, with our interpreter for the command."""
    text = README.read_text().partition(f"\n### {title}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    command = f"{shlex.quote(sys.executable)} -m gateway"
    return [code.replace(BASE, server.root).replace(".venv/bin/darkroom", command) for code in blocks]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the photograph where a checkout has it."""
    (tmp_path / "tests" / "data").mkdir(parents=True)
    shutil.copy(COFFEE, tmp_path / "tests" / "data" / "coffee.png")
    return tmp_path


def test_python(server: Served, folder: Path) -> None:
    """The Python call prints an address that opens, and writes the picture."""
    url = run_python(block("python", "images.edit", server), folder).strip()

    written = (folder / "coffee-1536.png").read_bytes()
    assert opened(written).size == (1536, 1024)
    assert opened(written).format == "PNG"
    assert httpx.get(url).content == written


@pytest.mark.system
def test_node(server: Served, folder: Path) -> None:
    """The Node call prints an address that opens."""
    url = run_node(block("js", "images.edit", server), folder).strip()

    assert opened(httpx.get(url).content).size == (1536, 1024)


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


def test_background(server: Served, folder: Path) -> None:
    """The calls about jobs in the background begin one, and list it."""
    (code,) = section("Background jobs", server)
    decoder, text = json.JSONDecoder(), run_shell(code, folder)
    begun, end = decoder.raw_decode(text)
    listed, _ = decoder.raw_decode(text[end:])

    assert (begun["object"], begun["status"]) == ("image.job", "queued")
    assert [entry["id"] for entry in listed["data"]] == [begun["id"]]
    assert httpx.get(begun["urls"]["get"], params={"wait": "60"}, timeout=90).json()["status"] == "completed"


def test_what_it_cost(server: Served, folder: Path) -> None:
    """The commands and the call about what happened run beside the server, on its own ledger."""
    run_python(block("python", "images.edit", server), folder)
    (code,) = section("What happened, and what it cost", server)
    root = str(README.parent)
    text = run_shell(code, folder, DARKROOM_DATA=str(server.log.parent / "data"), PYTHONPATH=root)

    assert "clarity-upscaler" in text
    assert json.loads(text.splitlines()[-1])["object"] == "list"
