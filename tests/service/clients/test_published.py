"""The calls that Lumenfall publishes for this model work here word for word, with the base address changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest

from tests.support.paths import COFFEE
from tests.support.photo import opened
from tests.support.running import Served
from tests.support.scripts import run_node, run_python, run_shell

BASE = "https://api.lumenfall.ai/openai/v1"

CURL = """
curl -X POST \\
  https://api.lumenfall.ai/openai/v1/images/edits \\
  -H "Authorization: Bearer $LUMENFALL_API_KEY" \\
  -F "model=clarity-upscaler" \\
  -F "image=@source.png" \\
  -F "prompt=Add a starry night sky to this image" \\
  -F "size=1024x1024"
"""

NODE = """
import OpenAI from 'openai';
import fs from 'fs';

const client = new OpenAI({
  apiKey: 'YOUR_API_KEY',
  baseURL: 'https://api.lumenfall.ai/openai/v1'
});

const response = await client.images.edit({
  model: 'clarity-upscaler',
  image: fs.createReadStream('source.png'),
  prompt: 'Add a starry night sky to this image',
  size: '1024x1024'
});
// { created: 1234567890, data: [{ url: "https://...", revised_prompt: "..." }] }
console.log(response.data[0].url);
"""

PYTHON = """
from openai import OpenAI

client = OpenAI(
    api_key="YOUR_API_KEY",
    base_url="https://api.lumenfall.ai/openai/v1"
)

response = client.images.edit(
    model="clarity-upscaler",
    image=open("source.png", "rb"),
    prompt="Add a starry night sky to this image",
    size="1024x1024"
)
# { created: 1234567890, data: [{ url: "https://...", revised_prompt: "..." }] }
print(response.data[0].url)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the photograph as `source.png`."""
    shutil.copy(COFFEE, tmp_path / "source.png")
    return tmp_path


def opens(url: str) -> None:
    """This address has a picture of 1024 x 1024 pixels."""
    got = httpx.get(url.strip())
    assert got.headers["content-type"] == "image/png"
    assert opened(got.content).size == (1024, 1024)


def test_python(server: Served, folder: Path) -> None:
    """The Python call prints an address that opens."""
    opens(run_python(PYTHON.replace(BASE, server.base_url), folder))


@pytest.mark.system
@pytest.mark.parametrize("sdk", ["openai", "openai6"])
def test_node(server: Served, folder: Path, sdk: str) -> None:
    """The Node call prints an address that opens, with either SDK."""
    opens(run_node(NODE.replace(BASE, server.base_url), folder, sdk))


def test_curl(server: Served, folder: Path) -> None:
    """The curl call's answer has an address that opens."""
    answer = json.loads(run_shell(CURL.replace(BASE, server.base_url), folder, LUMENFALL_API_KEY="YOUR_API_KEY"))

    assert answer["created"] > 1_700_000_000
    opens(answer["data"][0]["url"])
