"""Where the weights of engines come from, what of them is there, and what is wrong with it. Fetches nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from providers.worker.engines.base import WeightsUnusable

MANIFEST = "darkroom-weights.json"
"""Written beside what was fetched: the commit, and each file's size and hash as the hub told them."""

_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>\w[\w./ -]*))?")
_PATHS = ("/", "./", "../", "~")
# What holds weights, the best first. Half precision is half the download and all that most cards use; a pickle (.bin)
# is loaded as numbers only, so that it cannot run anything.
_ENDINGS = (".fp16.safetensors", ".safetensors", ".fp16.bin", ".bin")
_CHUNK_BYTES = 1 << 20
# The format's own limit.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where weights are, or come from: `repository` at `revision` on the hub, or nothing but a path of the user's.

    `path` is where they are on this machine; `root` is the folder that they are fetched into.
    """

    text: str
    path: Path
    root: Path
    repository: str = ""
    revision: str = "main"
    file: str = ""

    @property
    def label(self) -> str:
        """A short name, for answers and logs: nothing of this machine's folders."""
        if not self.repository:
            return self.path.name
        name = PurePosixPath(self.file).name if self.file else self.repository.rpartition("/")[2]
        return name if self.revision == "main" else f"{name}@{self.revision[:7]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Weights that an engine needs: `role` is the setting that names them.

    `parts` are the folders of a model in diffusers' layout ("" for the model itself); none for a single file. `plain`
    are folders without weights, all of which is needed.
    """

    role: str
    source: Source
    parts: Sequence[str] = ()
    plain: Sequence[str] = ()


def source(role: str, text: str, folder: Path) -> Source:
    """Return what a setting names; `folder` is where fetched weights lie.

    Raises WeightsUnusable for what names nothing.
    """
    if text.startswith(_PATHS):
        path = Path(text).expanduser()
        # A path of the user's is as he sees it: from where the worker is started, or in the folder of the weights.
        if not path.is_absolute() and not path.exists():
            path = folder / path
        return Source(text=text, path=path, root=path)
    found = _HUB.fullmatch(text)
    if found is None or ".." in text:
        raise WeightsUnusable(
            f"{role}: {text!r} is neither owner/name@revision (and :file) on the hub nor a path, which begins with /, "
            "./, ../ or ~"
        )
    revision, file = found["revision"] or "main", found["file"] or ""
    root = folder / f"{found['name'].replace('/', '--')}@{revision.replace('/', '--')}"
    return Source(text=text, path=root / file, root=root, repository=found["name"], revision=revision, file=file)


def choose(names: Iterable[str], part: str) -> str | None:
    """Return the best of the files that hold the weights of a part of a model; None where there is none."""
    there = set(names)
    prefix = f"{part}/" if part else ""
    for ending in _ENDINGS:
        for stem in ("diffusion_pytorch_model", "model", "pytorch_model"):
            if (name := f"{prefix}{stem}{ending}") in there:
                return name
    return None


def wanted(need: Need, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of a repository's files that are needed. Raises WeightsUnusable where one of them is not there."""
    # A name from outside leads nowhere else.
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
            raise WeightsUnusable(
                f"{need.role}: {need.source.text} has no weights {f'in {part}' if part else 'of its own'}"
            )
        chosen += [config, weights]
    return tuple(chosen)


def problem(need: Need) -> str | None:
    """Say what is missing or wrong about weights, by names and sizes; None where nothing is."""
    path = need.source.path
    if not path.exists():
        return f"{path} is not there"
    if not need.parts:
        return _torn(path) if path.is_file() else f"{path} is a folder: one file is needed"
    if not path.is_dir():
        return f"{path} is no folder: a model in diffusers' layout is needed"
    try:
        wanted(need, files_in(path))
    except WeightsUnusable as error:
        return str(error)
    for name in need.plain:
        if not any((path / name).glob("*.json")):
            return f"{path / name} is missing"
    return next((wrong for part in need.parts if (wrong := _torn(path / (choose(files_in(path), part) or "")))), None)


def check(needs: Iterable[Need], engine: str) -> None:
    """Raise Unusable where weights are missing or wrong, with what to do."""
    for need in needs:
        if wrong := problem(need):
            todo = (
                f"fetch them with: darkroom worker weights fetch --engine {engine}"
                if need.source.repository
                else f"put them there, or set {need.role} to where they are"
            )
            raise WeightsUnusable(f"{need.role}: {wrong}; {todo}")


def files_in(path: Path) -> list[str]:
    """Return the files of a folder as the hub names them."""
    return [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]


def manifest(root: Path) -> dict[str, dict[str, object]]:
    """Return what the hub said of each fetched file: size and hash. Empty where nothing was fetched."""
    try:
        found = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    files = found.get("files") if isinstance(found, dict) else None
    return files if isinstance(files, dict) else {}


def digest(path: Path, kind: str) -> str:
    """Return a file's hash: `sha256`, or `git`, the id under which git keeps it."""
    size = path.stat().st_size
    made = hashlib.sha256() if kind == "sha256" else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            made.update(chunk)
    return made.hexdigest()


def _torn(path: Path) -> str | None:
    """Say whether a file is shorter or longer than it says of itself, or than it was when it was fetched."""
    size = path.stat().st_size
    root = next((folder for folder in path.parents if (folder / MANIFEST).exists()), None)
    told = manifest(root).get(path.relative_to(root).as_posix(), {}).get("size") if root else None
    if isinstance(told, int) and told != size:
        return f"{path} has {size} bytes and not the {told} that were fetched"
    if path.suffix != ".safetensors":
        return None
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                return f"{path} is no safetensors file"
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{path} is no safetensors file"
    if size != 8 + length + max(ends, default=0):
        return (
            f"{path} is torn: it has {size} bytes and not the {8 + length + max(ends, default=0)} that it should have"
        )
    return None
