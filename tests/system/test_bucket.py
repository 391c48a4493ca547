"""Result files in a bucket, by the S3 protocol over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import from_url

from gateway.storage import FileStorage, StorageError, open_store
from normalization.values import Header, Image
from tests.support.ports import dead_port

PICTURE = Image(data=b"the bytes of a picture", header=Header(format="webp", width=2, height=2))
GONE = "A" * 32 + ".png"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of a bucket on a server of this machine, which the environment leads to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        lead_to(environment, f"http://{host}:{port}")
        assert httpx.put(f"http://{host}:{port}/pictures").status_code == 200
        yield f"http://{host}:{port}/pictures"
    server.stop()


def lead_to(environment: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set what the standard variables say of a bucket's server."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "an-id",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_REGION": "us-east-1",
    }.items():
        environment.setenv(name, value)


def files(tmp_path: Path, ttl: float = 60) -> FileStorage:
    """The store in a folder of the bucket."""
    return FileStorage(open_store("s3://pictures/results", tmp_path), ttl=timedelta(seconds=ttl))


async def shown(url: str) -> str:
    """What the bucket's server tells."""
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).text


async def test_round_trip(bucket: str, tmp_path: Path) -> None:
    """Stored under its prefix, read back, deleted; another process of ours sees the same."""
    name = await files(tmp_path).put(PICTURE)
    found = await files(tmp_path).get(name)

    assert found is not None
    assert (found.data, found.media_type) == (PICTURE.data, "image/webp")
    assert f"/{name}" in await shown(f"{bucket}?list-type=2&prefix=results/")
    kept = {"file": name, "format": "webp", "width": 2, "height": 2}
    assert await files(tmp_path).delete(name)
    assert await files(tmp_path).get(name) is None
    assert await files(tmp_path).load(kept) is None
    assert await files(tmp_path).get(GONE) is None


async def test_expiry_and_sweep(bucket: str, tmp_path: Path) -> None:
    """What has outlived its time is not served, and swept; what others have put there is left alone."""
    old = files(tmp_path, ttl=1e-6)
    await old.sweep()  # what other tests have put there
    name = await files(tmp_path).put(PICTURE)
    await obstore.put_async(from_url("s3://pictures/results"), "theirs/keep.png", b"not ours")

    assert await old.get(name) is None
    assert await old.expires(name) is None
    assert await files(tmp_path).get(name) is not None
    assert await old.sweep() == 1
    assert await files(tmp_path).get(name) is None
    assert "results/theirs/keep.png" in await shown(f"{bucket}?list-type=2&prefix=results/")


async def test_presigned_addresses(bucket: str, tmp_path: Path) -> None:
    """The bucket's own address gives the picture for the rest of its time, and at most for seven days."""
    kept = files(tmp_path, ttl=600)
    name = await kept.put(PICTURE)
    expires = await kept.expires(name)
    assert expires is not None
    url = await kept.presigned(name, expires)
    query = parse_qs(urlsplit(url).query)

    assert url.startswith(f"{bucket}/results/{name}?")
    assert 590 <= int(query["X-Amz-Expires"][0]) <= 600
    async with httpx.AsyncClient() as client:
        answer = await client.get(url)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PICTURE.data, "image/webp")
    far = parse_qs(urlsplit(await kept.presigned(name, datetime.now(UTC) + timedelta(days=30))).query)
    assert int(far["X-Amz-Expires"][0]) == 7 * 24 * 3600


async def test_a_bucket_that_is_away_is_not_a_file_that_is_gone(tmp_path: Path) -> None:
    """Every question says that there is no answer, and soon enough for whoever waits."""
    with pytest.MonkeyPatch.context() as environment:
        lead_to(environment, f"http://127.0.0.1:{dead_port()}")
        away = files(tmp_path)
        for question in (away.put(PICTURE), away.get(GONE), away.expires(GONE), away.load({"file": GONE})):
            with pytest.raises(StorageError):
                await question
        assert await away.keep(PICTURE) is None
