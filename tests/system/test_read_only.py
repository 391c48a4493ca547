"""A gateway whose disk cannot be written, but for its data folder: as the manifests in `deploy/` run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from openai import OpenAI

from tests.support.photo import flat
from tests.support.running import COMMAND, serving

# Everything that is mounted becomes read-only, in this process's own view; then the rest is what is to run.
STILL_OPEN = 90
LOCKED = f"""
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
findmnt -rno TARGET | while read -r at; do
    case $at in "$1"|/proc*|/sys*|/dev/pts*) ;; *) mount -o remount,bind,ro "$at" 2>/dev/null || true ;; esac
done
for at in / /tmp /var/tmp /dev/shm "$2"; do
    [ -d "$at" ] && touch "$at/darkroom-was-here" 2>/dev/null && echo "$at can be written" >&2 && exit {STILL_OPEN}
done
shift 2
exec "$@"
"""


def in_a_locked_disk(data: Path, beside: Path, *command: str) -> list[str]:
    """The command that runs another one where `data` alone can be written."""
    return ["unshare", "--mount", "bash", "-c", LOCKED, "locked", str(data), str(beside), *command]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_pictures_on_a_read_only_disk(tmp_path: Path, isolation: str) -> None:
    """It starts, converts, keeps the result and the ledger, and hands the result out, with no other place to write."""
    data = tmp_path / "data"
    data.mkdir()
    tried = subprocess.run(in_a_locked_disk(data, tmp_path, "true"), capture_output=True, text=True, check=False)
    assert tried.returncode != STILL_OPEN, tried.stderr
    if tried.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {tried.stderr.strip()}")
    with (
        serving(
            tmp_path,
            environ={"DARKROOM_GATEWAY__IMAGE_ISOLATION": isolation, "PYTHONDONTWRITEBYTECODE": ""},
            command=in_a_locked_disk(data, tmp_path, *COMMAND),
        ) as served,
        OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
    ):
        answer = client.images.edit(
            model="lanczos-bp",
            prompt="",
            image=("in.png", flat(64, 48, (220, 30, 30, 128))),
            size="128x96",
            output_format="webp",
            response_format="url",
        )
        assert answer.data
        assert answer.data[0].url
        assert client.get(answer.data[0].url, cast_to=bytes)
    assert (data / "darkroom.db").stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "serve.log"]
