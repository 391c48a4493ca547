"""The folders, what each may import, and the limits that keep them readable.

Each folder states in the docstring of its `__init__.py` what it may import of the project and of the world. A folder
may always import itself; what it names includes what lies beneath.
"""

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROJECT = ("normalization", "providers", "gateway")
MOST_LINES = 400
MOST_FILES = 16

# Single modules whose rights differ from those of their folder: the project's modules, and libraries.
MODULES: dict[str, tuple[set[str], set[str]]] = {
    # The decoder process: a hostile image that takes it over sees what it imports.
    "gateway.imaging.sandbox": ({"gateway.imaging.protocol", "normalization"}, set()),
    "gateway.process": ({"gateway.telemetry", "providers.clock"}, set()),
    "gateway.file_names": ({"normalization.values", "providers.http.ids"}, set()),
    "gateway.storage": (
        {
            "gateway.file_names",
            "gateway.ledger.records",
            "gateway.process",
            "gateway.telemetry",
            "normalization.values",
        },
        {"obstore"},
    ),
    "providers.base": ({"providers.clock", "providers.errors", "normalization.values"}, {"typing_extensions"}),
    "providers.errors": (set(), set()),
    "providers.clock": (set(), {"typing_extensions"}),
    "providers.worker": (
        {"providers.worker", "normalization.values"},
        {"PIL", "starlette", "uvicorn", "pybase64", "httpx", "httpx_aiohttp", "anyio", "prometheus_client"},
    ),
    # A worker starts without them; each engine brings its own.
    "providers.worker.fetch": ({"providers.worker"}, {"huggingface_hub"}),
    "providers.worker.cluster": ({"providers.worker"}, {"ray", "pydantic", "starlette"}),
    "providers.worker.engines": (
        {"providers.worker", "normalization.values"},
        {"PIL", "pydantic", "torch", "spandrel", "diffusers", "transformers"},
    ),
    "providers.worker.engines.lanczos_bp": ({"providers.worker", "normalization.values"}, {"PIL"}),
    # Gateway and worker read the samples of an image by the same code.
    "providers.worker.engines.images": (
        {"providers.worker", "normalization.values", "normalization.images"},
        {"PIL"},
    ),
    "providers.worker.engines.base": ({"providers.worker", "normalization.values"}, set()),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the project with its file."""
    for top in PROJECT:
        for path in sorted((ROOT / top).rglob("*.py")):
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


def stated(folder: str) -> tuple[set[str], set[str] | None]:
    """What a folder's docstring says it may import; None for any library."""
    document = ast.get_docstring(ast.parse((ROOT / folder.replace(".", "/") / "__init__.py").read_text())) or ""
    text = " ".join(document.split())
    ours, libraries = re.search(r"May import: (.*?)\. ", text), re.search(r"Libraries: (.*?)\.$", text)
    assert ours, f"{folder}/__init__.py does not state what it may import"
    assert libraries, f"{folder}/__init__.py does not state its libraries"
    names = set() if ours[1] == "nothing of the project" else set(ours[1].split(", "))
    if libraries[1] == "any":
        return names, None
    return names, set() if libraries[1] == "none" else set(libraries[1].split(", "))


def folders() -> list[str]:
    """The folders that state what they may import: all but the worker's, and the migrations."""
    found = (path.parent.relative_to(ROOT) for top in PROJECT for path in (ROOT / top).rglob("__init__.py"))
    names = sorted(".".join(folder.parts) for folder in found)
    return [name for name in names if not re.search(r"\.(worker|migrations)\b", name)]


FOLDERS = {folder: stated(folder) for folder in folders()}


def rights(module: str) -> tuple[set[str], set[str] | None]:
    """What a module may import: the most specific entry counts."""
    single = [name for name in MODULES if module == name or module.startswith(f"{name}.")]
    if single:
        return MODULES[max(single, key=len)]
    folder = max((name for name in FOLDERS if module == name or module.startswith(f"{name}.")), key=len)
    ours, libraries = FOLDERS[folder]
    return ours | {folder}, libraries


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports(module: str, path: Path) -> None:
    """A module imports only what its folder states."""
    ours, libraries = rights(module)
    for name in imports(path):
        top = name.partition(".")[0]
        if top in PROJECT:
            assert any(f"{name}.".startswith(f"{allowed}.") for allowed in ours), f"{module} imports {name}"
        elif top not in {*sys.stdlib_module_names, "_typeshed"} and libraries is not None:
            assert top in libraries, f"{module} imports {name}"
        assert top != "tests", f"{module} imports {name}"


def test_no_folder_imports_upwards() -> None:
    """The folders stand in an order in which each imports only what stands before it."""
    inner = {name: {f"{one}." for one in ours} for name, (ours, _) in FOLDERS.items() if name.count(".") == 1}
    waiting = set(inner)
    while waiting:
        needs = {
            name: {one for one in waiting if one != name and f"{one}.".startswith((*inner[name],))} for name in waiting
        }
        free = {name for name, needed in needs.items() if not needed}
        assert free, f"these import each other: {needs}"
        waiting -= free


def test_no_provider_imports_another() -> None:
    """An adapter uses the kit, never another adapter."""
    adapters = [name for name in FOLDERS if name.startswith("providers.") and name.split(".")[1] not in ("http", "kit")]

    assert len(adapters) == 5
    for module, path in modules():
        of = next((name for name in adapters if module.startswith(f"{name}.")), None)
        for name in imports(path) if of else ():
            assert not any(name.startswith(f"{other}.") for other in adapters if other != of), (
                f"{module} imports {name}"
            )


@pytest.mark.parametrize("folder", [*FOLDERS, "providers.worker"])
def test_files_a_folder(folder: str) -> None:
    """A folder can be read at a glance."""
    files = list((ROOT / folder.replace(".", "/")).glob("*.py"))

    assert len(files) <= MOST_FILES, f"{folder} has {len(files)} files"


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_lines_a_file(module: str, path: Path) -> None:
    """A file is one concept."""
    lines = len(path.read_text().splitlines())

    assert lines <= MOST_LINES, f"{module} has {lines} lines"


def test_no_two_classes_have_one_name() -> None:
    """A name means one thing, wherever it is met."""
    found: dict[str, list[str]] = {}
    for module, path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(module)

    assert not {name: places for name, places in found.items() if len(places) > 1}


def test_files_of_the_gateway_are_no_crumbs() -> None:
    """Half of its files have 120 lines or more: a concept, not a fragment of one."""
    files = [path for module, path in modules() if module.startswith("gateway.") and "migrations" not in module]
    lines = [len(path.read_text().splitlines()) for path in files if path.name not in ("__init__.py", "__main__.py")]

    assert statistics.median(lines) >= 120


def test_where_pillow_is_used() -> None:
    """Images are decoded and encoded in normalization and in the worker's engines, nowhere else."""
    users = {module for module, path in modules() if any(name.split(".")[0] == "PIL" for name in imports(path))}

    assert users
    assert all(user.startswith(("normalization.images.", "providers.worker.")) for user in users), users
