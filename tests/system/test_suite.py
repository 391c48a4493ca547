"""The suite itself: what is skipped is seen, and what hangs leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.running import processes

pytestmark = pytest.mark.early


def run(folder: Path, code: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests with the suite's own settings and plugins, in a process of its own."""
    (folder / "test_it.py").write_text(textwrap.dedent(code))
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "tests.support.tiers"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *settings, *arguments, str(folder)]
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST")}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**kept, **environ}, check=False)


SKIPS = """
    import pytest

    def test_it() -> None:
        pytest.skip("no such tool: make setup")

    def test_another() -> None:
        assert True
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_missing_tool_is_named_and_fails_in_ci(tmp_path: Path, workers: str) -> None:
    """On a person's machine a test without its tool is a loud line, in CI it is an error."""
    here = run(tmp_path, SKIPS, "-n", workers)
    assert here.returncode == 0, here.stdout
    assert "NOT TESTED" in here.stdout
    assert "1 test: no such tool: make setup" in here.stdout

    there = run(tmp_path, SKIPS, "-n", workers, CI="true")
    assert there.returncode == 1, there.stdout


HANGS = """
    import time
    from pathlib import Path

    from tests.support.running import serving

    def test_it(tmp_path: Path) -> None:
        with serving(tmp_path) as served:
            (Path(__file__).parent / "pids").write_text(
                " ".join(str(process.pid) for process in served.descendants()) + f" {served.process.pid}"
            )
            time.sleep(3600)

    def test_another() -> None:
        assert True
"""


def test_a_timeout_leaves_no_server_behind(tmp_path: Path) -> None:
    """A test that hangs fails alone, and the servers that it had started are stopped."""
    done = run(tmp_path, HANGS, "-n", "0", "--timeout", "20")

    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "Timeout" in done.stdout
    pids = {int(pid) for pid in (tmp_path / "pids").read_text().split()}
    assert len(pids) > 1
    assert not [line for line in processes() if line.pid in pids and line.state[0] != "Z"]


TESTS = """
    import pytest

    @pytest.mark.parametrize("number", range(40))
    def test_it(number: int, worker_id: str) -> None:
        print(f"<{worker_id}:{number}>")
"""


def test_shuffling_changes_the_order_alone(tmp_path: Path) -> None:
    """The same tests run, in another order for another seed, and in the same order for the same one."""

    def order(*arguments: str) -> list[str]:
        shown = run(tmp_path, TESTS, "-n", "0", "-s", *arguments).stdout
        return [part.partition(">")[0] for part in shown.split("<master:")[1:]]

    plain, one, again, other = order(), order("--shuffle", "1"), order("--shuffle", "1"), order("--shuffle", "2")
    assert plain == [str(number) for number in range(40)]
    assert one == again
    assert sorted(one) == sorted(other) == sorted(plain)
    assert len({tuple(plain), tuple(one), tuple(other)}) == 3
