"""Every shipped provider is held to the contract suite, before its simulator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import pytest
from typing_extensions import override

from gateway.registry import PROVIDERS
from normalization.values import Header, Image, Value
from providers.base import Upstream
from providers.local.adapter import LocalProvider
from providers.row import ProviderRow
from providers.testing import CHECKS, MOST_BYTES, PROMPT, Bench, Check, Misbehaviour, SimulatedProvider, Step
from tests.simulators import apiframe, clouds, replicate
from tests.simulators.base import Simulated
from tests.simulators.cog import CogWorker
from tests.simulators.common import Fault, tiny
from tests.simulators.replicate_models import CLARITY

IMAGE = Image(data=tiny(), header=Header(format="png", width=24, height=16))
UPSTREAMS: Mapping[str, Upstream] = {
    "replicate": Upstream(
        model="philz1337x/clarity-upscaler",
        options={"version": CLARITY, "usd_per_second": replicate.USD_PER_SECOND},
    ),
    "fal": Upstream(model="fal-ai/clarity-upscaler", options={"usd_per_unit": 0.03}),
    "segmind": Upstream(model="clarity-upscaler"),
    "apiframe": Upstream(
        model="clarity-upscale",
        options={"params": "clarityUpscaleParams", "usd_per_credit": apiframe.USD_PER_CREDIT},
    ),
    # Any worker that takes an image.
    "local": Upstream(model="", options={"inputs": ["image"]}),
}
# An image field that is not `image`, and requests that a provider has beside or without the usual ones.
IMAGES: Mapping[str, str] = {"fal": "image_url"}
STEPS: Mapping[str, frozenset[Step]] = {
    "local": frozenset({"submit", "download"}),
    "fal": frozenset({"submit", "poll", "result", "download"}),
    "segmind": frozenset({"submit", "poll", "result", "download"}),
}


class Played(SimulatedProvider):
    """A shipped provider before one of the simulators."""

    def __init__(self, sim: Simulated) -> None:
        self.sim = sim
        self.row = next(row for row in PROVIDERS if row.name == sim.name)
        self.key = sim.key or None
        self.upstream = UPSTREAMS[sim.name]
        self.payload: Mapping[str, Value] = {IMAGES.get(sim.name, "image"): IMAGE, "prompt": PROMPT}
        self.origins = sim.origins
        self.steps = STEPS.get(sim.name, SimulatedProvider.steps)
        self.free = sim.name == "local"
        addresses: Mapping[str, object] = sim.addresses
        if isinstance(sim, CogWorker):
            addresses = {"workers": (sim.url,)}
            self.row = ProviderRow("local", partial(LocalProvider, max_output_bytes=MOST_BYTES), self.row.settings)
        self.settings = self.row.settings(**addresses)

    @override
    def next(self, step: Step, misbehaviour: Misbehaviour) -> None:
        self.sim.faults.script(step, fault(misbehaviour))

    @override
    def always(self, step: Step, misbehaviour: Misbehaviour) -> None:
        self.sim.faults.always(step, fault(misbehaviour))

    @property
    @override
    def accepted(self) -> int:
        return len(self.sim.books.taken)

    @property
    @override
    def keys_at_delivery(self) -> int:
        return len(self.sim.strays)


def fault(given: Misbehaviour) -> Fault:
    """The simulators' own word for it."""
    if given.kind == "echo":
        return Fault(kind="echo", status=given.status, word="body")
    return Fault(kind=given.kind, status=given.status, body=given.body, headers=given.headers, after=given.carried_out)


@pytest.fixture(params=[*clouds.ALL, "local"])
def simulated(request: pytest.FixtureRequest) -> Iterator[SimulatedProvider]:
    if request.param == "local":
        with CogWorker().running() as worker:
            yield Played(worker)
    else:
        with clouds.borrowed(request.param) as (sim, _):
            yield Played(sim.timed(run_s=0.0))


def test_every_shipped_provider_is_held_to_it() -> None:
    """None is left out."""
    assert {row.name for row in PROVIDERS} == set(UPSTREAMS) == {*clouds.ALL, "local"}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Check, simulated: SimulatedProvider) -> None:
    """One sentence of the contract, for one provider."""
    async with Bench.over(simulated) as bench:
        await check(bench)
