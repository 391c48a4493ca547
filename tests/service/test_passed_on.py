"""Addresses in what passes on to a provider or to a worker as the caller wrote it, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.simulators.common import tiny
from tests.support.fake_cog import FakeCog, answer, data_uri
from tests.support.hooked import caller
from tests.support.lines import Lines
from tests.support.scripted_cog import as_workers, container, enlarge, last_input
from tests.support.world import CANARY, World, world

PICTURE = data_uri(tiny(24, 16))
SECRET = "worker-1.gpu.internal refused 10.7.0.9:8500"


@dataclass(frozen=True, slots=True)
class Place:
    """A cloud, and a container that announces inputs which no config of ours knows of, behind one gateway."""

    world: World
    cog: FakeCog
    client: httpx.Client

    def ask(self, provider: str, **fields: Any) -> httpx.Response:
        """Send an edit as JSON to one provider alone."""
        body = {"model": "clarity-upscaler", "image": PICTURE, "routing": {"only": [provider]}, **fields}
        return self.client.post("/images/edits", json=body)

    @property
    def bought(self) -> int:
        return len(self.cog.jobs) + self.world.taken("replicate")


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    with ExitStack() as stack:
        cog = stack.enter_context(container("mask", "mood", "notes"))
        environ = {"DARKROOM_PROVIDERS__LOCAL__WORKERS": as_workers(cog)}
        there = stack.enter_context(world("replicate", environ=environ))
        client = stack.enter_context(caller(there.url))
        assert _ready(client)
        yield Place(there, cog, client)


def _ready(client: httpx.Client) -> bool:
    """Wait until the worker has been seen."""
    body = {"model": "clarity-upscaler", "image": PICTURE, "routing": {"only": ["local"]}}
    return any(client.post("/images/edits?dry_run=true", json=body).json()["candidates"] for _ in range(500))


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    yield shared
    shared.cog.play = enlarge
    shared.world.sims["replicate"].faults.clear()


INNER = (
    f"http://{CANARY}/x",
    "http://10.0.0.1/a",
    "https://10.0.0.1/a",
    "https://169.254.169.254/latest/meta-data",
    "https://2130706433/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "HTTP://0x7f.1/",
    "ht\ntp://10.0.0.1/",
    "http:\\\\10.0.0.1\\a",
    "http:10.0.0.1",
    "//10.0.0.1/a",
    "\\\\10.0.0.1\\share",
    "https://user:word@example.com/",
    "https://example.com:8443/",
    "http://example.com/",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "gs://bucket/a.png",
    "s3://bucket/a.png",
    "ftp://example.com/a",
    "gopher://example.com/",
    "data:text/html,<img src='http://10.0.0.1/'>",
    "10.0.0.1:8080/a",
    "localhost/a",
    "https://metadata/a",
    "https://metadata.google.internal/computeMetadata",
    "a list: https://example.com/a,http://10.0.0.1/b",
)
PLACES: dict[str, Any] = {
    "undeclared": lambda provider, text: {"mask": None, "mood": text},
    "nested": lambda provider, text: {"mood": {"layers": [{"deep": [text]}]}},
    "a name": lambda provider, text: {"mood": {text: 1}},
    "json in a text": lambda provider, text: {"mood": json.dumps({"url": text})},
    "options": lambda provider, text: {"provider_options": {provider: {"mask": text}}},
    "options, nested": lambda provider, text: {"provider_options": {provider: {"mood": [{"path": text}]}}},
}


@pytest.mark.parametrize("provider", ["local", "replicate"])
@pytest.mark.parametrize("where", PLACES)
def test_an_address_that_leads_inside(place: Place, where: str, provider: str) -> None:
    """In every spelling and at every depth: a 400 that names the field, and nobody is asked for anything."""
    before = place.bought
    canary = place.world.canary.url.removeprefix("http://")
    for text in INNER:
        found = place.ask(provider, **PLACES[where](provider, text.replace(CANARY, canary)))
        if "canary" in text and found.status_code == 200:
            pytest.fail(f"{text} passed")
        error = found.json()["error"]
        assert (found.status_code, error["code"]) == (400, "parameter_refused"), f"{text}: {found.text}"
        assert error["param"] in ("mood", "mask")
        assert "Public https addresses are" in error["message"]
    assert place.bought == before
    assert place.world.canary.seen == []


def test_an_address_in_a_declared_parameter(place: Place) -> None:
    """A text that is an address is checked there too; words in which there is one are words."""
    before = place.bought
    for provider, name in (("local", "sd_model"), ("local", "scheduler"), ("replicate", "sd_model")):
        found = place.ask(provider, **{name: "http://10.0.0.1/a"})
        assert (found.status_code, found.json()["error"]["param"]) == (400, name), found.text
    assert place.bought == before
    assert place.ask("local", prompt="a sign that reads http://10.0.0.1/ in neon").status_code == 200


def test_a_public_address(place: Place) -> None:
    """Goes to a cloud, which fetches in its own network; to a worker of ours it does not, at any place."""
    address = "https://example.com/a.png"
    for where, made in PLACES.items():
        if where == "a name":
            continue
        cloud = place.ask("replicate", **made("replicate", address))
        assert cloud.status_code == 200, cloud.text
        jobs = len(place.cog.jobs)
        ours = place.ask("local", **made("local", address))
        error = ours.json()["error"]
        assert (ours.status_code, error["code"]) == (400, "no_route"), ours.text
        assert "accepts no URLs" in error["message"]
        assert len(place.cog.jobs) == jobs
    sent = place.ask("local", sd_model=address).json()["error"]
    assert sent["code"] == "no_route"
    assert "local accepts no URLs" in sent["message"]


def test_more_addresses_than_anybody_means(place: Place) -> None:
    """Each is parsed: the number is bounded."""
    found = place.ask("replicate", mood=["https://example.com/"] * 65)
    assert found.json()["error"]["code"] == "parameter_refused"
    assert "more than 64 addresses" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "play",
    [
        answer(200, {"status": "failed", "error": SECRET}),
        answer(422, {"detail": [{"loc": ["body", "input", "dynamic"], "msg": SECRET, "type": "value_error"}]}),
        answer(400, {"detail": SECRET}),
        answer(500, {"error": SECRET}),
    ],
    ids=["failed", "422", "400", "500"],
)
def test_a_workers_words(place: Place, lines: Lines, play: Any) -> None:
    """What a worker says of the operator's network is in the log; the caller reads words of ours, now and later."""
    place.cog.play = play
    told = place.ask("local")
    job = told.headers["x-darkroom-job"]
    later = [place.client.get(f"/images/jobs/{job}"), place.client.get("/images/jobs")]
    later += [httpx.get(f"{place.world.url}/v1/requests/{job}"), httpx.get(f"{place.world.url}/v1/requests")]

    assert told.status_code in (400, 502)
    for response in (told, *later):
        assert "10.7.0.9" not in response.text
        assert "gpu.internal" not in response.text
    assert "local: " in told.json()["error"]["message"]
    assert any(SECRET in str(line) for line in lines)


def test_a_stream_and_its_words(place: Place) -> None:
    """The event that a stream ends with is the same sentence."""
    place.cog.play = answer(200, {"status": "failed", "error": SECRET})
    found = place.ask("local", stream=True)

    assert "the job failed" in found.text
    assert "10.7.0.9" not in found.text


def test_what_reaches_the_worker(place: Place) -> None:
    """What it announced, and nothing else."""
    found = place.ask("local", mood="oil", grain=3, provider_options={"local": {"notes": "x", "hidden": "y"}})

    given = last_input(place.cog)
    assert (given["mood"], given["notes"]) == ("oil", "x")
    assert not {"grain", "hidden"} & given.keys()
    assert "grain was ignored: the worker has no such input." in found.json()["metadata"]["warnings"]
    assert "hidden was ignored: the worker has no such input." in found.json()["metadata"]["warnings"]


def test_a_value_for_one_provider(place: Place) -> None:
    """It overrides the shared one there, from a form too; the other routes keep that."""
    fields = {"model": "clarity-upscaler", "dynamic": "9", "provider_options[replicate][dynamic]": "7"}
    files: dict[str, Any] = {"image": ("in.png", tiny(24, 16)), **{name: (None, text) for name, text in fields.items()}}
    answer = place.client.post("/images/edits?dry_run=true", files=files)

    assert answer.status_code == 200, answer.text
    sent = {found["route"]: found["payload"]["dynamic"] for found in answer.json()["candidates"]}
    assert sent == {"replicate": 7, "local": 9}


@pytest.mark.parametrize(("value", "code"), [("many", "invalid_type"), ("51", "decimal_above_max_value")])
def test_a_value_for_one_provider_that_is_wrong(place: Place, value: str, code: str) -> None:
    """It is held to the declaration, as a shared one is."""
    found = place.ask("replicate", provider_options={"replicate": {"dynamic": value}}).json()["error"]
    assert (found["code"], found["param"]) == (code, "dynamic")
