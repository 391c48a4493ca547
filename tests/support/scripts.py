"""Programs as a user would write them, run from a folder of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.running import clean_environ

NODE_FOLDER = ROOT / "tests" / "node" / "node_modules"
NODE = Path(sys.executable).parent / "node"


def run_python(code: str, folder: Path) -> str:
    """Run it; return what it printed. Warnings are errors, but for the files that a short program leaves open."""
    script = folder / "example.py"
    script.write_text(code)
    return _run([sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", script.name], folder)


def run_node(code: str, folder: Path, sdk: str = "openai") -> str:
    """Run it as a module, with this package as its `openai`; return what it printed."""
    assert (NODE_FOLDER / sdk).is_dir(), "the Node packages are not installed: make setup"
    packages = folder / "node_modules"
    packages.mkdir()
    (packages / "openai").symlink_to(NODE_FOLDER / sdk)
    script = folder / "example.mjs"
    script.write_text(code)
    return _run([str(NODE), script.name], folder)


def run_shell(code: str, folder: Path, **environ: str) -> str:
    """Run it; return what it printed."""
    return _run(["sh", "-euc", code], folder, **environ)


def _run(command: list[str], folder: Path, **environ: str) -> str:
    ran = subprocess.run(
        command, cwd=folder, env=clean_environ(**environ), capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
