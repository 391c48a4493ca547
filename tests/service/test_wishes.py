"""What a caller wishes of the routing, through the official SDK and the header, with four providers to choose from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulators.clouds import ALL
from tests.simulators.common import Fault
from tests.support.world import World, world


@pytest.mark.parametrize(
    ("fields", "header", "server"),
    [
        ({}, None, "fal"),
        ({"model": "segmind/clarity-upscaler"}, None, "segmind"),
        ({"extra_body": {"routing": {"only": ["replicate"]}}}, None, "replicate"),
        ({"extra_body": {"routing": '{"ignore": ["fal"]}'}}, None, "replicate"),
        ({"extra_body": {"routing[order]": "apiframe"}}, None, "apiframe"),
        ({}, '{"order": ["segmind", "replicate"]}', "segmind"),
        ({}, '{"sort": "order"}', "replicate"),
        ({}, '{"max_cost": 0.001, "order": ["apiframe"]}', "fal"),
    ],
)
def test_the_callers_wish_is_followed(every: World, fields: dict[str, Any], header: str | None, server: str) -> None:
    """By the model's name, as an object, as JSON, in brackets, in the header: that provider and no other is asked."""
    before = {name: every.taken(name) for name in ALL}
    answer = every.edit(routing=header, **fields)
    assert answer.story == [f"{server} ok"]
    assert {name: every.taken(name) - before[name] for name in ALL} == {name: int(name == server) for name in ALL}


def test_without_fallbacks_one_is_asked(every: World) -> None:
    """allow_fallbacks=false ends with the first candidate's failure."""
    every.sims["fal"].faults.script("job", Fault(kind="job", word="FAILED"))
    # What was not billed may be tried again, and the SDK would.
    answer = every.edit(routing='{"allow_fallbacks": false}', retries=0)
    assert (answer.status, answer.story) == (502, ["fal failed"])


def test_a_price_that_nobody_offers_buys_nothing(every: World) -> None:
    """max_cost below every estimate is a 400 that names the routing."""
    before = [every.taken(name) for name in ALL]
    answer = every.edit(routing='{"max_cost": 0.0000001}')
    assert (answer.status, answer.code) == (400, "no_route")
    assert [every.taken(name) for name in ALL] == before


@pytest.fixture(scope="module")
def every() -> Iterator[World]:
    """A world with all four providers, for what leaves no trace in it."""
    with world(*ALL) as there:
        yield there


USUAL = '{"order": ["segmind"], "sort": "fastest"}'


@pytest.mark.parametrize(
    ("fields", "header", "server"),
    [
        ({}, None, "segmind"),
        ({"extra_body": {"routing": {"order": ["replicate"]}}}, None, "replicate"),
        ({"extra_body": {"routing": {"sort": "cheapest"}}}, None, "fal"),
        ({}, '{"ignore": ["segmind"], "sort": "order"}', "replicate"),
        ({"model": "apiframe/clarity-upscaler"}, None, "apiframe"),
    ],
)
def test_what_is_usual_for_a_model(usual: World, fields: dict[str, Any], header: str | None, server: str) -> None:
    """The model's file says which provider is first, and every wish of the caller's counts before it."""
    assert usual.edit(routing=header, **fields).story == [f"{server} ok"]


@pytest.fixture(scope="module")
def usual() -> Iterator[World]:
    """A world whose operator prefers one of the four."""
    with world(*ALL, environ={"DARKROOM_MODELS__CLARITY_UPSCALER__ROUTING": USUAL}) as there:
        yield there
