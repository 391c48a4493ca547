"""`darkroom worker weights`: lists, verifies and fetches the weights that an engine needs."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.worker import weights
from providers.worker.engines.base import WeightsUnusable, first_line
from providers.worker.engines.options import KINDS, options
from providers.worker.settings import FILE, read
from providers.worker.weights import Need

_KNOWN = FILE.with_name("weights.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a repository in advance: the licence of its weights and the download size in bytes."""

    licence: str = "see its page on the hub"
    bytes: int | None = None


def run(argv: Sequence[str]) -> int:
    """List, verify or fetch; return the exit status: 0 if everything is present, 1 if not, 2 for errors."""
    parser = argparse.ArgumentParser(
        prog="darkroom worker weights",
        description="List the weights that an engine needs, verify them, or fetch the missing ones.",
    )
    parser.add_argument("action", nargs="?", choices=("list", "fetch", "verify"), default="list")
    parser.add_argument("--engine", choices=tuple(KINDS), help="the engine (default: the config's)")
    parser.add_argument("--config", type=Path, help="the worker's config file")
    args = parser.parse_args(argv)
    try:
        settings = read(args.config)
        engine = args.engine or settings.engine
        if engine not in KINDS:
            print(f"{engine} needs no weights; choose an engine that does with --engine: {', '.join(KINDS)}")
            return 0
        needs = options(KINDS[engine], engine, settings.options(engine)).needs()
        known = _read_known()
        if args.action == "fetch":
            for need in needs:
                _fetch(need, known)
        good = [_show(need, known, verify=args.action != "list") for need in needs]
    except WeightsUnusable as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return 2
    if not all(good) and args.action == "list" and any(need.source.repository for need in needs):
        print(f"\nFetch the missing weights with: darkroom worker weights fetch --engine {engine}")
    return 0 if all(good) else 1


def _show(need: Need, known: Mapping[str, Known], *, verify: bool) -> bool:
    wrong = weights.problem(need) or (_altered(need) if verify else None)
    about = known.get(need.source.repository, Known())
    size = sum(map(_size, _files(need))) if not wrong else about.bytes
    licence = about.licence if need.source.repository else "not known (your own file)"
    print(f"{need.role:<12} {need.source.text}")
    print(f"{'':<12} {_human(size):>8}   {licence}")
    print(f"{'':<12} {wrong or f'present: {need.source.path}'}")
    return wrong is None


def _files(need: Need) -> list[Path]:
    path = need.source.path
    if path.is_file():
        return [path]
    return [path / name for name in weights.wanted(need, weights.files_in(path))]


def _fetch(need: Need, known: Mapping[str, Known]) -> None:
    """Fetch the weights of a setting, unless they are present or a local path. Raises WeightsUnusable."""
    source = need.source
    if not source.repository or (weights.problem(need) is None and _altered(need) is None):
        return
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ModuleNotFoundError:
        raise WeightsUnusable(
            "fetching needs a package that is not installed: pip install '.[torch]' in the checkout"
        ) from None
    try:
        info = HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
        there = {one.rfilename: one for one in info.siblings or []}
        names = weights.wanted(need, there)
        total = sum(there[name].size or 0 for name in names)
        _check_space(source.root, total)
        licence = getattr(info.card_data, "license", None) or known.get(source.repository, Known()).licence
        print(f"{need.role}: {source.repository} at {info.sha}, {_human(total)}, licence: {licence}", flush=True)
        for name in names:
            path = source.root / name
            if not path.exists() or _differs(path, _record(there[name])):
                # Forced, because the library trusts its own record of downloads, not the file.
                again = path.exists()
                hf_hub_download(source.repository, name, revision=info.sha, local_dir=source.root, force_download=again)
    except WeightsUnusable:
        raise
    except Exception as error:
        # Errors of the hub library, of its HTTP library, which has changed twice, and of the disk.
        raise WeightsUnusable(f"{need.role}: cannot fetch {source.text}: {first_line(error)}") from error
    files = {name: _record(there[name]) for name in names}
    for name, expected in files.items():
        if wrong := _differs(source.root / name, expected):
            # Deleted, so that nothing loads it and the next fetch downloads it again.
            (source.root / name).unlink()
            raise WeightsUnusable(
                f"{need.role}: {name} {wrong}: the download does not match the hub's record and was deleted"
            )
    before = weights.manifest(source.root)
    record = {"source": source.repository, "commit": info.sha, "licence": licence, "files": before | files}
    part = source.root / f"{weights.MANIFEST}.part"
    part.write_text(json.dumps(record, indent=1))
    part.replace(source.root / weights.MANIFEST)


def _record(entry: Any) -> dict[str, object]:
    """The hub's record of a file: large files have a SHA-256, small ones their git blob id."""
    if entry.lfs:
        return {"size": entry.size, "sha256": entry.lfs.sha256}
    return {"size": entry.size, "git": entry.blob_id}


def _altered(need: Need) -> str | None:
    """Describe the first file whose hash differs from its download; None if all match or none was fetched."""
    for name, expected in weights.manifest(need.source.root).items():
        path = need.source.root / name
        if path.exists() and (wrong := _differs(path, expected)):
            return f"{path} {wrong}: fetch it again"
    return None


def _differs(path: Path, expected: Mapping[str, object]) -> str | None:
    if (size := path.stat().st_size) != expected.get("size"):
        return f"has {size} bytes instead of {expected.get('size')}"
    for kind in ("sha256", "git"):
        if isinstance(hash_ := expected.get(kind), str) and weights.digest(path, kind) != hash_:
            return f"does not have the {kind} hash {hash_[:12]}…"
    return None


def _check_space(folder: Path, needed: int) -> None:
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if (free := shutil.disk_usage(place).free) < needed:
        raise WeightsUnusable(f"{folder} has {_human(free)} of free space, and the download needs {_human(needed)}")
    folder.mkdir(parents=True, exist_ok=True)


def _read_known() -> dict[str, Known]:
    return {name: Known(**about) for name, about in tomllib.loads(_KNOWN.read_text()).items()}


def _size(path: Path) -> int:
    return path.stat().st_size


def _human(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
