"""The seed of each picture stands in the answer: sent again, it gives the provider the very same call."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.simulators.common import tiny
from tests.support.world import Answer, World, world

PROVIDERS = ("replicate", "fal", "segmind", "apiframe")
# Where the provider finds its input, which each job uploads anew.
_ADDRESSES = ("image", "image_url")


@pytest.fixture(scope="module", params=PROVIDERS)
def there(request: pytest.FixtureRequest) -> Iterator[World]:
    """A gateway before one provider."""
    with world(request.param) as made:
        yield made


def sent(there: World, since: int = 0) -> list[Mapping[str, Any]]:
    """What each job was given from the `since`th on, but for where the picture lies."""
    (sim,) = there.sims.values()
    jobs = [sim.given(job) for job in sim.books.taken[since:]]
    return [{name: value for name, value in job.items() if name not in _ADDRESSES} for job in jobs]


def seeds(body: Any) -> list[int]:
    """The seeds in an answer's body, in the order of its pictures."""
    return [item["seed"] for item in body["data"]]


def test_each_picture_has_its_own(there: World) -> None:
    """Drawn ones too; they are those that the provider was sent, and each gives the same payload again."""
    before = len(sent(there))

    answer = there.edit(n=3)

    found = seeds(answer.body)
    payloads = {payload["seed"]: payload for payload in sent(there, before)}
    assert len(set(found)) == 3
    assert set(payloads) == set(found)
    for seed in found:
        again = there.edit(extra_body={"seed": seed})
        assert seeds(again.body) == [seed]
        assert sent(there)[-1] == payloads[seed]


def test_a_seed_that_was_given(there: World) -> None:
    """It counts up from the caller's, and begins anew where the parameter ends."""
    assert seeds(there.edit(n=2, extra_body={"seed": 41}).body) == [41, 42]
    assert seeds(there.edit(n=2, extra_body={"seed": 4294967295}).body) == [4294967295, 0]


def test_a_replay_says_the_same(there: World) -> None:
    """A repeated call has the job's answer, seeds included, and so has the job when it is asked for by its id."""
    asked: dict[str, Any] = {"n": 2, "extra_headers": {"Idempotency-Key": f"again-{next(iter(there.sims))}"}}
    with OpenAI(base_url=f"{there.url}/openai/v1", api_key="none") as client:
        raw = [
            client.images.with_raw_response.edit(model="clarity-upscaler", prompt="x", image=tiny(), **asked)
            for _ in range(2)
        ]
    first, second = (json.loads(one.text) for one in raw)

    assert raw[1].headers["idempotent-replayed"] == "true"
    assert seeds(first) == seeds(second)
    job = httpx.get(f"{there.url}/openai/v1/images/jobs/{first['id']}").json()
    assert seeds(job["result"]) == seeds(first)


def test_a_stream_says_it(there: World) -> None:
    """Each event of a stream has its picture's seed."""
    with OpenAI(base_url=f"{there.url}/openai/v1", api_key="none") as client:
        stream = client.images.edit(
            model="clarity-upscaler", prompt="x", image=tiny(), n=2, stream=True, extra_body={"seed": 7}
        )
        events: list[Any] = list(stream)

    assert [event.seed for event in events] == [7, 8]


def test_the_sdk_has_it(there: World) -> None:
    """OpenAI's own client reads the answer as ever, and has the seed beside it."""
    with OpenAI(base_url=f"{there.url}/openai/v1", api_key="none") as client:
        response = client.images.edit(model="clarity-upscaler", prompt="x", image=tiny(), extra_body={"seed": 7})

    assert response.data
    assert response.data[0].model_extra == {"seed": 7}


def test_a_picture_that_moved_on() -> None:
    """The seed goes with the picture to the next route."""
    with world("fal", "replicate") as made:
        made.stop("fal")
        answer = made.edit(n=2, routing='{"order": ["fal"]}')

        assert answer.headers["x-darkroom-provider"] == "replicate"
        assert sorted(seeds(answer.body)) == sorted(
            made.sims["replicate"].given(job)["seed"] for job in made.sims["replicate"].books.taken
        )


@pytest.mark.parametrize("model", ["topaz-image-upscale", "real-esrgan"])
def test_no_seed_where_there_is_none(model: str) -> None:
    """Where a route has no seed, none is made up."""
    with world("replicate") as made:
        answer: Answer = made.edit(model=model, extra_body={"seed": 7} if model.startswith("topaz") else {})

        assert answer.status == 200, answer.text
        assert "seed" not in answer.body["data"][0]
