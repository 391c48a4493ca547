"""The rooms and who may know whom, read from the imports themselves."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ROOMS = ("normalization", "providers", "gateway")

# What each room may import of the others, and of the world. The most specific entry counts.
OURS = {
    "normalization": {"normalization"},
    "providers": {"providers", "normalization.values"},
    "providers.worker": {"providers.worker", "normalization.values"},
    # One reading of a picture's samples, whoever decodes it.
    "providers.worker.engines.pictures": {
        "providers.worker", "normalization.values", "normalization.images",
    },
    "gateway": {"gateway", "providers", "normalization"},
    "gateway.routing": {"gateway.routing", "providers.base", "normalization"},
    "gateway.telemetry": {"gateway.telemetry"},
    "gateway.auth": {
        "gateway.auth", "gateway.database", "gateway.telemetry", "gateway.settings", "gateway.provider_keys",
        "providers.fairness",
    },
    "gateway.database": {"gateway.database", "gateway.telemetry", "gateway.settings.errors"},
    "gateway.webhooks": {
        "gateway.webhooks", "gateway.database", "gateway.telemetry", "providers.fairness", "providers.http.ssrf",
    },
    "gateway.ledger": {
        "gateway.ledger", "gateway.auth", "gateway.database", "gateway.routing", "gateway.telemetry", "gateway.ticks",
        "gateway.settings", "providers.base", "providers.clock", "providers.http.ids", "normalization",
        # To be mended: what a job may end with is not the ledger's.
        "gateway.jobs.errors",
    },
    "gateway.jobs": {
        "gateway.jobs", "gateway.ledger", "gateway.storage", "gateway.file_names", "gateway.auth", "gateway.database",
        "gateway.routing", "gateway.telemetry", "gateway.imaging", "providers.base", "providers.clock",
        "providers.fairness", "providers.fair_gate", "providers.http.ids", "providers.memory",
        "providers.kit.departure", "gateway.ticks", "normalization",
    },
    "gateway.imaging": {
        "gateway.imaging", "gateway.telemetry", "normalization",
        "providers.clock", "providers.fair_gate", "providers.fairness",
    },
    # The child: what it imports, a hostile picture may get to see.
    "gateway.imaging.child": {"gateway.imaging.protocol", "gateway.imaging.sandbox", "normalization"},
}  # fmt: skip
WORLD = {
    "normalization": {"pydantic", "PIL"},
    "providers": {"httpx", "httpx_aiohttp", "aiohttp", "anyio", "nacl", "pybase64", "typing_extensions"},
    "providers.worker": {
        "PIL", "starlette", "uvicorn", "pybase64", "httpx", "httpx_aiohttp", "anyio", "prometheus_client",
    },
    # A worker starts without them; each engine brings its own.
    "providers.worker.fetch": {"huggingface_hub"},
    "providers.worker.cluster": {"ray", "pydantic", "starlette"},
    "providers.worker.engines": {"PIL", "pydantic", "torch", "spandrel", "diffusers", "transformers"},
    "providers.worker.engines.lanczos_bp": {"PIL"},
    "providers.worker.engines.pictures": {"PIL"},
    "providers.worker.engines.base": set(),
    "gateway.database": {"sqlalchemy", "alembic"},
    "gateway.webhooks": {"httpx", "sqlalchemy"},
    "gateway.jobs": {"obstore", "sqlalchemy", "typing_extensions"},
    "gateway.ledger": {"sqlalchemy", "typing_extensions"},
    "gateway.imaging": set(),
    "gateway.routing": set(),
    "gateway.auth": {"limits", "redis", "sqlalchemy"},
    "gateway.telemetry": {"prometheus_client"},
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the project with its file."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """Everything that a file imports, at any depth: `a.b` for `from a import b` too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def most_specific(rules: dict[str, set[str]], module: str) -> set[str] | None:
    """The entry for the longest prefix of a module's name."""
    matching = [room for room in rules if module == room or module.startswith(f"{room}.")]
    return rules[max(matching, key=len)] if matching else None


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports(module: str, path: Path) -> None:
    """A module imports only from the rooms and the libraries that its own room may know."""
    ours, world = most_specific(OURS, module), most_specific(WORLD, module)
    assert ours is not None
    for name in imports(path):
        top = name.partition(".")[0]
        if top in ROOMS:
            assert any(f"{name}.".startswith(f"{allowed}.") for allowed in ours), f"{module} imports {name}"
        elif top not in {*sys.stdlib_module_names, "_typeshed"} and world is not None:
            assert top in world, f"{module} imports {name}"
        assert top != "tests", f"{module} imports {name}"


def test_only_one_room_knows_pillow() -> None:
    """Pictures are decoded and encoded in normalization and in the worker's engines, nowhere else."""
    users = {module for module, path in modules() if any(name.split(".")[0] == "PIL" for name in imports(path))}

    assert users
    assert all(user.startswith(("normalization.", "providers.worker.")) for user in users), users
