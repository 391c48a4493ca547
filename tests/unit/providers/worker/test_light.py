"""The base install: neither imports nor needs what the engines for cards stand on."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tests.support.paths import ROOT

HEAVY = "{'torch', 'torchvision', 'diffusers', 'transformers', 'spandrel', 'ray', 'huggingface_hub', 'numpy'}"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.system
def test_nothing_heavy_is_imported() -> None:
    """Neither by the gateway, nor by a worker with the engine of the base install, whose start is counted."""
    gateway = (
        f"import sys; import gateway.app, gateway.cli.serve, gateway.__main__; print({HEAVY} & sys.modules.keys())"
    )
    assert run(gateway) == "set()"
    heavier = HEAVY.replace("}", ", 'pydantic', 'prometheus_client', 'httpx'}")
    worker = (
        "import sys; from providers.worker import main, settings; from providers.worker.engines import create; "
        f"create(settings.read().engine); print({heavier} & sys.modules.keys())"
    )
    assert run(worker) == "set()"


@pytest.mark.parametrize(("engine", "extra"), [("esrgan", "torch"), ("tile-diffusion", "diffusion")])
def test_what_is_missing_is_named(engine: str, extra: str) -> None:
    """Without torch an engine that needs it says which extra to install."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from providers.worker.engines import create\n"
        "from providers.worker.engines.base import WeightsUnusable\n"
        f"try: create({engine!r}, {{'weights': '.'}})\n"
        "except WeightsUnusable as error: print(error)"
    )
    assert f"pip install '.[{extra}]'" in run(code)


def test_the_base_needs_none_of_it() -> None:
    """Heavy libraries are extras, and not in the lock file of the base."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = (ROOT / "requirements.lock").read_text()

    for name in ("torch", "diffusers", "transformers", "spandrel", "ray", "numpy"):
        assert not any(one.startswith(name) for one in project["dependencies"])
        assert f"\n{name}==" not in f"\n{locked}"
    assert {"torch", "diffusion", "ray"} <= project["optional-dependencies"].keys()
