"""Locates and checks the weights of engines on this machine. Never downloads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from providers.worker.engines.base import WeightsUnusable

MANIFEST = "darkroom-weights.json"
"""Written next to fetched weights: the commit, and each file's size and hash as recorded by the hub."""

_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>\w[\w./ -]*))?")
_PATHS = ("/", "./", "../", "~")
# Weight files, best first. Half precision is half the download and what most cards use; a pickle (.bin) is loaded as
# numbers only, so that it cannot execute code.
_ENDINGS = (".fp16.safetensors", ".safetensors", ".fp16.bin", ".bin")
_CHUNK_BYTES = 1 << 20
# The limit defined by the format.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """The location of weights: `repository` at `revision` on the hub, or only a local path.

    `path` is where they are on this machine; `root` is the folder they are fetched into.
    """

    text: str
    path: Path
    root: Path
    repository: str = ""
    revision: str = "main"
    file: str = ""

    @property
    def label(self) -> str:
        """A short name for responses and logs, without this machine's folders."""
        if not self.repository:
            return self.path.name
        name = PurePosixPath(self.file).name if self.file else self.repository.rpartition("/")[2]
        return name if self.revision == "main" else f"{name}@{self.revision[:7]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Weights that an engine needs: `role` is the setting that names them.

    `parts` are the folders of a model in diffusers' layout ("" for the model itself); empty for a single file. `plain`
    are folders without weights that are needed completely.
    """

    role: str
    source: WeightsSource
    parts: Sequence[str] = ()
    plain: Sequence[str] = ()


def source(role: str, text: str, folder: Path) -> WeightsSource:
    """Parse a setting; `folder` is where fetched weights are stored.

    Raises WeightsUnusable for invalid text.
    """
    if text.startswith(_PATHS):
        path = Path(text).expanduser()
        # A relative path is resolved from the working directory, else from the weights folder.
        if not path.is_absolute() and not path.exists():
            path = folder / path
        return WeightsSource(text=text, path=path, root=path)
    found = _HUB.fullmatch(text)
    if found is None or ".." in text:
        raise WeightsUnusable(
            f"{role}: {text!r} is neither owner/name@revision (and :file) on the hub nor a path, which begins with /, "
            "./, ../ or ~"
        )
    revision, file = found["revision"] or "main", found["file"] or ""
    root = folder / f"{found['name'].replace('/', '--')}@{revision.replace('/', '--')}"
    return WeightsSource(text=text, path=root / file, root=root, repository=found["name"], revision=revision, file=file)


def choose(names: Iterable[str], part: str) -> str | None:
    """Return the best weights file of a part of a model; None if it has none."""
    there = set(names)
    prefix = f"{part}/" if part else ""
    for ending in _ENDINGS:
        for stem in ("diffusion_pytorch_model", "model", "pytorch_model"):
            if (name := f"{prefix}{stem}{ending}") in there:
                return name
    return None


def wanted(need: Need, names: Iterable[str]) -> tuple[str, ...]:
    """Return the files of a repository that are needed. Raises WeightsUnusable if one is missing."""
    # Names from the hub must not lead out of the folder.
    there = sorted(name for name in set(names) if ".." not in PurePosixPath(name).parts)
    if not need.parts:
        if need.source.file not in there:
            raise WeightsUnusable(f"{need.role}: {need.source.text} has no such file")
        return (need.source.file,)
    chosen = [name for name in there if name.partition("/")[0] in need.plain and "/" in name]
    for part in need.parts:
        config = f"{part}/config.json" if part else "config.json"
        weights = choose(there, part)
        if config not in there or weights is None:
            raise WeightsUnusable(f"{need.role}: {need.source.text} has no weights{f' in {part}' if part else ''}")
        chosen += [config, weights]
    return tuple(chosen)


def problem(need: Need) -> str | None:
    """Describe what is missing or wrong, by file names and sizes; None if nothing is."""
    path = need.source.path
    if not path.exists():
        return f"{path} does not exist"
    if not need.parts:
        return _size_problem(path) if path.is_file() else f"{path} is a folder; a file is needed"
    if not path.is_dir():
        return f"{path} is not a folder; a model in diffusers' layout is needed"
    try:
        wanted(need, files_in(path))
    except WeightsUnusable as error:
        return str(error)
    for name in need.plain:
        if not any((path / name).glob("*.json")):
            return f"{path / name} is missing"
    return next(
        (wrong for part in need.parts if (wrong := _size_problem(path / (choose(files_in(path), part) or "")))), None
    )


def check(needs: Iterable[Need], engine: str) -> None:
    """Raise WeightsUnusable if weights are missing or wrong, with advice."""
    for need in needs:
        if wrong := problem(need):
            todo = (
                f"fetch them with: darkroom worker weights fetch --engine {engine}"
                if need.source.repository
                else f"put them there, or set {need.role} to their path"
            )
            raise WeightsUnusable(f"{need.role}: {wrong}; {todo}")


def files_in(path: Path) -> list[str]:
    """Return the files of a folder, by relative path."""
    return [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]


def manifest(root: Path) -> dict[str, dict[str, object]]:
    """Return the recorded size and hash of each fetched file; empty if nothing was fetched."""
    try:
        found = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    files = found.get("files") if isinstance(found, dict) else None
    return files if isinstance(files, dict) else {}


def digest(path: Path, kind: str) -> str:
    """Return a file's hash: `sha256`, or `git`, its git blob id."""
    size = path.stat().st_size
    made = hashlib.sha256() if kind == "sha256" else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            made.update(chunk)
    return made.hexdigest()


def _size_problem(path: Path) -> str | None:
    """Describe a file whose size differs from its header or from the download; None if it is right."""
    size = path.stat().st_size
    root = next((folder for folder in path.parents if (folder / MANIFEST).exists()), None)
    recorded = manifest(root).get(path.relative_to(root).as_posix(), {}).get("size") if root else None
    if isinstance(recorded, int) and recorded != size:
        return f"{path} has {size} bytes instead of the {recorded} that were fetched"
    if path.suffix != ".safetensors":
        return None
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                return f"{path} is not a safetensors file"
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{path} is not a safetensors file"
    if size != 8 + length + max(ends, default=0):
        return f"{path} is incomplete: it has {size} bytes instead of {8 + length + max(ends, default=0)}"
    return None
