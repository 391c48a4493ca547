"""The adapter for fal's queue: a job from its submit to its pictures."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from normalization.values import Value
from providers.base import Handle, Readiness, Upstream
from providers.errors import Rejected, Undecodable, Unreached, Unusable
from providers.fal.adapter import Fal
from providers.fal.responses import addresses, cost, images, reason
from providers.http.bodies import Json
from providers.http.client import USER_AGENT
from providers.kit.polling import Pace
from tests.contract.fal_setup import CLARITY, SECRET, Joint, adapter, begun, job, no_key_went_astray, run, soon
from tests.simulators.common import Fault, size, tiny
from tests.simulators.fal import KEY, FalAi
from tests.simulators.fal_models import Shape
from tests.support.fake_cog import data_uri
from tests.support.ports import dead_port


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
async def fal(sim: FalAi) -> AsyncIterator[Fal]:
    async with adapter(sim) as made:
        yield made


async def test_the_submit_is_exactly_this(fal: Fal, sim: FalAi) -> None:
    """The full endpoint id, the input at the top level, the key, one try, this model, and a time to start."""
    await fal.submit(job(seconds=20, upscale_factor=2, seed=7))
    (seen,) = sim.seen
    assert (seen.host, seen.method, seen.path) == ("queue", "POST", f"/{CLARITY}")
    assert seen.json == {"image_url": data_uri(tiny()), "prompt": SECRET, "upscale_factor": 2, "seed": 7}
    assert {name: value for name, value in seen.headers.items() if name not in {"host", "content-length"}} == {
        "authorization": f"Key {KEY}",
        "content-type": "application/json",
        "x-fal-no-retry": "1",
        "x-app-fal-disable-fallback": "true",
        "x-fal-request-timeout": "20",
        "user-agent": USER_AGENT,
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
    }
    assert seen.headers["content-length"] == str(len(seen.body))


async def test_the_picture_really_grows_and_the_bill_is_fals(fal: Fal, sim: FalAi) -> None:
    """What is delivered is the picture that was sent, larger; seconds and cost are what fal says of them."""
    sim.run_s = 0.05
    outcome = await run(fal, upscale_factor=3)
    assert size(outcome.images[0]) == (72, 48)
    assert outcome.seconds == 0.05
    # 72 x 48 pixels at 3 cents a megapixel.
    assert outcome.cost == round(72 * 48 / 1e6 * 0.03 * 1e6)
    assert sim.books.billed == 1
    assert no_key_went_astray(sim)
    assert [seen.headers["authorization"] for seen in sim.asked("GET")] == [f"Key {KEY}"] * len(sim.asked("GET"))


async def test_without_a_price_there_is_no_cost(fal: Fal) -> None:
    """What is not known is None and never 0."""
    handle = await fal.submit(job(options={}))
    assert (await fal.wait(handle, soon())).cost is None


@pytest.mark.parametrize(
    ("units", "usd", "micros"),
    [
        ("0.86400000", "0.03", 25920),
        ("1", "0.08", 80000),
        ("0", "0.03", 0),
        (None, "0.03", None),
        ("1", "", None),
        ("many", "0.03", None),
        ("-1", "0.03", None),
        ("NaN", "0.03", None),
        ("Infinity", "0.03", None),
    ],
)
def test_billable_units_become_micro_dollars(units: str | None, usd: str, micros: int | None) -> None:
    """Fixed-point units at a price; nonsense is no bill."""
    assert cost(httpx.Headers({} if units is None else {"X-Fal-Billable-Units": units}), usd) == micros


async def test_a_sub_path_is_in_the_submit_alone(fal: Fal, sim: FalAi) -> None:
    """Status and result are asked for under owner and app."""
    handle = await fal.submit(job("fal-ai/topaz/upscale/image", upscale_factor=2))
    outcome = await fal.wait(handle, soon())
    assert size(outcome.images[0]) == (48, 32)
    assert sim.asked("POST")[0].path == "/fal-ai/topaz/upscale/image"
    assert {seen.path for seen in sim.asked("GET")} == {
        f"/fal-ai/topaz/requests/{handle.id}/status",
        f"/fal-ai/topaz/requests/{handle.id}",
    }


@pytest.mark.parametrize(
    ("model", "app"),
    [
        ("fal-ai/clarity-upscaler", "fal-ai/clarity-upscaler"),
        ("fal-ai/flux-pro/kontext/max", "fal-ai/flux-pro"),
        ("workflows/us/mine/deep/path", "workflows/us/mine"),
        ("comfy/us/mine", "comfy/us/mine"),
    ],
)
def test_addresses_are_built_as_the_official_client_builds_them(model: str, app: str) -> None:
    """Owner and app, behind a namespace where there is one."""
    base = f"https://queue.fal.run/{app}/requests/12345678"
    assert addresses("https://queue.fal.run", model, "12345678", {}) == {
        "status_url": f"{base}/status",
        "response_url": base,
        "cancel_url": f"{base}/cancel",
    }


async def test_addresses_of_the_answer_are_followed(fal: Fal, sim: FalAi) -> None:
    """Where fal says that a job is, there it is asked for."""
    sim.announce = lambda address: address if address.endswith(("/status", "/cancel")) else f"{address}/response"
    handle = await begun(fal)
    await fal.wait(handle, soon())
    assert sim.asked("GET")[-1].path == f"/{CLARITY}/requests/{handle.id}/response"


@pytest.mark.parametrize(
    "stranger",
    [
        "{media}/steal",
        "https://evil.example/x",
        "http://user:pass@{queue}/x",
        "//evil.example/x",
        "file:///etc/passwd",
        "http://[",
        "",
    ],
)
async def test_an_address_elsewhere_is_not_followed(fal: Fal, sim: FalAi, stranger: str) -> None:
    """Our key goes to the configured origin: an answer that names another one is not believed."""
    sim.announce = lambda _: stranger.format(media=sim.media_url, queue=sim.queue_url.removeprefix("http://"))
    outcome = await run(fal)
    assert size(outcome.images[0]) == (48, 32)
    assert no_key_went_astray(sim)
    assert {seen.path.split("/requests/")[0] for seen in sim.asked("GET")} == {f"/{CLARITY}"}


async def test_a_handle_is_plain_data_and_works_elsewhere(fal: Fal, sim: FalAi) -> None:
    """From the ledger, in another process: the picture and its cost are had without a second submit."""
    handle = await begun(fal)
    stored = json.loads(json.dumps({"provider": handle.provider, "id": handle.id, "data": dict(handle.data)}))
    async with adapter(sim) as other:
        outcome = await other.wait(Handle(**stored), soon())
    assert size(outcome.images[0]) == (48, 32)
    assert outcome.cost is not None
    assert len(sim.asked("POST")) == 1


async def test_a_stored_handle_is_checked_against_the_configured_origin(sim: FalAi) -> None:
    """Who can write into the ledger cannot have our key sent somewhere."""
    async with adapter(sim) as fal:
        handle = await begun(fal)
        bent = dict.fromkeys(("status_url", "response_url", "cancel_url"), f"{sim.media_url}/steal")
        await fal.wait(Handle(provider="fal", id=handle.id, data={**handle.data, **bent}), soon())
    assert no_key_went_astray(sim)


async def test_an_old_job_is_looked_at_at_once(sim: FalAi) -> None:
    """A handle from the ledger may have ended long ago: its age is no reason to wait for it."""
    clock = Joint(sim)
    async with adapter(sim, clock=clock, pace=Pace(clock)) as fal:
        handle = await begun(fal)
        old = {**handle.data, "submitted": str(time.time() - 100)}
        await fal.wait(Handle(provider="fal", id=handle.id, data=old), clock.after(1))
        await fal.wait(Handle(provider="fal", id=handle.id, data={**handle.data, "submitted": "?"}), soon())
    assert sim.asked("PUT") == []


async def test_one_job_is_learned_from_once(sim: FalAi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is asked for a second time says nothing of how long jobs take."""
    learned: list[str] = []
    clock = Joint(sim)
    pace = Pace(clock)
    monkeypatch.setattr(pace, "learn", lambda key, seconds: learned.append(key))
    sim.faults.script("job", Fault(kind="job", word="MOVED"))
    async with adapter(sim, clock=clock, pace=pace) as fal:
        await run(fal)
    assert learned == [f"fal/{CLARITY}/9"]


@pytest.mark.parametrize("shape", ["image", "images", "string", "url"])
@pytest.mark.parametrize("inline", [False, True])
async def test_outputs_in_every_shape(fal: Fal, sim: FalAi, shape: Shape, inline: bool) -> None:
    """An object, a list, a text, at an address or as a data URI: it is the same picture."""
    sim.shape, sim.inline = shape, inline
    assert [size(data) for data in (await run(fal)).images] == [(48, 32)]
    assert len(sim.asked("GET", host="media")) == (0 if inline else 1)


def test_pictures_are_found_in_order_and_nothing_else_is() -> None:
    """Several keep their order; what is no address is no picture."""
    both: Json = {"images": [{"url": "https://a/1"}, {"url": b"2"}, "https://a/3"], "image": None}
    assert images(both) == ["https://a/1", b"2", "https://a/3"]
    empty: list[Json] = [
        None,
        1,
        {},
        {"image": {"url": ""}},
        {"image": {}},
        {"images": []},
        "file:///etc/passwd",
        [None],
    ]
    assert [images(answer) for answer in empty] == [[]] * len(empty)


async def test_without_a_key_it_is_off(sim: FalAi) -> None:
    """Nothing is sent, and the operator is told what to set."""
    upstream = Upstream(model=CLARITY)
    for key in (None, "", " "):
        async with adapter(sim, key=key) as fal:
            assert fal.readiness(upstream) == (Readiness.OFF, "FAL_KEY is not set")
            with pytest.raises(Unusable, match="FAL_KEY is not set"):
                await fal.submit(job())
    async with adapter(sim) as fal:
        assert fal.readiness(upstream) == (Readiness.READY, "")
    assert sim.seen == []


async def test_input_that_the_model_refuses_is_rejected_at_the_result(fal: Fal, sim: FalAi) -> None:
    """Place and message are told, and nothing of what fal repeats: neither prompt nor picture."""
    with pytest.raises(Rejected) as caught:
        await run(fal, upscale_factor=8, num_inference_steps=2)
    assert caught.value.message == (
        "fal: the job failed with HTTP 422: upscale_factor: Input should be less than or equal to 4; "
        "num_inference_steps: Input should be greater than or equal to 4"
    )
    assert caught.value.code == "422"
    assert sim.books.billed == 0


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"image_url": None}, "image_url: Field required"),
        ({"image_url": "data:image/png;base64,AAAA"}, "Could not load image from url"),
        ({"image_url": "https://signed.example/x?token=s3cret"}, "image_url: File download error"),
        ({"output_format": "svg"}, "output_format: Input should be 'png'"),
    ],
)
async def test_what_fal_repeats_of_the_input_is_never_told(fal: Fal, payload: dict[str, Value], message: str) -> None:
    """The message has what went wrong, and of prompt, picture and signed address nothing."""
    with pytest.raises(Rejected) as caught:
        await run(fal, **payload)
    assert caught.value.message == f"fal: the job failed with HTTP 422: {message}"
    for part in (SECRET, "base64", "s3cret", "example"):
        assert part not in repr(caught.value)


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("Request is still in progress", "Request is still in progress"),
        (f'Prompt "{SECRET}" is not allowed', "Prompt"),
        (f"Invalid prompt: {SECRET}", "Invalid prompt"),
        ({"msg": f"Value error, bad prompt: {SECRET}", "type": "value_error", "loc": ["body", "prompt"]},
         "prompt: Value error, bad prompt"),
        ([{"msg": "", "type": "no_media_generated", "loc": ["body"]}], "no_media_generated"),
        ([{"input": SECRET}, 5, None], ""),
        (5, ""),
    ],
)  # fmt: skip
def test_the_reason_is_a_beginning(detail: Value, shown: str) -> None:
    """A text is told up to where it may begin to repeat the input."""
    told = reason({"detail": detail})  # type: ignore[dict-item]
    assert told == shown


async def test_a_result_above_the_cap_is_not_read(sim: FalAi) -> None:
    """fal cannot fill the gateway's memory, by address or inside of the answer."""
    for sim.inline in (False, True):
        async with adapter(sim, max_result_bytes=50) as fal:
            with pytest.raises(Undecodable, match="larger than 50 bytes"):
                await run(fal)


async def test_a_queue_that_is_not_there(sim: FalAi) -> None:
    """Connection refused, no such name, no TLS: nothing was sent, so the next route is free."""
    for url in (
        f"http://127.0.0.1:{dead_port()}",
        "http://no-such-host.invalid",
        sim.queue_url.replace("http", "https"),
    ):
        async with adapter(sim, queue_url=url) as fal:
            with pytest.raises(Unreached):
                await fal.submit(job())
    assert sim.books.taken == []
