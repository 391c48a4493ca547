"""A picture that is sent is never written to a disk: not while it comes, not afterwards, not to a file without name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.photo import flat
from tests.support.raw import form, head, line
from tests.support.running import processes, serving

SIZE = 60 << 20
PIECE = 4 << 20
# The ledger and its log, and the result of a few hundred bytes.
MOST = 4 << 20


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_an_upload_of_60_mb(isolation: str, tmp_path: Path) -> None:
    """Neither the folder for temporary files nor the data folder grows, and no process has an unnamed file open."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {
        "TMPDIR": str(scratch),
        "DARKROOM_GATEWAY__MAX_UPLOAD_BYTES": str(SIZE * 2),
        "DARKROOM_GATEWAY__IMAGE_ISOLATION": isolation,
    }
    body = form(flat(64, 48, (220, 30, 30, 128)) + bytes(SIZE), model="lanczos-bp", output_format="jpeg")
    with serving(tmp_path, environ=environ) as served, line(served.root) as client:
        client.say(head(served.root, len(body)))
        pids = [served.process.pid, *(one.pid for one in served.descendants())]
        for at in range(0, len(body), PIECE):
            client.say(body[at : at + PIECE])
            assert on_disk(tmp_path) < MOST
            assert not unnamed(pids)
        answer = client.receive()
        assert answer.status == 200, answer.body[:500]
        assert on_disk(tmp_path) < MOST
        decoders = [one for one in processes() if "imaging.sandbox" in one.command and one.parent == pids[0]]
        assert bool(decoders) == (isolation == "process")
        assert not unnamed([*pids, *(one.pid for one in decoders)])


def on_disk(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def unnamed(pids: list[int]) -> list[str]:
    """The files without a name that these processes have open: where a temporary file would be."""
    found = []
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("/") and "(deleted)" in target and not target.startswith("/memfd:"):
                found.append(target)
    return found
