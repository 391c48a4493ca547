"""A file store that is away while pictures come: none is lost, over kills and restarts, in a folder and in a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from tests.chaos.gateway import Gateway, gateway
from tests.chaos.providers import clouds
from tests.chaos.troubles import StoreAway
from tests.simulators.common import size
from tests.support.hooked import ask, caller, ended
from tests.support.ports import free_port
from tests.support.running import until
from tests.system.test_bucket import lead_to


class Folder:
    """The store in the data folder, which can be made unusable."""

    def __init__(self, data: Path) -> None:
        self._away = StoreAway(data)

    def go(self) -> None:
        """Be away."""
        self._away.begin()

    def come(self) -> None:
        """Be back."""
        self._away.end()


def tried(served: Gateway) -> bool:
    """Whether the store did not take a picture, as the log has it."""
    return "job.waits_for_store" in served.log.read_text()


@pytest.mark.parametrize(("name", "n"), [("fal", 4), ("segmind", 4), ("replicate", 1), ("apiframe", 1)])
def test_killed_while_the_store_is_away(name: str, n: int, tmp_path: Path) -> None:
    """The job is in progress over the kill, and has every picture once the store is back; each is bought once."""
    with clouds(name, run_s=0.2) as there, gateway(tmp_path, there.environ) as served:
        store = Folder(tmp_path / "data")
        with caller(served.url) as client:
            store.go()
            job = ask(client, background="true", n=str(n)).json()["id"]
            until(lambda: tried(served), "the store did not take it")
            before = client.get(f"/images/jobs/{job}").json()
            served.kill()
            store.come()
            served.start()
            body = ended(client, job)
            pictures = [httpx.get(item["url"]) for item in body["result"]["data"]]

        assert (before["status"], body["status"], body["error"]) == ("in_progress", "completed", None)
        assert [picture.status_code for picture in pictures] == [200] * n
        assert all(size(picture.content) for picture in pictures)
        assert [bill.billed for bill in there.bills()] == [True] * n
        until(lambda: not list((tmp_path / "data" / "received").iterdir()), "nothing is left behind")


def test_a_caller_that_waits(tmp_path: Path) -> None:
    """It is given its picture as base64 while the store is away, whatever it asked for, and is told why."""
    with clouds("fal", run_s=0.2) as there, gateway(tmp_path, there.environ) as served, caller(served.url) as client:
        Folder(tmp_path / "data").go()
        headers = {"idempotency-key": "once"}
        answer = ask(client, headers=headers, response_format="url").json()

        def repeated() -> httpx.Response:
            return ask(client, headers=headers, response_format="url")

        # While the process still holds the picture, a repeated call is given it again.
        until(lambda: repeated().status_code != 200, "the process keeps the picture")
        again = repeated()
        assert answer["data"][0]["b64_json"]
        assert "could not be stored" in " ".join(answer["metadata"]["warnings"])
        assert (again.status_code, again.json()["error"]["code"]) == (410, "result_expired")
        assert "delivered" in again.json()["error"]["message"]
        assert len(there.bills()) == 1


class Bucket:
    """An S3 server of this machine that can be stopped. What was in it is lost with it."""

    def __init__(self) -> None:
        self.port = free_port()
        self._server: ThreadedMotoServer | None = None

    def come(self) -> None:
        """Serve an empty bucket."""
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        assert httpx.put(f"http://127.0.0.1:{self.port}/pictures").status_code == 200

    def go(self) -> None:
        """Be away."""
        if self._server is not None:
            self._server.stop()
        self._server = None


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket that the environment leads to."""
    made = Bucket()
    lead_to(monkeypatch, f"http://127.0.0.1:{made.port}")
    yield made
    made.go()


@pytest.mark.parametrize("name", ["fal", "segmind"])
def test_a_bucket_that_is_away(name: str, bucket: Bucket, tmp_path: Path) -> None:
    """What was paid is beside the bucket in the data folder, over a kill, and in the bucket once that is back."""
    aws = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{bucket.port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "an-id",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_REGION": "us-east-1",
        "DARKROOM_GATEWAY__FILES_URL": "s3://pictures/results",
    }
    with clouds(name, run_s=0.2) as there, gateway(tmp_path, {**there.environ, **aws}) as served:
        with caller(served.url) as client:
            job = ask(client, background="true").json()["id"]
            until(lambda: tried(served), "the bucket did not take it", seconds=60)
            kept = list((tmp_path / "data" / "received").iterdir())
            served.kill()
            served.start()
            after = client.get(f"/images/jobs/{job}").json()
            bucket.come()
            body = ended(client, job)
            picture = httpx.get(body["result"]["data"][0]["url"])

        assert len(kept) == 1
        assert after["status"] == "in_progress"
        assert (body["status"], picture.status_code) == ("completed", 200)
        assert [bill.billed for bill in there.bills()] == [True]
