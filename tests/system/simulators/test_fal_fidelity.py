"""fal's own Python client against our fal: what it understands, our simulator says as fal does."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterator

import fal_client
import httpx
import pytest
from fal_client.client import FalClientHTTPError
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from PIL import Image as Pillow

from tests.simulators.common import Fault, size, tiny
from tests.simulators.fal import KEY, FalAi
from tests.support.fake_cog import until
from tests.support.links import letterbox

CLARITY = "fal-ai/clarity-upscaler"
PICTURE = f"data:image/png;base64,{base64.b64encode(tiny()).decode()}"


@pytest.fixture
def simulated() -> Iterator[FalAi]:
    with FalAi().running() as sim:
        yield sim


@pytest.fixture
async def official(simulated: FalAi, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[fal_client.AsyncClient]:
    """The official client, told of no other host than ours: it has no setting for that."""
    monkeypatch.setattr("fal_client.client.QUEUE_URL_FORMAT", f"{simulated.queue_url}/")
    monkeypatch.setattr("fal_client.client.RUN_URL_FORMAT", f"{simulated.run_url}/")
    monkeypatch.setattr("fal_client.client.REST_URL", simulated.rest_url)
    monkeypatch.setattr("fal_client.client.CDN_URL", simulated.media_url)
    client = fal_client.AsyncClient(key=KEY)
    yield client
    await (await client._client).aclose()


async def fetched(address: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(address, headers=headers)


async def test_subscribe_submits_polls_and_reads_the_result(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """The client follows the addresses of the submit's answer to a picture that really grew."""
    simulated.queue_s = simulated.run_s = 0.5
    states: list[str] = []
    result = await official.subscribe(
        CLARITY,
        {"image_url": PICTURE, "upscale_factor": 3, "seed": 7},
        on_queue_update=lambda status: states.append(type(status).__name__),
    )
    assert size((await fetched(result["image"]["url"])).content) == (72, 48)
    assert result["seed"] == 7
    assert list(dict.fromkeys(states)) == ["Queued", "InProgress", "Completed"]
    assert simulated.books.billed == 1


async def test_a_sub_path_is_in_the_submit_and_not_in_the_jobs_address(
    official: fal_client.AsyncClient, simulated: FalAi
) -> None:
    """The client finds a job again by owner and app alone."""
    submitted = await official.submit("fal-ai/topaz/upscale/image", {"image_url": PICTURE})
    handle = await official.get_handle("fal-ai/topaz/upscale/image", submitted.request_id)
    assert handle.status_url == submitted.status_url
    assert handle.response_url == submitted.response_url
    assert handle.cancel_url == submitted.cancel_url
    result = await handle.get()
    assert result["image"]["content_type"] == "image/jpeg"
    assert simulated.asked("POST")[0].path == "/fal-ai/topaz/upscale/image"


async def test_run_answers_with_the_result(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """The synchronous host gives the output in the connection of the request."""
    result = await official.run("fal-ai/aura-sr", {"image_url": PICTURE})
    assert size((await fetched(result["image"]["url"])).content) == (96, 64)
    assert simulated.asked("GET") == []


async def test_bad_input_is_taken_and_fails_at_the_result(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """The queue looks at nothing: 422 comes when the result is asked for, and the client raises it as a list."""
    handle = await official.submit(CLARITY, {"image_url": PICTURE, "upscale_factor": 8})
    with pytest.raises(FalClientHTTPError) as caught:
        await handle.get()
    assert caught.value.status_code == 422
    assert caught.value.response.json()["detail"][0]["ctx"] == {"le": 4}
    assert caught.value.response.json()["detail"][0]["input"] == 8
    assert caught.value.response_headers["x-fal-billable-units"] == "0"
    assert simulated.books.billed == 0


async def test_a_picture_that_is_none_fails_with_a_text_that_repeats_it(official: fal_client.AsyncClient) -> None:
    """The other shape of `detail`: a text, with the whole data URI in it."""
    nonsense = "data:image/png;base64,AAAA"
    with pytest.raises(FalClientHTTPError, match="Could not load image from url: data:image/png;base64,AAAA"):
        await official.run(CLARITY, {"image_url": nonsense})


@pytest.mark.parametrize(
    ("word", "status", "kind"),
    [
        ("FAILED", 500, "invalid_status_code"),
        ("RUNNER", 503, "runner_disconnected"),
        ("SLOW_START", 504, "request_timeout"),
    ],
)
async def test_a_failed_job_is_completed_with_an_error(
    official: fal_client.AsyncClient, simulated: FalAi, word: str, status: int, kind: str
) -> None:
    """The client's Completed carries error and type, and the result raises with the error's own status."""
    simulated.faults.script("job", Fault(kind="job", word=word))
    handle = await official.submit(CLARITY, {"image_url": PICTURE}, headers={"X-Fal-No-Retry": "1"})
    seen = await handle.status()
    assert isinstance(seen, fal_client.Completed)
    assert (seen.error, seen.error_type) == (f"Invalid status code: {status}", kind)
    with pytest.raises(FalClientHTTPError) as caught:
        await handle.get()
    assert caught.value.status_code == status
    assert simulated.books.billed == 0


async def test_a_503_is_tried_again_unless_the_submit_says_not_to(
    official: fal_client.AsyncClient, simulated: FalAi
) -> None:
    """Without the header the queue keeps a job that cannot succeed ten times as long."""
    simulated.run_s = 0.1
    simulated.faults.always("job", Fault(kind="job", word="GPU"))
    patient = await official.submit(CLARITY, {"image_url": PICTURE})
    quick = await official.submit(CLARITY, {"image_url": PICTURE}, headers={"X-Fal-No-Retry": "1"})
    with pytest.raises(FalClientHTTPError, match="GPU error"):
        await quick.get()
    assert isinstance(await patient.status(), fal_client.InProgress)


async def test_cancel_in_its_three_answers(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """202 for a job at work, whose result then is 499; 400 for one that is done, 404 for one that is not known."""
    simulated.run_s = 30
    handle = await official.submit(CLARITY, {"image_url": PICTURE})
    await handle.cancel()
    assert isinstance(await handle.status(), fal_client.Completed)
    with pytest.raises(FalClientHTTPError) as late:
        await handle.cancel()
    assert (late.value.status_code, late.value.response.json()) == (400, {"status": "ALREADY_COMPLETED"})
    with pytest.raises(FalClientHTTPError) as gone:
        await handle.get()
    assert (gone.value.status_code, gone.value.error_type) == (499, "client_cancelled")
    with pytest.raises(FalClientHTTPError) as unknown:
        await official.cancel(CLARITY, "00000000-0000-4000-8000-000000000000")
    assert unknown.value.response.json() == {"status": "NOT_FOUND"}
    assert simulated.books.billed == 0


async def test_a_result_that_is_asked_for_too_early(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """It is a 400 with a text, not a wait."""
    simulated.run_s = 30
    handle = await official.submit(CLARITY, {"image_url": PICTURE})
    answer = await fetched(handle.response_url, authorization=f"Key {KEY}")
    assert (answer.status_code, answer.json()) == (400, {"detail": "Request is still in progress"})


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
async def test_uploads_are_what_models_can_fetch(
    official: fal_client.AsyncClient, simulated: FalAi, repository: fal_client.client.UploadRepositoryId
) -> None:
    """Both of the client's ways into the storage give an address that a model takes."""
    address = await official.upload(tiny(), "image/png", "a.png", repository=repository, fallback_repository=repository)
    result = await official.run(CLARITY, {"image_url": address})
    assert size((await fetched(result["image"]["url"])).content) == (48, 32)
    assert (await fetched(address)).content == tiny()


async def test_the_helper_for_data_uris_is_understood(official: fal_client.AsyncClient) -> None:
    """What the client encodes, the simulator decodes."""
    encoded = fal_client.encode_image(Pillow.open(io.BytesIO(tiny())), "png")
    result = await official.run("fal-ai/flux-pro/kontext", {"prompt": "x", "image_url": encoded, "sync_mode": True})
    assert result["images"][0]["url"].startswith("data:image/jpeg;base64,")


async def test_a_wrong_key_a_locked_account_and_no_such_app(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """401, 403 and 404, in fal's words."""
    with pytest.raises(FalClientHTTPError, match="not found"):
        await official.submit("fal-ai/nothing", {})
    simulated.locked = True
    with pytest.raises(FalClientHTTPError, match="Exhausted balance") as locked:
        await official.submit(CLARITY, {"image_url": PICTURE})
    assert locked.value.status_code == 403
    stranger = fal_client.AsyncClient(key="wrong")
    with pytest.raises(FalClientHTTPError, match="invalid key credentials") as wrong:
        await stranger.submit(CLARITY, {"image_url": PICTURE})
    await (await stranger._client).aclose()
    assert wrong.value.status_code == 401
    assert simulated.books.taken == []


async def test_a_lost_answer_makes_the_official_client_buy_twice(
    official: fal_client.AsyncClient, simulated: FalAi
) -> None:
    """Why the gateway has an adapter of its own: the client posts a submit again when its answer is lost."""
    simulated.faults.script("submit", Fault(kind="cut", after=True))
    await official.subscribe(CLARITY, {"image_url": PICTURE})
    assert simulated.books.billed == 2


async def test_the_delivery_host_refuses_keys(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """Whoever sends a key there is written down."""
    result = await official.run(CLARITY, {"image_url": PICTURE})
    assert (await fetched(result["image"]["url"], authorization=f"Key {KEY}")).status_code == 400
    assert len(simulated.strangers) == 1


async def test_a_webhook_tells_the_end_and_is_signed(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """The client names an address; to that comes what the job gave, with a signature that a published key verifies."""
    with letterbox() as box:
        simulated.hooks.way = "twice"
        good = await official.submit(CLARITY, {"image_url": PICTURE, "seed": 7}, webhook_url=box.url)
        await until(lambda: len(box.got) == 2)
        bad = await official.submit(CLARITY, {"image_url": PICTURE, "upscale_factor": 8}, webhook_url=box.url)
        await until(lambda: len(box.got) == 4)
    told = [json.loads(body) for _, body in box.got]
    assert [one["request_id"] for one in told] == [good.request_id] * 2 + [bad.request_id] * 2
    assert (told[0]["status"], told[0]["payload"]["seed"]) == ("OK", 7)
    assert (told[2]["status"], told[2]["error"]) == ("ERROR", "Invalid status code: 422")
    assert told[2]["payload"]["detail"][0]["type"] == "less_than_equal"
    headers, body = box.got[0]
    parts = [headers[f"x-fal-webhook-{name}"] for name in ("request-id", "user-id", "timestamp")]
    message = "\n".join([*parts, hashlib.sha256(body).hexdigest()]).encode()
    keys = (await fetched(f"{simulated.rest_url}/.well-known/jwks.json")).json()["keys"]
    raw = [base64.urlsafe_b64decode(key["x"] + "=") for key in keys]
    VerifyKey(raw[-1]).verify(message, bytes.fromhex(headers["x-fal-webhook-signature"]))
    with pytest.raises(BadSignatureError):
        VerifyKey(raw[0]).verify(message, bytes.fromhex(headers["x-fal-webhook-signature"]))


async def test_logs_are_told_where_they_are_asked_for(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """The client reads them from IN_PROGRESS and COMPLETED alike."""
    simulated.run_s = 0.3
    handle = await official.submit(CLARITY, {"image_url": PICTURE})
    seen = await handle.status(with_logs=True)
    assert isinstance(seen, fal_client.InProgress)
    assert seen.logs
    assert "0%|" in seen.logs[0]["message"]
    await handle.get()
    done = await handle.status(with_logs=True)
    assert isinstance(done, fal_client.Completed)
    assert "100%|" in (done.logs or [])[-1]["message"]
    plain = await handle.status()
    assert isinstance(plain, fal_client.Completed)
    assert plain.logs is None


async def test_the_list_of_requests(official: fal_client.AsyncClient, simulated: FalAi) -> None:
    """What has ended is listed with its input, by endpoint and page; what has not ended is not."""
    ids = [(await official.submit(CLARITY, {"image_url": PICTURE, "seed": n})).request_id for n in range(3)]
    simulated.run_s = 30
    await official.submit(CLARITY, {"image_url": PICTURE})
    url = f"{simulated.api_url}/v1/models/requests/by-endpoint?endpoint_id={CLARITY}&limit=2&expand=payloads"
    first = (await fetched(url, authorization=f"Key {KEY}")).json()
    second = (await fetched(f"{url}&cursor={first['next_cursor']}", authorization=f"Key {KEY}")).json()
    assert [item["request_id"] for item in first["items"] + second["items"]] == ids[::-1]
    assert [item["json_input"]["seed"] for item in first["items"]] == [2, 1]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    assert (await fetched(url)).status_code == 401
