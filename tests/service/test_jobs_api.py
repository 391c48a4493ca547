"""`/images/jobs` over real HTTP: jobs in the background, waited for, listed, followed, cancelled, repeated."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.simulators.apiframe import Apiframe
from tests.simulators.clouds import ALL
from tests.simulators.common import Fault, size, tiny
from tests.simulators.replicate import Simulator
from tests.support.hooked import ask, caller, ended
from tests.support.running import until
from tests.support.world import World, world


@pytest.fixture(scope="module")
def every() -> Iterator[World]:
    """A world with all four providers."""
    with world(*ALL) as there:
        yield there


@pytest.fixture
def client(every: World) -> Iterator[httpx.Client]:
    """A caller without a key."""
    for sim in every.sims.values():
        sim.faults.clear()
    with caller(every.url) as there:
        yield there


def begun(client: httpx.Client, **fields: str) -> Any:
    """Begin a job in the background; the body of its 202."""
    answer = ask(client, headers=None, background="true", **fields)
    assert answer.status_code == 202, answer.text
    return answer.json()


def at_work(client: httpx.Client, every: World, name: str) -> str:
    """Begin a job at this provider alone, and wait until that has it; the job's id."""
    before = every.taken(name)
    job = begun(client, routing=json.dumps({"only": [name]}))
    until(lambda: every.taken(name) > before, f"{name} has the job")
    return str(job["id"])


def accepted(answer: Any) -> None:
    """Check a 202: the same id in the body, the header and the address, and nothing of the result yet."""
    body = answer.json()
    assert answer.status_code == 202, answer.text
    assert (body["object"], body["result"], body["error"], body["cost"]) == ("image.job", None, None, None)
    assert body["id"] == answer.headers["x-darkroom-job"]
    assert body["urls"]["get"] == answer.headers["location"]
    assert answer.headers["location"].endswith(f"/openai/v1/images/jobs/{body['id']}")
    assert answer.headers["retry-after"] == "1"


def test_background_through_the_sdk(every: World) -> None:
    """The official SDK sends `background` as a form field, and has the job's id in a 202."""
    with OpenAI(base_url=f"{every.url}/openai/v1", api_key="none", max_retries=0, timeout=30) as sdk:
        raw = sdk.images.with_raw_response.edit(
            model="clarity-upscaler", prompt="a cup", image=("in.png", tiny()), extra_body={"background": "true"}
        )
    accepted(raw.http_response)


@pytest.mark.parametrize(
    ("field", "headers"),
    [({"background": True}, {}), ({}, {"prefer": "respond-async"}), ({}, {"prefer": "wait=5, Respond-Async"})],
)
def test_background_of_a_json_call(client: httpx.Client, field: dict[str, Any], headers: dict[str, str]) -> None:
    """JSON's true and the preference of RFC 7240 ask for the same, and the preference is confirmed."""
    picture = f"data:image/png;base64,{base64.b64encode(tiny()).decode()}"
    given = {"model": "clarity-upscaler", "prompt": "a cup", "images": [{"image_url": picture}], **field}
    answer = client.post("/images/edits", json=given, headers=headers)

    accepted(answer)
    assert answer.headers.get("preference-applied") == ("respond-async" if headers else None)


def test_a_job_is_waited_for(client: httpx.Client, every: World) -> None:
    """Location leads to the job; a read that waits has its end, with the picture at an address of the gateway."""
    job = begun(client)
    answer = client.get(job["urls"]["get"], params={"wait": "20"})
    body = answer.json()
    [picture] = body["result"]["data"]

    assert (answer.status_code, body["status"], body["progress"]) == (200, "completed", 1.0)
    assert body["cost"] == body["result"]["metadata"]["cost"] > 0
    assert body["ended_at"] >= body["created_at"]
    assert "retry-after" not in answer.headers
    assert set(picture) == {"url", "seed"}
    assert picture["url"].startswith(f"{every.url}/files/")
    assert size(httpx.get(picture["url"]).content) == (48, 32)


@pytest.mark.parametrize(("form", "given"), [("b64_json", {"b64_json"}), ("both", {"b64_json", "url"})])
def test_a_job_gives_what_was_asked_for(client: httpx.Client, form: str, given: set[str]) -> None:
    """A picture is inside where the call asked for that in so many words."""
    [picture] = ended(client, begun(client, response_format=form)["id"])["result"]["data"]

    assert set(picture) == given | {"seed"}
    assert size(base64.b64decode(picture["b64_json"], validate=True)) == (48, 32)


def test_the_list_goes_on_after_an_id(client: httpx.Client) -> None:
    """Pages of the list join without a gap, the newest first, and tell states without results."""
    ids = [ended(client, begun(client)["id"])["id"] for _ in range(3)][::-1]
    first = client.get("/images/jobs", params={"limit": 2}).json()
    second = client.get("/images/jobs", params={"limit": 1, "after": first["next"]}).json()

    assert [job["id"] for job in first["data"] + second["data"]] == ids
    assert (first["object"], first["has_more"], first["next"]) == ("list", True, ids[1])
    assert all(job["status"] == "completed" and "result" not in job for job in first["data"])
    cancelled = client.get("/images/jobs", params={"status": "cancelled", "model": "clarity-upscaler"}).json()["data"]
    assert {job["status"] for job in cancelled} <= {"cancelled"}
    assert not {job["id"] for job in cancelled} & set(ids)


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("status=done", "status"), ("after=img_unknown", "after"),
     ("after=%00", "after")],
)  # fmt: skip
def test_a_list_refuses_what_it_does_not_know(client: httpx.Client, query: str, param: str) -> None:
    """A wrong word in the query is a 400 that names it."""
    answer = client.get(f"/images/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_cancelled_at_its_provider(client: httpx.Client, every: World) -> None:
    """A cancel reaches Replicate, and the caller hears what was billed all the same."""
    sim = every.sims["replicate"]
    assert isinstance(sim, Simulator)
    sim.faults.script("job", Fault(kind="job", word="stuck"))
    job = at_work(client, every, "replicate")
    prediction = list(sim.jobs.values())[-1]
    until(lambda: prediction.predict_time > 0.02, "it costs something")
    answer = client.post(client.get(f"/images/jobs/{job}").json()["urls"]["cancel"])
    body = answer.json()
    [attempt] = body["error"]["metadata"]["attempts"]

    assert (answer.status_code, body["status"], body["error"]["code"]) == (200, "cancelled", "job_cancelled")
    assert prediction.status == "canceled"
    assert body["cost"] == attempt["cost"] == pytest.approx(sim.books.bills[prediction.id], abs=2e-6)
    assert body["cost"] > 0
    assert attempt["provider"] == "replicate"
    again = client.post(f"/images/jobs/{job}/cancel").json()
    assert (again["status"], again["ended_at"]) == ("cancelled", body["ended_at"])


def test_what_cannot_be_cancelled_goes_on(client: httpx.Client, every: World) -> None:
    """Apiframe has no cancel: the caller is told so, and gets the picture that is paid for."""
    sim = every.sims["apiframe"]
    assert isinstance(sim, Apiframe)
    sim.run_s = 0.7
    job = at_work(client, every, "apiframe")
    answer = client.post(f"/images/jobs/{job}/cancel")
    sim.run_s = 0.05

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_cancellable")
    assert ended(client, job)["status"] == "completed"


@pytest.mark.parametrize("path", ["img_000000000000000000000000", "nonsense", "%20", "img_0/cancel"])
def test_unknown_jobs(client: httpx.Client, path: str) -> None:
    """An id that nobody was given is a 404 in the envelope, to read and to cancel."""
    answer = client.request("POST" if path.endswith("cancel") else "GET", f"/images/jobs/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("text", ["121", "-1", "soon", "1e2"])
def test_a_wait_is_a_number_of_seconds(client: httpx.Client, text: str) -> None:
    """Anything else is a 400 that names it."""
    answer = client.get(f"/images/jobs/{ended(client, begun(client)['id'])['id']}?wait={text}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "wait")


def test_a_job_is_followed(client: httpx.Client) -> None:
    """Events tell each news of a job, the last one its end with the result."""
    job = begun(client)["id"]
    with client.stream("GET", f"/images/jobs/{job}", headers={"accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    bodies = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

    assert events[-1] == "image.job.completed"
    assert events == [f"image.job.{body['status']}" for body in bodies]
    assert events.count("image.job.completed") == 1
    assert bodies[-1] == client.get(f"/images/jobs/{job}").json()
    assert bodies[-1]["result"]["data"][0]["url"]


def test_transparent_is_no_job(client: httpx.Client, every: World) -> None:
    """OpenAI's own words for `background` are still about what is behind the picture: the call is answered itself."""
    answer = ask(client, background="transparent")
    kept = httpx.get(f"{every.url}/v1/requests/{answer.headers['x-darkroom-job']}").json()

    assert (answer.status_code, len(answer.json()["data"])) == (200, 1)
    assert (kept["mode"], kept["parameters"]["params"]["background"]) == ("plain", "transparent")


def test_a_stream_is_no_background_job(client: httpx.Client, every: World) -> None:
    """To ask for both is a contradiction, and buys nothing."""
    before = [every.taken(name) for name in ALL]
    answer = ask(client, background="true", stream="true")

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "parameter_conflict")
    assert [every.taken(name) for name in ALL] == before


def test_a_plain_call_is_a_job_as_well(client: httpx.Client) -> None:
    """What an answer's header names can be read later, and gives the same result by its address."""
    answer = ask(client)
    job = client.get(f"/images/jobs/{answer.headers['x-darkroom-job']}").json()

    assert job["id"] == answer.json()["id"]
    assert job["result"]["metadata"] == answer.json()["metadata"]
    assert httpx.get(job["result"]["data"][0]["url"]).content == base64.b64decode(answer.json()["data"][0]["b64_json"])


def test_a_failed_job_says_why(client: httpx.Client, every: World) -> None:
    """The error in a job's body is the one that a plain call would have been given, in the list too."""
    every.sims["fal"].faults.always("job", Fault(kind="job", word="FAILED"))
    routing = json.dumps({"only": ["fal"]})
    plain = ask(client, routing=routing).json()["error"]
    job = ended(client, begun(client, routing=routing)["id"])
    listed = client.get("/images/jobs", params={"status": "failed"}).json()["data"][0]

    assert (job["status"], job["result"]) == ("failed", None)
    for error in (job["error"], listed["error"]):
        assert [error[name] for name in ("code", "type", "message")] == [plain[n] for n in ("code", "type", "message")]
        assert [attempt["outcome"] for attempt in error["metadata"]["attempts"]] == ["failed"]


def test_a_key_repeats_and_does_not_buy(client: httpx.Client, every: World) -> None:
    """The same call under its key has the same picture again for one bill; another call under it is refused."""
    before = sum(every.billed(name) for name in ALL)
    headers = {"idempotency-key": "once"}
    first, again = ask(client, headers=headers), ask(client, headers=headers)
    other = ask(client, headers=headers, scale_factor="3")

    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["data"] == first.json()["data"]
    assert sum(every.billed(name) for name in ALL) == before + 1
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reuse")
