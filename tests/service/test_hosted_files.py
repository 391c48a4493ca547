"""`/files/…` over real HTTP: who gets a picture, for how long, and that nobody gets anything else."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.simulators.common import size
from tests.support.hooked import ask, caller
from tests.support.world import World, world


@contextmanager
def kept(folder: Path, **environ: str) -> Iterator[tuple[World, httpx.Client]]:
    """A world that keeps its files in this folder, and a client."""
    given = {f"DARKROOM_GATEWAY__{name}": value for name, value in environ.items()}
    with world("replicate", environ={"DARKROOM_DATA": str(folder), **given}) as there, caller(there.url) as client:
        yield there, client


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of the shared world are."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def plain(data: Path) -> Iterator[tuple[World, httpx.Client]]:
    """A world with the settings that ship."""
    with kept(data) as there:
        yield there


def made(client: httpx.Client, **headers: str) -> str:
    """Have a picture made; its address."""
    answer = ask(client, headers=headers, response_format="url")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["url"])


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status and the code of a refusal, which is in OpenAI's envelope."""
    return answer.status_code, answer.json()["error"]["code"]


def raw(world: World, target: str, method: str = "GET") -> tuple[int, bytes]:
    """Send a request line as it is, which no client would; the status and the whole answer."""
    url = urlsplit(world.url)
    with socket.create_connection((url.hostname, url.port), timeout=10) as there:
        there.sendall(
            f"{method} {target} HTTP/1.1\r\nhost: {url.netloc}\r\nconnection: close\r\n\r\n".encode("latin-1")
        )
        answer = b""
        while piece := there.recv(65536):
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer


def test_a_picture_as_it_is_handed_out(plain: tuple[World, httpx.Client]) -> None:
    """Its bytes with its own type and nothing that a browser could run; HEAD says the same without them."""
    url = made(plain[1])
    found, head = httpx.get(url), httpx.head(url)

    assert size(found.content)
    assert (found.status_code, head.status_code, head.content) == (200, 200, b"")
    assert found.headers["content-type"] == "image/png"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert found.headers["content-disposition"] == f'inline; filename="{url.rpartition("/")[2]}"'
    assert 3500 < int(found.headers["cache-control"].split("max-age=")[1].split(",")[0]) <= 3600
    ours = {"date", "x-request-id", "openai-processing-ms"}
    assert {k: v for k, v in head.headers.items() if k not in ours} == {
        k: v for k, v in found.headers.items() if k not in ours
    }


TARGETS = [
    "/files/", "/files", "/files/.", "/files/..", "/files/../", "/files/../secret.png", "/files/../darkroom.db",
    "/files/%2e%2e/secret.png", "/files/%2e%2e%2fsecret.png", "/files/%2E%2E%5Csecret.png", "/files/..%2fdarkroom.db",
    "/files/%252e%252e%252fsecret.png", "/files/....//secret.png", "/files//secret.png", "/files//etc/passwd",
    "/files/%2fetc%2fpasswd", "/files/%00", "/files/%00secret.png", "/files/{name}%00", "/files/{name}%00.png",
    "/files/{name}%0a", "/files/{name}%2f", "/files/{name}/..", "/files/./{name}/x", "/files/{name}%2f..%2fsecret.png",
    "/files/{name}.bak", "/files/secret.png", "/files/C:%5cwindows", "/files/\xff\xfe", "/files/%ff%fe", "/files/*",
    "/files/?list", "//files/../secret.png", "/files/..;/secret.png", "/files/" + "a" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_else_is_found(plain: tuple[World, httpx.Client], data: Path, target: str) -> None:
    """No listing, and no way out of the folder, in whatever spelling it is asked for."""
    world, client = plain
    (data / "secret.png").write_bytes(b"SECRET")
    (data / "files" / "secret.png").write_bytes(b"SECRET")
    name = made(client).rpartition("/")[2]

    status, answer = raw(world, target.replace("{name}", name))

    assert status in (400, 404), answer
    assert b"SECRET" not in answer
    assert b"SQLite" not in answer
    assert b"PNG" not in answer
    assert "{name}" in target or name.encode() not in answer
    assert status == 400 or b'"error"' in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_a_file_can_only_be_read(plain: tuple[World, httpx.Client], method: str) -> None:
    """Every other method is refused, and the file is there afterwards."""
    url = made(plain[1])

    assert raw(plain[0], urlsplit(url).path, method)[0] == 405
    assert httpx.get(url).status_code == 200


def test_expiry_is_kept_when_it_is_read(plain: tuple[World, httpx.Client], data: Path) -> None:
    """A file that has outlived its time is not there any more, though no sweep has come by."""
    url = made(plain[1])
    then = time.time() - 3601
    os.utime(data / "files" / url.rpartition("/")[2], (then, then))

    assert code(httpx.get(url)) == (404, "file_not_found")
    assert httpx.head(url).status_code == 404


def test_signed_addresses(tmp_path: Path) -> None:
    """Only the address as it was given leads to the file; it is good for the file's time, in every process."""
    with kept(tmp_path, FILES_SIGNED="true") as (world, client):
        url = made(client, **{"idempotency-key": "signed"})
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        bare = f"{world.url}{parts.path}"
        assert size(httpx.get(url).content)
        assert httpx.head(url).status_code == 200
        assert time.time() + 3590 < int(query["expires"]) <= time.time() + 3601

        other = parts.path.rpartition("/")[2]
        wrong: list[dict[str, Any]] = [
            {},
            {"expires": query["expires"]},
            {"signature": query["signature"]},
            {**query, "expires": str(int(query["expires"]) + 1)},
            {**query, "expires": "9" * 30},
            {**query, "expires": "-1"},
            {**query, "expires": "\u0663"},
            {**query, "signature": query["signature"][:-1]},
            {**query, "signature": query["signature"].upper()},
            {**query, "signature": "\u00e9"},
            {**query, "signature": ""},
        ]
        for changed in wrong:
            assert code(httpx.get(bare, params=changed)) == (403, "invalid_file_signature"), changed
        # A name that was never given out is not told from one that was.
        never = bare.replace(other, "A" * 32 + ".png")
        assert code(httpx.get(never, params=query)) == (403, "invalid_file_signature")
        again = made(client, **{"idempotency-key": "signed"})
        assert urlsplit(again).path == parts.path
        then = time.time() - 3000
        os.utime(tmp_path / "files" / other, (then, then))
        later = made(client, **{"idempotency-key": "signed"})
        assert int(parse_qs(urlsplit(later).query)["expires"][0]) <= time.time() + 601
        os.utime(tmp_path / "files" / other, (then - 3000, then - 3000))
        assert code(httpx.get(later)) == (404, "file_not_found")
        job = client.get("/images/jobs?limit=1").json()["data"][0]["id"]
        fresh = ask(client).json()["data"][0]["url"]
        assert client.get(f"/images/jobs/{job}").json()["error"]["code"] == "result_expired"
    with kept(tmp_path, FILES_SIGNED="true") as (world, client):
        moved = urlsplit(fresh)
        assert size(httpx.get(f"{world.url}{moved.path}?{moved.query}").content)


def test_an_outage_of_the_store_is_not_an_expiry(tmp_path: Path) -> None:
    """While nobody can read the folder the picture is not said to be gone: 503, and everything is there afterwards."""
    with kept(tmp_path) as (_, client):
        url = made(client, **{"idempotency-key": "away"})
        job = client.get("/images/jobs?limit=1").json()["data"][0]["id"]
        (tmp_path / "files").rename(tmp_path / "away")
        (tmp_path / "files").write_text("no folder any more")
        answers = [
            httpx.get(url),
            client.get(f"/images/jobs/{job}"),
            ask(client, headers={"idempotency-key": "away"}, response_format="url"),
        ]
        for answer in answers:
            assert code(answer) == (503, "files_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert "x-should-retry" not in answer.headers
        (tmp_path / "files").unlink()
        (tmp_path / "away").rename(tmp_path / "files")
        assert made(client, **{"idempotency-key": "away"}) == url
        assert client.get(f"/images/jobs/{job}").json()["result"]["data"][0]["url"] == url


@pytest.mark.system
def test_results_in_a_bucket(tmp_path: Path) -> None:
    """The gateway gives the bucket's own addresses, which a plain client fetches; a repeated call gets a fresh one."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        bucket = f"http://{host}:{port}/pictures"
        assert httpx.put(bucket).status_code == 200
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "an-id",
                "AWS_SECRET_ACCESS_KEY": "a-secret",
                "AWS_REGION": "us-east-1",
            }.items():
                environment.setenv(name, value)
            with kept(tmp_path, FILES_URL="s3://pictures/results", FILES_PRESIGNED="true") as (world, client):
                url = made(client, **{"idempotency-key": "bucket"})
                assert url.startswith(f"{bucket}/results/")
                answer = httpx.get(url)
                assert answer.headers["content-type"] == "image/png"
                assert size(answer.content)
                name = urlsplit(url).path.rpartition("/")[2]
                assert httpx.get(f"{world.url}/files/{name}").content == answer.content
                time.sleep(1.1)  # the signature is of the second
                again = made(client, **{"idempotency-key": "bucket"})
                assert (urlsplit(again).path, again == url) == (urlsplit(url).path, False)
                assert httpx.get(again).content == answer.content
                job = client.get("/images/jobs?limit=1").json()["data"][0]["id"]
                forgotten = client.delete(f"{world.url}/v1/requests/{job}/payload").json()
                assert forgotten["files_deleted"] == 1
                assert httpx.get(again).status_code == 404
                assert "a-secret" not in f"{url} {answer.text}"
        assert not (tmp_path / "files").exists()
    finally:
        server.stop()
