"""`darkroom worker weights`: what an engine needs, what of it is there, and fetching the rest from the hub."""

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
    """What we know of a repository without asking: the licence of its weights and what is fetched, in bytes."""

    licence: str = "see its page on the hub"
    bytes: int | None = None


def run(argv: Sequence[str]) -> int:
    """List or fetch; return the exit status: 0 where everything is there, 1 where something is not, 2 for mistakes."""
    parser = argparse.ArgumentParser(
        prog="darkroom worker weights",
        description="What an engine needs in weights, and what of it is there. fetch gets what is not.",
    )
    parser.add_argument("action", nargs="?", choices=("list", "fetch", "verify"), default="list")
    parser.add_argument("--engine", choices=tuple(KINDS), help="(default: the config's)")
    parser.add_argument("--config", type=Path, help="the worker's config file")
    args = parser.parse_args(argv)
    try:
        settings = read(args.config)
        engine = args.engine or settings.engine
        if engine not in KINDS:
            print(f"{engine} needs no weights; --engine names one that does: {', '.join(KINDS)}")
            return 0
        needs = options(KINDS[engine], engine, settings.options(engine)).needs()
        known = _read_known()
        if args.action == "fetch":
            for need in needs:
                _get(need, known)
        good = [_show(need, known, verify=args.action != "list") for need in needs]
    except WeightsUnusable as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return 2
    if not all(good) and args.action == "list" and any(need.source.repository for need in needs):
        print(f"\nWhat comes from the hub is fetched by: darkroom worker weights fetch --engine {engine}")
    return 0 if all(good) else 1


def _show(need: Need, known: Mapping[str, Known], *, verify: bool) -> bool:
    wrong = weights.problem(need) or (_altered(need) if verify else None)
    about = known.get(need.source.repository, Known())
    size = sum(map(_size, _files(need))) if not wrong else about.bytes
    licence = about.licence if need.source.repository else "yours to know"
    print(f"{need.role:<12} {need.source.text}")
    print(f"{'':<12} {_human(size):>8}   {licence}")
    print(f"{'':<12} {wrong or f'there: {need.source.path}'}")
    return wrong is None


def _files(need: Need) -> list[Path]:
    path = need.source.path
    if path.is_file():
        return [path]
    return [path / name for name in weights.wanted(need, weights.files_in(path))]


def _get(need: Need, known: Mapping[str, Known]) -> None:
    """Fetch what a setting names, unless it is there or a path of the user's. Raises WeightsUnusable."""
    source = need.source
    if not source.repository or (weights.problem(need) is None and _altered(need) is None):
        return
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ModuleNotFoundError:
        raise WeightsUnusable("fetching needs what is not installed: pip install 'darkroom[torch]'") from None
    try:
        told = HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
        there = {one.rfilename: one for one in told.siblings or []}
        names = weights.wanted(need, there)
        total = sum(there[name].size or 0 for name in names)
        _room(source.root, total)
        licence = getattr(told.card_data, "license", None) or known.get(source.repository, Known()).licence
        print(f"{need.role}: {source.repository} at {told.sha}, {_human(total)}, licence: {licence}", flush=True)
        for name in names:
            path = source.root / name
            if not path.exists() or _differs(path, _told(there[name])):
                # By force: the library goes by its notes of what it fetched, not by what is there.
                again = path.exists()
                hf_hub_download(source.repository, name, revision=told.sha, local_dir=source.root, force_download=again)
    except WeightsUnusable:
        raise
    except Exception as error:
        # Its own, its HTTP library's, which has changed twice, and those of the disk.
        raise WeightsUnusable(f"{need.role}: {source.text} could not be fetched: {first_line(error)}") from error
    files = {name: _told(there[name]) for name in names}
    for name, expected in files.items():
        if wrong := _differs(source.root / name, expected):
            # Loaded by nobody: the next fetch gets it anew.
            (source.root / name).unlink()
            raise WeightsUnusable(
                f"{need.role}: {name} {wrong}: what came is not what the hub says it has; it was deleted"
            )
    before = weights.manifest(source.root)
    record = {"source": source.repository, "commit": told.sha, "licence": licence, "files": before | files}
    part = source.root / f"{weights.MANIFEST}.part"
    part.write_text(json.dumps(record, indent=1))
    part.replace(source.root / weights.MANIFEST)


def _told(entry: Any) -> dict[str, object]:
    """What the hub says of a file. Large ones have a hash of their own; small ones the one that git keeps them by."""
    if entry.lfs:
        return {"size": entry.size, "sha256": entry.lfs.sha256}
    return {"size": entry.size, "git": entry.blob_id}


def _altered(need: Need) -> str | None:
    """Say which of the files is not as it was fetched, by its hash; None where all are, or none was fetched."""
    for name, expected in weights.manifest(need.source.root).items():
        path = need.source.root / name
        if path.exists() and (wrong := _differs(path, expected)):
            return f"{path} {wrong}: fetch it again"
    return None


def _differs(path: Path, expected: Mapping[str, object]) -> str | None:
    if (size := path.stat().st_size) != expected.get("size"):
        return f"has {size} bytes and not {expected.get('size')}"
    for kind in ("sha256", "git"):
        if isinstance(hash_ := expected.get(kind), str) and weights.digest(path, kind) != hash_:
            return f"does not have the {kind} hash {hash_[:12]}…"
    return None


def _room(folder: Path, needed: int) -> None:
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if (free := shutil.disk_usage(place).free) < needed:
        raise WeightsUnusable(f"{folder} has {_human(free)} of room, and {_human(needed)} are to be fetched")
    folder.mkdir(parents=True, exist_ok=True)


def _read_known() -> dict[str, Known]:
    return {name: Known(**about) for name, about in tomllib.loads(_KNOWN.read_text()).items()}


def _size(path: Path) -> int:
    return path.stat().st_size


def _human(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
