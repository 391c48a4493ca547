"""Result files: stored, read, expired, deleted."""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.storage import FileStorage, StorageError, open_store
from normalization.values import Header, Image

PICTURE = Image(data=b"the bytes of a picture", header=Header(format="webp", width=2, height=2))
Opened = Callable[[float], FileStorage]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens the store in a folder, with a time to live in seconds."""
    return lambda ttl: FileStorage(open_store(None, tmp_path), ttl=timedelta(seconds=ttl))


def stored(folder: Path) -> list[str]:
    """The names in the store's folder."""
    return [path.name for path in (folder / "files").iterdir()]


async def test_round_trip(opened: Opened, tmp_path: Path) -> None:
    """What was stored is read back under its name, with the type of its bytes."""
    files = opened(60)
    name = await files.put(PICTURE)
    found = await files.get(name)

    assert found is not None
    assert (found.data, found.media_type) == (PICTURE.data, "image/webp")
    assert name != await files.put(PICTURE)
    assert (tmp_path / "files").stat().st_mode & 0o077 == 0


async def test_a_folder_elsewhere(tmp_path: Path) -> None:
    """A folder of the operator's choice is made where it is not there, and used like our own."""
    files = FileStorage(open_store(f"{(tmp_path / 'a folder').as_uri()}/below", tmp_path), ttl=timedelta(seconds=60))
    name = await files.put(PICTURE)

    assert await files.get(name) is not None
    assert (tmp_path / "a folder" / "below" / name).stat().st_size == len(PICTURE.data)


async def test_a_store_that_fails(opened: Opened, tmp_path: Path) -> None:
    """A store that cannot take a picture says so in one way, whatever is wrong with it; the sweep survives it."""
    files = opened(60)
    (tmp_path / "files").rmdir()
    (tmp_path / "files").write_text("no folder any more")

    with pytest.raises(StorageError):
        await files.put(PICTURE)
    task = asyncio.create_task(files.sweep_for_ever())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()


async def test_a_store_that_is_away_is_not_a_file_that_is_gone(opened: Opened, tmp_path: Path) -> None:
    """Only a file that is missing is told as one."""
    files = opened(60)
    name = await files.put(PICTURE)
    kept = {"file": name, "format": "webp", "width": 2, "height": 2}
    (tmp_path / "files" / name).unlink()
    assert await files.load(kept) is None
    (tmp_path / "files").rmdir()
    (tmp_path / "files").write_text("no folder any more")

    with pytest.raises(StorageError):
        await files.get(name)
    with pytest.raises(StorageError):
        await files.load(kept)


async def test_a_file_is_on_the_disk_before_it_is_told(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes and its name are brought to the disk: the ledger will say after a power failure that it is there."""
    synced: list[str] = []
    really = os.fsync

    def spy(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        really(handle)

    monkeypatch.setattr(os, "fsync", spy)
    name = await opened(60).put(PICTURE)

    assert synced == [str(tmp_path / "files" / name), str(tmp_path / "files")]


async def test_the_sweep_leaves_alone_what_is_not_ours(opened: Opened, tmp_path: Path) -> None:
    """A folder may be shared: files of others do not go with ours."""
    files = opened(60)
    theirs = tmp_path / "files" / "notes.txt"
    theirs.write_text("keep this")
    hour_ago = time.time() - 3600
    os.utime(theirs, (hour_ago, hour_ago))

    assert await files.sweep() == 0
    assert theirs.exists()


async def test_expiry(opened: Opened, tmp_path: Path) -> None:
    """A file that has outlived its time is not served, even before the sweep deletes it; younger ones stay."""
    files = opened(60)
    old, young = await files.put(PICTURE), await files.put(PICTURE)
    hour_ago = time.time() - 3600
    os.utime(tmp_path / "files" / old, (hour_ago, hour_ago))

    assert await files.get(old) is None
    assert await files.sweep() == 1
    assert stored(tmp_path) == [young]
    assert await files.get(young) is not None


async def test_sweeping_goes_on(opened: Opened, tmp_path: Path) -> None:
    """The sweep repeats itself until it is cancelled."""
    files = opened(0.05)
    await files.put(PICTURE)
    task = asyncio.create_task(files.sweep_for_ever())
    for _ in range(100):
        await asyncio.sleep(0.02)
        if not stored(tmp_path):
            break
    task.cancel()

    assert not stored(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x.png",
        "../../etc/passwd",
        "a" * 32 + ".svg",
        "a" * 31 + "/.png",
        "a" * 32 + ".png\n",
        "." * 32 + ".png",
        "a" * 32,
    ],
)
async def test_names(opened: Opened, tmp_path: Path, name: str) -> None:
    """Only names of our own making are looked up: no traversal, no other types."""
    (tmp_path / "secret.png").write_bytes(b"secret")

    assert await opened(60).get(name) is None


async def test_unknown(opened: Opened) -> None:
    """A name of the right form that was never given out is not there."""
    assert await opened(60).get("A" * 32 + ".png") is None
