"""Replicate's official client runs against the simulator as against the real thing."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from replicate.webhook import Webhooks, WebhookValidationError

from tests.simulators.common import Fault, size, tiny
from tests.simulators.replicate import TOKEN, Simulator
from tests.simulators.replicate_models import CLARITY, ESRGAN
from tests.support.linked import door

REF = f"philz1337x/clarity-upscaler:{CLARITY}"
PICTURE = tiny(24, 16)
DATA_URI = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator().running() as running:
        yield running


@pytest.fixture
def client(sim: Simulator) -> Iterator[Client]:
    made = Client(api_token=TOKEN, base_url=sim.url)
    made.poll_interval = 0.02
    yield made
    # It has no method for that.
    made._client.close()


def test_run_waits_in_the_submit_and_gives_the_picture_inside_of_the_answer(client: Client, sim: Simulator) -> None:
    """`run` prefers to wait, takes "processing" with output for the end, and finds the larger picture in it."""
    output = client.run(REF, input={"image": DATA_URI, "scale_factor": 2})

    assert isinstance(output, list)
    assert isinstance(output[0], FileOutput)
    assert size(output[0].read()) == (48, 32)
    assert sim.headers[0]["prefer"] == "wait"
    assert sim.books.billed == 1


def test_run_uploads_a_file_first(client: Client, sim: Simulator) -> None:
    """A file goes through the Files API, and the model reads it from there."""
    client.run(f"nightmareai/real-esrgan:{ESRGAN}", input={"image": io.BytesIO(PICTURE), "scale": 3})

    assert sim.bodies[0]["input"]["image"].startswith(f"{sim.url}/v1/files/")
    assert [size(data) for data in sim.results.values()] == [(72, 48)]


def test_an_official_model_runs_by_its_name(client: Client, sim: Simulator) -> None:
    """Without a version the client takes the model's path, where a community model is not found."""
    assert client.run("topazlabs/image-upscale", input={"image": DATA_URI, "upscale_factor": "4x"})
    with pytest.raises(ReplicateError) as caught:
        client.run("philz1337x/clarity-upscaler", input={"image": DATA_URI})
    assert caught.value.status == 404


def test_a_prediction_goes_through_its_states(client: Client, sim: Simulator) -> None:
    """Created it starts, at work it processes, done it has metrics, timestamps and an address to fetch from."""
    sim.boot_s, sim.run_s = 60, 60
    prediction = client.predictions.create(version=CLARITY, input={"image": DATA_URI})
    assert (prediction.status, prediction.output, prediction.metrics) == ("starting", None, None)
    sim.jobs[prediction.id].boot_s = 0
    prediction.reload()
    assert (prediction.status, prediction.output, prediction.metrics) == ("processing", None, None)
    sim.jobs[prediction.id].run_s = 0.001
    prediction.wait()
    assert prediction.status == "succeeded"
    assert prediction.metrics
    assert prediction.metrics["predict_time"] == pytest.approx(0.001)
    assert prediction.started_at
    assert prediction.completed_at
    assert prediction.output
    assert size(httpx.get(prediction.output[0]).content) == (48, 32)
    assert prediction.version == CLARITY
    assert prediction.urls
    assert prediction.urls["get"] == f"{sim.url}/v1/predictions/{prediction.id}"


def test_a_prediction_is_cancelled(client: Client, sim: Simulator) -> None:
    """A running one is canceled at once; one that is done stays as it was."""
    sim.run_s = 30
    running = client.predictions.create(version=CLARITY, input={"image": DATA_URI})
    running.cancel()
    assert client.predictions.get(running.id).status == "canceled"
    sim.run_s = 0
    done = client.predictions.create(version=CLARITY, input={"image": DATA_URI})
    done.wait()
    assert client.predictions.cancel(done.id).status == "succeeded"


def test_predictions_are_listed_newest_first(client: Client) -> None:
    """The list is what a lost submit is looked for in."""
    made = [client.predictions.create(version=CLARITY, input={"image": DATA_URI, "seed": n}).id for n in range(3)]
    page = client.predictions.list()

    assert [prediction.id for prediction in page] == made[::-1]
    assert page.next is None


def test_a_failed_prediction_is_an_error(client: Client, sim: Simulator) -> None:
    """The client raises what the model said."""
    sim.faults.script("job", Fault(kind="job", word="fails"))
    with pytest.raises(ModelError, match="CUDA out of memory"):
        client.run(REF, input={"image": DATA_URI})


@pytest.mark.parametrize(
    ("given", "status", "title"),
    [
        ({"version": "0" * 64, "input": {}}, 422, "Invalid version or not permitted"),
        ({"version": CLARITY, "input": {}}, 422, "Input validation failed"),
        ({"version": CLARITY, "input": {"image": DATA_URI, "output_format": "gif"}}, 422, "Input validation failed"),
    ],
)
def test_refusals_are_problems(client: Client, given: dict[str, object], status: int, title: str) -> None:
    """The client reads status, title and detail out of the error body."""
    with pytest.raises(ReplicateError) as caught:
        client.predictions.create(**given)  # type: ignore[call-overload]
    assert caught.value.status == status
    assert caught.value.title == title
    assert caught.value.detail


def test_a_wrong_key_is_refused(sim: Simulator) -> None:
    """As unauthenticated, by name."""
    stranger = Client(api_token="r8_wrong", base_url=sim.url)
    with pytest.raises(ReplicateError) as caught:
        stranger.predictions.list()
    stranger._client.close()
    assert caught.value.status == 401
    assert caught.value.title == "Unauthenticated"


def test_a_poll_that_is_throttled_is_repeated_and_a_submit_is_not(client: Client, sim: Simulator) -> None:
    """The client repeats what is safe on 429 and 503; a submit it sends once."""
    throttled = Fault(status=429, body={"detail": "Request was throttled.", "status": 429})
    prediction = client.predictions.create(version=CLARITY, input={"image": DATA_URI})
    sim.faults.script("poll", throttled, Fault(status=503))
    prediction.wait()
    assert prediction.status == "succeeded"
    sim.faults.script("submit", throttled)
    with pytest.raises(ReplicateError) as caught:
        client.predictions.create(version=CLARITY, input={"image": DATA_URI})
    assert caught.value.status == 429
    assert len(sim.books.taken) == 1


def test_files_come_and_go(client: Client, sim: Simulator) -> None:
    """An upload has a checksum, an address and an end; deleted it is gone."""
    made = client.files.create(io.BytesIO(PICTURE), filename="in.png", content_type="image/png")
    assert (made.name, made.content_type, made.size) == ("in.png", "image/png", len(PICTURE))
    assert client.files.get(made.id).checksums == made.checksums
    assert client.files.delete(made.id)
    with pytest.raises(ReplicateError):
        client.files.get(made.id)


def test_models_are_described(client: Client) -> None:
    """A community model has a version, an official one has none to name."""
    clarity = client.models.get("philz1337x/clarity-upscaler")
    assert clarity.latest_version
    assert clarity.latest_version.id == CLARITY
    assert client.models.get("topazlabs/image-upscale").latest_version is None


def test_webhooks_are_signed_as_the_client_checks_them(client: Client, sim: Simulator) -> None:
    """The secret comes from the account, the client's own check takes each message, and none that was altered."""
    sim.run_s = 0.2
    with door() as hooks:
        made = client.predictions.create(
            version=CLARITY,
            input={"image": DATA_URI},
            webhook=hooks.url,
            webhook_events_filter=["start", "output", "logs", "completed"],
        )
        made.wait()
        for _ in range(500):
            if "succeeded" in hooks.events("status")[-1:] and len(set(hooks.events("logs"))) > 2:
                break
            time.sleep(0.01)
        secret = client.webhooks.default.secret()
        assert len(hooks.came) > 3
        for headers, body in hooks.came:
            Webhooks.validate(headers=headers, body=body.decode(), secret=secret, tolerance=300)
        assert {json.loads(body)["id"] for _, body in hooks.came} == {made.id}
        headers, body = hooks.came[-1]
        with pytest.raises(WebhookValidationError):
            Webhooks.validate(headers=headers, body=body.decode() + " ", secret=secret)
        sim.hooks.rotate()
        with pytest.raises(WebhookValidationError):
            Webhooks.validate(headers=headers, body=body.decode(), secret=client.webhooks.default.secret())


def test_the_client_hears_of_what_it_does_not_say(client: Client) -> None:
    """Where it names no events it hears of the output and the end; an event or an address that is none is refused."""
    with door() as hooks:
        client.predictions.create(version=CLARITY, input={"image": DATA_URI}, webhook=hooks.url).wait()
        for _ in range(500):
            if len(hooks.came) == 2:
                break
            time.sleep(0.01)
        assert hooks.events("status") == ["succeeded", "succeeded"]
    for wrong in ({"webhook": "http://example.com/"}, {"webhook": hooks.url, "webhook_events_filter": ["end"]}):
        with pytest.raises(ReplicateError) as caught:
            client.predictions.create(version=CLARITY, input={"image": DATA_URI}, **wrong)
        assert caught.value.status == 422


def test_the_client_reads_progress_out_of_the_logs(client: Client, sim: Simulator) -> None:
    """A bar of tqdm, of which the client takes the last."""
    sim.run_s = 0.4
    made = client.predictions.create(version=CLARITY, input={"image": DATA_URI})
    seen = set()
    while made.status not in {"succeeded", "failed"}:
        made.reload()
        if made.progress:
            seen.add(made.progress.percentage)
    assert len(seen) > 3
    assert max(seen) == 1.0


def test_predictions_are_listed_page_by_page(client: Client, sim: Simulator) -> None:
    """The client follows the cursor to the end."""
    sim.page = 2
    made = [client.predictions.create(version=CLARITY, input={"image": DATA_URI, "seed": n}).id for n in range(3)]
    page = client.predictions.list()
    assert page.next
    more = client.predictions.list(page.next)
    assert [prediction.id for prediction in [*page, *more]] == made[::-1]
    assert more.next is None
