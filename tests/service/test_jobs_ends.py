"""How jobs end as their readers see it: with too few pictures, with files that are gone, cancelled twice; and what is
kept of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.simulators.common import Fault
from tests.simulators.fal import FalAi
from tests.support.hooked import ask, caller, ended
from tests.support.running import until
from tests.support.world import world

PROMPT = "a-prompt-that-nobody-may-keep"


def test_too_few_pictures() -> None:
    """With require_all a job with missing pictures has an error with the addresses of those that were paid for."""
    with world("fal") as there, caller(there.url) as client:
        for preferences, code in (("false", None), ("true", "partial_result")):
            there.sims["fal"].faults.script("job", None, Fault(kind="job", word="FAILED"))
            job = ask(client, background="true", n="2", require_all=preferences).json()["id"]
            body = ended(client, job)
            assert (body["error"] or {}).get("code") == code
            if code is None:
                assert body["result"]["metadata"]["partial"] is True
                continue
            [url] = body["error"]["metadata"]["urls"]
            assert body["result"] is None
            assert httpx.get(url).status_code == 200


def test_files_that_are_gone() -> None:
    """A job whose pictures are over their time says that, to whoever reads it and to a repeated call."""
    with world("fal", environ={"DARKROOM_GATEWAY__FILES_TTL_S": "1"}) as there, caller(there.url) as client:
        headers = {"idempotency-key": "once"}
        job = ask(client, headers=headers).headers["x-darkroom-job"]
        assert ended(client, job)["result"]
        until(lambda: client.get(f"/images/jobs/{job}").json()["error"], "its picture is gone")
        body = client.get(f"/images/jobs/{job}").json()
        again = ask(client, headers=headers)

        assert (body["status"], body["result"], body["error"]["code"]) == ("completed", None, "result_expired")
        assert (again.status_code, again.json()["error"]["code"]) == (410, "result_expired")
        assert there.taken("fal") == 1


def test_cancelled_twice() -> None:
    """A second cancel does not break off the first one's look at the job: it was done before, and nothing is bought."""
    with world("fal", "replicate") as there, caller(there.url) as client, ThreadPoolExecutor(2) as pool:
        fal = there.sims["fal"]
        assert isinstance(fal, FalAi)
        fal.run_s = 60
        fal.faults.script("job", Fault(kind="job", word="UNSTOPPABLE"))
        job = ask(client, background="true").json()["id"]
        until(lambda: there.taken("fal"), "fal has it")
        first = pool.submit(client.post, f"/images/jobs/{job}/cancel")
        until(lambda: fal.books.count("PUT", "/cancel"), "fal was asked to cancel")
        time.sleep(0.1)  # so that it is being watched
        second = pool.submit(client.post, f"/images/jobs/{job}/cancel")
        time.sleep(0.1)  # so that it waits too
        fal.finish_runs()

        for answer in (first.result(), second.result()):
            assert (answer.status_code, answer.json()["status"]) == (200, "completed")
        assert ended(client, job)["result"]
        assert (there.taken("fal"), there.taken("replicate")) == (1, 0)


def test_nothing_is_kept(tmp_path: Path) -> None:
    """With keep_parameters = false a prompt is in no file of the server's, and without it in the ledger alone."""
    for keep in ("true", "false"):
        folder = tmp_path / keep
        environ = {"DARKROOM_GATEWAY__KEEP_PARAMETERS": keep, "DARKROOM_DATA": str(folder)}
        with world("fal", environ=environ) as there, caller(there.url) as client:
            job = ask(client, prompt=PROMPT).headers["x-darkroom-job"]
            told = httpx.get(f"{there.url}/v1/requests/{job}").json()
            holding = {
                path.name for path in folder.rglob("*") if path.is_file() and PROMPT.encode() in path.read_bytes()
            }
            assert bool(told["parameters"]) is bool(holding) is (keep == "true")
            assert all(name.startswith("darkroom.db") for name in holding)
            assert (told["status"], told["images"]) == ("completed", 1)


def test_pictures_in_fields_are_not_kept(tmp_path: Path) -> None:
    """A picture that is sent in a field that nobody declared is only measured; other text is kept."""
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 10
    with world("fal", environ={"DARKROOM_DATA": str(tmp_path)}) as there, caller(there.url) as client:
        answer = ask(client, mask_hint=picture, note="data: red, green")
        kept = httpx.get(f"{there.url}/v1/requests/{answer.headers['x-darkroom-job']}").json()["parameters"]

        assert kept["extra"] == {"mask_hint": {"left_out": len(picture)}, "note": "data: red, green"}
        assert not [path for path in tmp_path.rglob("darkroom.db*") if b"iVBORw0KGgo" in path.read_bytes()]


def test_the_openapi_document() -> None:
    """Every address of jobs and requests is in the document, and no operation has the name of another one."""
    with world("fal") as there:
        paths = httpx.get(f"{there.url}/openapi.json").json()["paths"]
    names = [operation["operationId"] for path in paths.values() for operation in path.values()]

    assert len(names) == len(set(names))
    for prefix in ("/openai/v1", "/v1"):
        assert set(paths[f"{prefix}/images/jobs"]) == {"get"}
        assert set(paths[f"{prefix}/images/jobs/{{id}}"]) == {"get"}
        assert set(paths[f"{prefix}/images/jobs/{{id}}/cancel"]) == {"post"}
    assert set(paths["/v1/requests"]) == set(paths["/v1/requests/{id}"]) == {"get"}
    assert set(paths["/v1/requests/{id}/payload"]) == {"delete"}
    assert not [path for path in paths if path.startswith("/openai/v1/requests")]
