"""Answers are bounded: files go out as they are read, and what can be asked for again is turned away without room."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.file_names import new_name
from gateway.storage import FileStorage
from normalization.values import Header, Image
from tests.support.hooked import ask, caller, ended
from tests.support.running import until
from tests.support.world import World, world


@contextmanager
def kept(folder: Path, **settings: str) -> Iterator[tuple[World, httpx.Client]]:
    """A world that keeps its files in this folder, and a client."""
    given = {f"DARKROOM_GATEWAY__{name}": value for name, value in settings.items()}
    with world("fal", environ={"DARKROOM_DATA": str(folder), **given}) as there, caller(there.url) as client:
        yield there, client


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def there(data: Path) -> Iterator[tuple[World, httpx.Client]]:
    """A world with the settings that ship."""
    with kept(data) as one:
        yield one


def made(client: httpx.Client) -> str:
    """Have a picture made; its address."""
    return str(ask(client, response_format="url").json()["data"][0]["url"])


def file_of(data: Path, url: str) -> Path:
    """The file behind an address."""
    return data / "files" / url.rpartition("/")[2]


def larger(data: Path, client: httpx.Client) -> tuple[str, bytes]:
    """The address of a stored file of some pieces, with what is in it."""
    whole = bytes(range(256)) * 4096
    name = new_name(Image(data=whole, header=Header(format="png", width=2, height=2)))
    (data / "files" / name).write_bytes(whole)
    return f"{str(client.base_url).removesuffix('/openai/v1/')}/files/{name}", whole


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=300000-700000", 300_000, 700_001),
        ("bytes=1048570-", 1_048_570, 1_048_576),
        ("bytes=-7", 1_048_569, 1_048_576),
        ("bytes=5-99999999", 5, 1_048_576),
    ],
)
def test_a_range(there: tuple[World, httpx.Client], data: Path, asked: str, start: int, end: int) -> None:
    """206 with just these bytes, and where they are."""
    url, whole = larger(data, there[1])
    answer = httpx.get(url, headers={"range": asked})

    assert (answer.status_code, answer.content) == (206, whole[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=9-5", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "bytes=a-b", "0-5"])
def test_what_is_no_range(there: tuple[World, httpx.Client], data: Path, asked: str) -> None:
    """The whole is a good answer to that; so it is where the file is another one than was thought."""
    url, whole = larger(data, there[1])
    tag = httpx.head(url).headers["etag"]

    assert httpx.get(url, headers={"range": asked}).content == whole
    assert httpx.get(url, headers={"range": "bytes=0-1", "if-range": '"other"'}).content == whole
    assert httpx.get(url, headers={"range": "bytes=0-1", "if-range": tag}).content == whole[:2]


@pytest.mark.parametrize("asked", ["bytes=1048576-", "bytes=2000000-3000000", "bytes=-0"])
def test_a_range_beyond_the_end(there: tuple[World, httpx.Client], data: Path, asked: str) -> None:
    """416, with the size that there is."""
    url, whole = larger(data, there[1])
    answer = httpx.get(url, headers={"range": asked})

    assert (answer.status_code, answer.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(whole)}"


def test_a_cut_file_is_no_200(there: tuple[World, httpx.Client], data: Path) -> None:
    """Neither by its address nor inside of a job: it is said to be damaged."""
    client = there[1]
    headers = {"idempotency-key": "cut"}
    answer = ask(client, headers=headers)
    url, job = answer.json()["data"][0]["url"], answer.headers["x-darkroom-job"]
    path = file_of(data, url)
    path.write_bytes(path.read_bytes()[:-1])
    found = [httpx.get(url), httpx.get(url, headers={"range": "bytes=0-1"}), ask(client, headers=headers)]

    assert [(one.status_code, one.json()["error"]["code"]) for one in found] == [(500, "file_damaged")] * 3
    assert httpx.head(url).status_code == 500
    assert client.get(f"/images/jobs/{job}").json()["error"]["code"] == "file_damaged"


def test_a_changed_file_is_no_200(there: tuple[World, httpx.Client], data: Path) -> None:
    """A small one is an error; of one that is half out when that is found, the answer is cut short."""
    url = made(there[1])
    path = file_of(data, url)
    path.write_bytes(bytes(reversed(path.read_bytes())))
    assert httpx.get(url).status_code == 500

    url, whole = larger(data, there[1])
    file_of(data, url).write_bytes(whole[:-1] + b"?")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url)


def test_a_job_without_its_picture_does_not_read_it(
    there: tuple[World, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its address is asked for: nobody needs the bytes for that."""
    client = there[1]
    job = ask(client, background="true").json()["id"]
    before = ended(client, job)

    async def never(*given: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(FileStorage, "get", never)
    assert client.get(f"/images/jobs/{job}").json() == before
    assert before["result"]["data"][0]["url"]


def test_answers_count(tmp_path: Path) -> None:
    """While one answer is not taken, others that can be asked for again are turned away, and new calls as well."""
    with kept(tmp_path, MAX_IN_FLIGHT_BYTES="1500000") as (there, client), socket.socket() as lazy:
        url, _ = larger(tmp_path, client)
        place = httpx.URL(url)
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((place.host, place.port))
        lazy.sendall(f"GET {place.path} HTTP/1.1\r\nhost: {place.host}\r\n\r\n".encode())
        until(lambda: there.metric("darkroom_request_bytes_held") == 1 << 20, "it is being sent")
        second, new = httpx.get(url), client.post("/images/edits", content=bytes(600_000))
        lazy.close()
        until(lambda: there.metric("darkroom_request_bytes_held") == 0, "it is over")

        assert [(one.status_code, one.json()["error"]["code"]) for one in (second, new)] == [(503, "overloaded")] * 2
        assert second.headers["retry-after"]
        assert httpx.get(url).status_code == 200


def test_polls_count_for_the_rate(tmp_path: Path) -> None:
    """A key that may ask thrice a minute has asked thrice, whether it had something made or looked for it."""
    environ = {"DARKROOM_ADMIN_KEY": "the-key-of-the-admin-and-of-nobody-else", "DARKROOM_DATA": str(tmp_path)}
    with world("fal", environ=environ) as there:
        with caller(there.url, key=environ["DARKROOM_ADMIN_KEY"]) as admin:
            key = admin.post("/keys", content=json.dumps({"name": "three", "rpm": 3})).json()["key"]
        with caller(there.url, key=key) as client:
            job = ask(client, background="true").json()["id"]
            found = [client.get(f"/images/jobs/{job}") for _ in range(3)]

        assert [one.status_code for one in found] == [200, 200, 429]
        assert found[1].headers["x-ratelimit-remaining-requests"] == "0"
        assert found[2].json()["error"]["code"] == "rate_limit_exceeded"
