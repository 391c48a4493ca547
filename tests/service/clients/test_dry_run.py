"""Dry runs over HTTP and from the command line: the whole plan is told, and nothing is sent."""

import os
import subprocess
from typing import Any

import httpx
import pytest

from tests.support import warm
from tests.support.paths import COFFEE
from tests.support.running import Served

PHOTO = COFFEE


def dry(served: Served, query: str = "dry_run=true", *, image: bool = True, **fields: Any) -> Any:
    """Post a dry run; return its answer."""
    files = {"image": ("coffee.png", PHOTO.read_bytes())} if image else {"unused": ("", b"")}
    return httpx.post(f"{served.base_url}/images/edits?{query}", data=fields, files=files, trust_env=False).json()


def attempts(served: Served) -> list[str]:
    """What the metrics say of attempts."""
    lines = httpx.get(f"{served.root}/metrics", trust_env=False).text.splitlines()
    return [line for line in lines if line.startswith("darkroom_attempts_total")]


@pytest.mark.parametrize("query", ["dry_run=true", "dryRun=true", "dry_run=1"])
def test_the_plan(server: Served, query: str) -> None:
    """Candidates with price, payload and finishing steps; why others are out; and no attempt is made."""
    before = attempts(server)
    found = dry(server, query, model="clarity-upscaler", size="1024x1024", n="2", output_format="webp")
    (only,) = found["candidates"]

    assert found["dry_run"] is True
    assert (only["provider"], only["route"], only["calls"], only["cost"]) == ("local", "resample", 2, 0)
    assert only["payload"]["scale"] == 2.56
    # Its time stamp, a tIME chunk of 19 bytes, does not leave the house.
    assert only["payload"]["image"]["picture"]["bytes"] == PHOTO.stat().st_size - 19
    assert len(only["payload"]["image"]["picture"]["sha256"]) == 64
    assert [step["step"] for step in only["finish"]] == ["resize", "transcode"]
    assert (only["output"], only["delivered"]) == ("1536x1024", "1024x1024")
    excluded = {entry["route"]: entry["reason"] for entry in found["excluded"]}
    assert excluded["replicate"] == "is off: REPLICATE_API_TOKEN is not set"
    assert attempts(server) == before


def test_without_a_picture(server: Served) -> None:
    """Width and height stand in for the picture; what is wrong with them is told."""
    found = dry(server, image=False, model="lanczos-bp", width="600", height="400", scale_factor="3")

    assert found["candidates"][0]["delivered"] == "1800x1200"
    assert "width" not in found["candidates"][0]["payload"]
    assert dry(server, image=False, width="600")["error"]["param"] == "height"
    assert dry(server, image=False, width="0", height="400")["error"]["code"] == "integer_below_min_value"
    assert dry(server, image=False)["error"]["code"] == "missing_required_parameter"


def test_only_a_dry_run_may_leave_the_picture_out(server: Served) -> None:
    """A call that would spend money needs its picture, whatever width and height say."""
    found = dry(server, "dry_run=false", image=False, width="600", height="400")

    assert found["error"]["param"] == "image"


def route(server: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `darkroom route`."""
    return warm.command(["route", *arguments, "--url", server.root], environ=os.environ)


def test_the_command(server: Served) -> None:
    """The same as a table in the terminal."""
    done = route(server, str(PHOTO), "model=clarity-upscaler", "scale_factor=4")
    print(done.stdout)

    assert done.returncode == 0, done.stderr
    assert "resample  0.000000  2400x1600" in done.stdout
    assert "  image = <png 600x400," in done.stdout
    assert "not fal: it is off: FAL_KEY is not set" in done.stdout


def test_the_command_and_mistakes(server: Served) -> None:
    """A bad field, a bad value, a missing file: a sentence each, and a status that is not 0."""
    assert "expected name=value" in route(server, str(PHOTO), "scale_factor").stderr
    assert "maximum value" in route(server, str(PHOTO), "scale_factor=99").stderr
    assert "No such file" in route(server, "no-such.png").stderr
    assert route(server, "no-such.png").returncode == 2
