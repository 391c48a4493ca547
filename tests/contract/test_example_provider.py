"""The example of an adapter, as CONTRIBUTING shows it: short, registered by an entry point, held to the contract."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from gateway.registry import ProviderParts, build
from gateway.settings import providers as sections
from gateway.settings.loader import SHIPPED, load
from normalization.values import Header, Image, Value
from providers.base import Readiness, Upstream
from providers.clock import CLOCK
from providers.errors import Unfinished
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from providers.testing import CHECKS, PROMPT, Bench, Check, Misbehaviour, SimulatedProvider, Step
from tests.contract.example_provider import adapter
from tests.simulators.common import Fault, Faults, play, serve, tiny
from tests.support.paths import ROOT

MOST_LINES = 80
FOLDER = ROOT / "tests" / "contract" / "example_provider"
IMAGE = Image(data=tiny(), header=Header(format="png", width=24, height=16))


class SimulatedExample(SimulatedProvider):
    """The made-up provider. `inline` gives the image as base64 and not at an address."""

    row = adapter.ROW
    key: str | None = "ex-0123456789abcdef"
    upstream = Upstream(model="upscale-1")
    payload: Mapping[str, Value] = {"image": IMAGE, "prompt": PROMPT}
    steps: frozenset[Step] = frozenset({"submit", "download"})
    inline = False

    def __init__(self) -> None:
        self.faults = Faults()
        self.url = self.images_url = ""
        self._accepted = self._strays = 0

    @property
    def api(self) -> Starlette:
        return Starlette(routes=[Route("/v1/upscale", self._upscale, methods=["POST"])])

    @property
    def delivery(self) -> Starlette:
        return Starlette(routes=[Route("/image.png", self._image)])

    async def _upscale(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if request.headers.get("authorization") != f"Bearer {self.key}":
                return JSONResponse({"error": "the key is not valid"}, 401)
            given = json.loads(await request.body())
            self._accepted += 1
            if self.inline:
                return JSONResponse({"images": [{"b64_json": given["image"]}]})
            return JSONResponse({"images": [{"url": f"{self.images_url}/image.png"}]})

        return await play(request, self.faults.next("submit"), carry_out)

    async def _image(self, request: Request) -> Response:
        async def carry_out() -> Response:
            self._strays += "authorization" in request.headers
            return Response(tiny(), media_type="image/png")

        return await play(request, self.faults.next("download"), carry_out)

    @override
    def next(self, step: Step, misbehaviour: Misbehaviour) -> None:
        self.faults.script(step, _fault(misbehaviour))

    @override
    def always(self, step: Step, misbehaviour: Misbehaviour) -> None:
        self.faults.always(step, _fault(misbehaviour))

    @property
    @override
    def accepted(self) -> int:
        return self._accepted

    @property
    @override
    def keys_at_delivery(self) -> int:
        return self._strays


def _fault(given: Misbehaviour) -> Fault:
    return Fault(
        kind=given.kind,
        status=given.status,
        body=given.body,
        headers=given.headers,
        after=given.carried_out,
        word="body" if given.kind == "echo" else "",
    )


@pytest.fixture
def simulated() -> Iterator[SimulatedExample]:
    sim = SimulatedExample()
    with serve(sim.api) as api, serve(sim.delivery) as delivery:
        sim.images_url = delivery.url
        sim.origins = frozenset({delivery.origin})
        sim.settings = adapter.ExampleSettings(base_url=api.url)
        yield sim


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Check, simulated: SimulatedProvider) -> None:
    """The suite for every provider runs on it as it is."""
    async with Bench.over(simulated) as bench:
        await check(bench)


async def test_an_image_as_base64(simulated: SimulatedExample) -> None:
    """A data URI in the answer is an image like one at an address."""
    simulated.inline = True
    async with Bench.over(simulated) as bench:
        assert (await bench.run()).images == (IMAGE.data,)


async def test_a_job_that_goes_on_past_the_deadline(simulated: SimulatedExample) -> None:
    """It cannot be cancelled, so that nothing else is bought in its place; who waits again gets its image."""
    simulated.faults.script("submit", Fault(kind="drip", seconds=0.002))
    async with Bench.over(simulated) as bench:
        handle = await bench.submit()
        with pytest.raises(Unfinished):
            await bench.provider.wait(handle, bench.deadline(0))
        assert len((await bench.provider.wait(handle, bench.deadline())).images) == 1


def test_it_is_short() -> None:
    """A provider that answers one JSON POST takes at most 80 lines of one folder."""
    lines = [line for path in FOLDER.glob("*.py") for line in path.read_text().splitlines()]

    assert 0 < len(lines) <= MOST_LINES


async def test_its_row_and_its_section_are_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One entry point and one section of `providers.toml` put it beside the shipped ones."""
    points = EntryPoints([EntryPoint("example", f"{adapter.__name__}:ROW", sections.ENTRY_POINTS)])
    monkeypatch.setattr(sections, "entry_points", lambda group: points.select(group=group))
    shutil.copytree(SHIPPED, tmp_path / "config")
    with (tmp_path / "config" / "providers.toml").open("a") as file:
        file.write((FOLDER / "providers.toml").read_text())
    environ = {"EXAMPLE_API_KEY": "ex-1"}
    config = load(tmp_path / "config", environ)
    async with httpx.AsyncClient() as client:
        parts = ProviderParts(
            config=config, environ=environ, http=client, downloads=client, url_policy=UrlPolicy(), pace=Pace(CLOCK)
        )
        example = build(parts)["example"]

    assert example.readiness(SimulatedExample.upstream) == (Readiness.READY, "")
