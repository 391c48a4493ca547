"""Providers behind an egress gateway, each below a path of one origin, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from providers.clock import CLOCK, Clock
from tests.simulators.base import Simulated
from tests.simulators.clouds import ALL, borrowed
from tests.simulators.common import Fault
from tests.support.clock import Faster
from tests.support.egress import Egress
from tests.support.world import World, world


@pytest.fixture
def both() -> Iterator[tuple[World, Egress]]:
    """A gateway that is told of the providers only where the egress gateway has them."""
    with behind_egress(CLOCK) as found:
        yield found


@pytest.fixture
def hurried() -> Iterator[tuple[World, Egress]]:
    """The same, with a clock on which a job that is not there is soon given up."""
    with behind_egress(Faster(20)) as found:
        yield found


@contextmanager
def behind_egress(clock: Clock) -> Iterator[tuple[World, Egress]]:
    """Serve the providers, the egress gateway and a gateway before it."""
    with ExitStack() as stack:
        sims: dict[str, Simulated] = {name: stack.enter_context(borrowed(name))[0] for name in ALL}
        egress = stack.enter_context(Egress(sims).running())
        keys = {sim.key_variable: sim.key for sim in sims.values()}
        allow = [origin for sim in sims.values() for origin in sim.origins]
        there = stack.enter_context(world(environ={**keys, **egress.environ()}, allow=allow, clock=clock))
        yield there, egress


@pytest.mark.parametrize("name", ALL)
def test_a_provider_below_a_path(both: tuple[World, Egress], name: str) -> None:
    """Everything of a job goes through the gateway that is configured, and the picture comes."""
    there, egress = both
    answer = there.edit(routing=json.dumps({"only": [name]}))

    assert (answer.status, answer.headers.get("x-darkroom-provider")) == (200, name), answer.text
    assert name in egress.passed
    assert egress.strayed == []
    assert not egress.sims[name].strays


def test_an_address_of_another_tenant(hurried: tuple[World, Egress]) -> None:
    """One that an answer names at the same origin and below another path is not asked, nor sent our key."""
    there, egress = hurried
    sim = egress.sims["fal"]
    for path in (
        "/other/x",
        "/out/fal/queue_url/../../../other/x",
        "/out/fal/queue_url/%2e%2e/x",
        "/out/fal/queue_urlx",
    ):
        bent = dict.fromkeys(("status_url", "response_url", "cancel_url"), f"{egress.url}{path}")
        body = {"request_id": "d4f1b2c3-0000-4000-8000-000000000001", "status": "IN_QUEUE", **bent}
        sim.faults.script("submit", Fault(status=200, body=body))
        passed = len(egress.passed)
        there.edit(routing=json.dumps({"only": ["fal"]}), retries=0)
        assert len(egress.passed) > passed + 1
        assert egress.strayed == []
