"""Several providers behind one model: who serves, who helps, what the caller hears, and what is never bought twice."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from tests.simulators.apiframe import Apiframe
from tests.simulators.clouds import ALL
from tests.simulators.common import Fault, size, tiny
from tests.simulators.fal import FalAi
from tests.simulators.replicate import Simulator
from tests.simulators.segmind import Segmind
from tests.support.faults import says
from tests.support.running import until
from tests.support.world import World, world

T = TypeVar("T", FalAi, Simulator, Segmind, Apiframe)

LARGE = {"DARKROOM_GATEWAY__MAX_RESULT_BYTES": "64000000"}


def of(there: World, kind: type[T]) -> T:
    """The provider of this kind."""
    return next(sim for sim in there.sims.values() if isinstance(sim, kind))


def fails(word: str) -> Fault:
    """What becomes of a job."""
    return Fault(kind="job", word=word)


def test_the_cheapest_serves_the_call_of_the_readme(photo: bytes) -> None:
    """For 1024x1024 Replicate's seconds cost less than fal's megapixels; for a small picture it is the other way."""
    with world(*ALL, environ=LARGE) as there:
        answer = there.edit(photo, prompt="a cup of espresso on a wooden table", size="1024x1024")
        assert answer.story == ["replicate ok"]
        assert answer.headers["x-darkroom-provider"] == "replicate"
        assert [size(picture) for picture in answer.images] == [(1024, 1024)]
        assert there.edit().story == ["fal ok"]
        assert [there.taken(name) for name in ALL] == [1, 1, 0, 0]


def test_a_provider_that_is_killed_before_it_took_the_job_is_left(photo: bytes) -> None:
    """It goes off the net in the middle of the upload: nothing can be owed, so the next cheapest serves the call."""
    # On a busy machine a photograph takes its time on its way to the next one.
    patient = {**LARGE, "DARKROOM_GATEWAY__SUBMIT_TIMEOUT_S": "10", "DARKROOM_GATEWAY__DEADLINE_S": "40"}
    with world(*ALL, environ=patient) as there, ThreadPoolExecutor() as pool:
        replicate = of(there, Simulator)
        replicate.faults.always("upload", Fault(kind="hang"))
        call = pool.submit(there.edit, photo, size="1024x1024")
        until(lambda: replicate.books.count("POST", "/v1/files"), "the upload has begun")
        there.stop("replicate")
        answer = call.result()
        assert (answer.status, answer.story) == (200, ["replicate unreached", "segmind ok"])
        assert [size(picture) for picture in answer.images] == [(1024, 1024)]
        assert [there.taken(name) for name in ALL] == [0, 0, 1, 0]


def test_of_three_pictures_the_one_that_failed_moves_on_alone() -> None:
    """Two come from the first provider, and the third from the next with the seed that it had."""
    with world("fal", "replicate") as there:
        fal, replicate = of(there, FalAi), of(there, Simulator)
        fal.faults.script("job", None, fails("FAILED"), None)
        answer = there.edit(n=3)
        assert answer.status == 200
        assert len(set(answer.images)) == 1, "one picture, enlarged alike by everybody"
        assert len(answer.images) == 3
        assert sorted(answer.story) == ["fal failed", "fal ok", "fal ok", "replicate ok"]
        lost, found = (
            next(one["picture"] for one in answer.attempts if one["outcome"] == outcome and one["provider"] == name)
            for outcome, name in (("failed", "fal"), ("ok", "replicate"))
        )
        assert lost == found
        seeds = [seen.json["seed"] for seen in fal.asked("POST")]
        assert len(set(seeds)) == 3
        assert replicate.bodies[0]["input"]["seed"] in seeds
        assert (there.billed("fal"), there.billed("replicate")) == (2, 1)
        assert "partial" not in answer.body["metadata"]


def test_pictures_that_stay_missing_do_not_cost_the_others() -> None:
    """The paid ones are delivered with a warning; with require_all the caller hears of the missing ones instead."""
    with world("fal", "replicate") as there:
        fal, replicate = of(there, FalAi), of(there, Simulator)
        replicate.faults.always("submit", says(503, {"detail": "Busy"}))
        fal.faults.script("job", None, fails("FAILED"))
        answer = there.edit(n=2)
        assert (answer.status, len(answer.images)) == (200, 1)
        assert answer.body["metadata"]["partial"] is True
        fal.faults.script("job", None, fails("FAILED"))
        answer = there.edit(n=2, extra_body={"require_all": "true"})
        assert (answer.status, answer.code) == (502, "partial_result")
        assert answer.headers["x-should-retry"] == "false"
        assert fal.books.billed == 2


def test_when_all_fail_every_attempt_is_told() -> None:
    """502 with the whole story, and the SDK is kept from buying the failures again."""
    with world("fal", "replicate", "segmind", "apiframe") as there:
        for name, word in (("fal", "FAILED"), ("replicate", "fails"), ("segmind", "FAILED"), ("apiframe", "FAILED")):
            there.sims[name].faults.script("job", fails(word))
        answer = there.edit()
        assert (answer.status, answer.code) == (502, "all_providers_failed")
        assert answer.story == ["fal failed", "replicate failed", "segmind failed", "apiframe failed"]
        assert all(attempt["message"] for attempt in answer.attempts)
        assert answer.headers["x-should-retry"] == "false"
        assert [there.taken(name) for name in ALL] == [1, 1, 1, 1]


def test_when_all_reject_the_caller_hears_why() -> None:
    """A 400 that says who refused it: nobody else would take the request either. The provider's words are not told."""
    with world("fal", "replicate") as there:
        for sim in there.sims.values():
            sim.faults.always("submit", says(422, {"detail": "the resemblance is too odd"}))
        answer = there.edit()
        assert (answer.status, answer.code) == (400, "invalid_value")
        assert answer.story == ["fal rejected", "replicate rejected"]
        assert "fal: HTTP 422 (about 'resemblance')" in answer.body["error"]["message"]
        assert "odd" not in answer.text


def test_when_all_are_throttled_the_soonest_is_named() -> None:
    """429 with the shortest wait; and until then the providers are left alone."""
    with world("fal", "replicate") as there:
        for name, wait in (("fal", "60"), ("replicate", "40")):
            there.sims[name].faults.always("submit", says(429, {"detail": "slow down"}, retry_after=wait))
        answer = there.edit(retries=0)
        assert (answer.status, answer.headers["retry-after"]) == (429, "40")
        assert answer.story == ["fal throttled", "replicate throttled"]
        before = [len(sim.books.requests) for sim in there.sims.values()]
        answer = there.edit(retries=0)
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 40
        assert [len(sim.books.requests) for sim in there.sims.values()] == before


def test_the_second_provider_gets_what_the_first_one_got() -> None:
    """The picture to the byte, and every parameter in the second one's own names."""
    picture = tiny(30, 20, (1, 2, 3))
    given = {
        "negative_prompt": "blur", "scale_factor": "3", "creativity": "0.5", "resemblance": "0.75", "dynamic": "7",
        "num_inference_steps": "21", "seed": "4711",
    }  # fmt: skip
    with world("fal", "replicate") as there:
        fal, replicate = of(there, FalAi), of(there, Simulator)
        fal.faults.script("job", fails("FAILED"))
        answer = there.edit(picture, prompt="ein Käffchen ☕", extra_body=given)
        assert answer.story == ["fal failed", "replicate ok"]
        assert [size(made) for made in answer.images] == [(90, 60)]
        first, second = fal.asked("POST")[0].json, replicate.bodies[0]["input"]
        assert _bytes(first["image_url"]) == _bytes(second["image"]) == picture
        same = {name: first[name] for name in ("prompt", "negative_prompt", "creativity", "resemblance", "seed")}
        assert same == {name: second[name] for name in same}
        assert same["prompt"] == "ein Käffchen ☕"
        assert (
            (first["upscale_factor"], first["guidance_scale"]) == (second["scale_factor"], second["dynamic"]) == (3, 7)
        )
        assert first["num_inference_steps"] == second["num_inference_steps"] == 21
        assert (second["creativity"], second["resemblance"], second["seed"]) == (0.5, 0.75, 4711)


def _bytes(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2], validate=True)


def test_the_metrics_tell_the_story() -> None:
    """One failed attempt, one good one, one picture, and the money that the second one cost."""
    with world("fal", "replicate") as there:
        there.sims["fal"].faults.script("job", fails("FAILED"))
        asked = {
            "fal failed": ("darkroom_attempts_total", {"provider": "fal", "outcome": "failed"}),
            "fal ok": ("darkroom_attempts_total", {"provider": "fal", "outcome": "ok"}),
            "replicate ok": ("darkroom_attempts_total", {"provider": "replicate", "outcome": "ok"}),
            "pictures": ("darkroom_images_total", {"provider": "replicate"}),
            "cost": ("darkroom_cost_usd_total", {"provider": "replicate"}),
        }
        before = {what: there.metric(name, **labels) for what, (name, labels) in asked.items()}
        answer = there.edit()
        grown = {what: there.metric(name, **labels) - before[what] for what, (name, labels) in asked.items()}
        cost = grown.pop("cost")
        assert grown == {"fal failed": 1, "fal ok": 0, "replicate ok": 1, "pictures": 1}
        assert cost == pytest.approx(answer.body["metadata"]["cost"], abs=2e-6)
        assert cost == pytest.approx(sum(of(there, Simulator).books.bills.values()), abs=2e-6)


@pytest.mark.parametrize(("most", "again"), [("1", True), ("0.00001", False)])
def test_the_operator_may_pay_for_certainty(most: str, again: bool) -> None:
    """on_unknown_outcome = "failover" buys again after a lost answer, and only up to max_duplicate_usd."""
    policy = {"DARKROOM_GATEWAY__ON_UNKNOWN_OUTCOME": "failover", "DARKROOM_GATEWAY__MAX_DUPLICATE_USD": most}
    with world("fal", "replicate", environ=policy) as there:
        there.sims["fal"].faults.script("submit", Fault(kind="cut", after=True))
        there.sims["fal"].faults.always("list", Fault(status=403))  # else it is found there
        answer = there.edit()
        assert answer.status == (200 if again else 504)
        assert answer.story == ["fal unknown", "replicate ok"][: 1 + again]
        assert there.billed("fal") + there.billed("replicate") == 1 + again


def test_a_picture_of_unknown_outcome_does_not_hold_up_the_others() -> None:
    """Of two pictures one is lost, and is not bought again; the other one failed, and moves on alone."""
    with world("fal", "replicate") as there:
        fal = of(there, FalAi)
        fal.faults.script("submit", Fault(kind="cut", after=True))
        fal.faults.always("list", Fault(status=403))
        fal.faults.script("job", None, fails("FAILED"))
        answer = there.edit(n=2)
        assert (there.taken("fal"), there.taken("replicate")) == (2, 1)
        assert answer.status == 200
        assert answer.body["metadata"]["partial"] is True


def test_a_route_with_larger_steps_does_not_spoil_the_others() -> None:
    """Three times 24 x 16 is four times on Apiframe: above the limit there alone, so another route serves it."""
    limit = {"DARKROOM_GATEWAY__MAX_OUTPUT_PIXELS": "5000"}
    preferences = {"scale_factor": "3", "routing[order]": "apiframe"}
    with world("fal", "apiframe", environ=limit) as there:
        dry = there.dry_run(**preferences)
        assert [candidate["provider"] for candidate in dry["candidates"]] == ["fal"]
        assert any("would produce 96x64" in route["reason"] for route in dry["excluded"])
        answer = there.edit(extra_body={"scale_factor": 3, "routing": {"order": ["apiframe"]}})
        assert (answer.status, answer.story) == (200, ["fal ok"])
        answer = there.edit(extra_body={"scale_factor": 3, "routing": {"only": ["apiframe"]}})
        assert (answer.status, answer.code) == (400, "output_too_large")
        assert there.taken("apiframe") == 0
