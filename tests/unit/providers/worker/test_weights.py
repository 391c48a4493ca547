"""Where weights come from, and what is wrong with them. Without torch: weights come first."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from providers.worker.engines.base import WeightsUnusable
from providers.worker.engines.options import EsrganOptions, TileDiffusionOptions, options
from providers.worker.settings import FILE, read
from providers.worker.weights import MANIFEST, Need, choose, problem, source, wanted

COMMIT = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"


def safetensors(size: int) -> bytes:
    """A whole file with `size` bytes of numbers."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


@pytest.mark.parametrize(
    ("text", "repository", "revision", "file", "label"),
    [
        ("owner/name", "owner/name", "main", "", "name"),
        ("owner/name@v1.0", "owner/name", "v1.0", "", "name@v1.0"),
        (f"o/n@{COMMIT}", "o/n", COMMIT, "", "n@451f4fe"),
        ("owner/name:x4.safetensors", "owner/name", "main", "x4.safetensors", "x4.safetensors"),
        ("owner/name@main:a/b.pth", "owner/name", "main", "a/b.pth", "b.pth"),
    ],
)  # fmt: skip
def test_on_the_hub(text: str, repository: str, revision: str, file: str, label: str, tmp_path: Path) -> None:
    """Owner, name, revision and file; and a folder of its own for each revision."""
    found = source("base", text, tmp_path)

    assert (found.repository, found.revision, found.file, found.label) == (repository, revision, file, label)
    assert found.path.is_relative_to(found.root)
    assert found.root.parent == tmp_path


@pytest.mark.parametrize(
    "text", ["name", "a/b/c", "a/b@../../etc", "a/b:../x", "a/b:/etc/passwd", "https://example.org/a.pth", ""]
)
def test_names_nothing(text: str, tmp_path: Path) -> None:
    """What is neither is said to be, and no folder is left."""
    with pytest.raises(WeightsUnusable, match="base: "):
        source("base", text, tmp_path)


def test_a_path_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From where the worker is started, or in the folder of the weights; nothing of the folders is told."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.pth").touch()
    monkeypatch.chdir(tmp_path / "here")

    assert source("model", "./a.pth", tmp_path / "weights").path == Path("a.pth")
    assert source("model", "./b.pth", tmp_path / "weights").path == tmp_path / "weights" / "b.pth"
    assert source("model", str(tmp_path / "secret" / "c.pth"), tmp_path).label == "c.pth"


def test_the_best_file() -> None:
    """Half precision first, and no pickle where there is another."""
    names = ["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"]

    assert choose(names, "unet") == names[1]
    assert choose([*names, "unet/diffusion_pytorch_model.fp16.safetensors"], "unet") == (
        "unet/diffusion_pytorch_model.fp16.safetensors"
    )
    assert choose(names[:1], "unet") == names[0]
    assert choose(["unet/diffusion_pytorch_model.non_ema.safetensors"], "unet") is None
    assert choose(["model.safetensors"], "") == "model.safetensors"


def test_only_what_is_needed(tmp_path: Path) -> None:
    """Of a repository with everything in it five times, once."""
    need = Need(role="base", source=source("base", "o/n", tmp_path), parts=("unet",), plain=("tokenizer",))
    there = [
        "README.md", "v1-5-pruned.ckpt", "unet/config.json", "unet/diffusion_pytorch_model.bin", "tokenizer/vocab.json",
        "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
        "safety_checker/model.safetensors",
    ]  # fmt: skip

    assert wanted(need, there) == (
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    )
    assert wanted(need, [*there, "tokenizer/../../../elsewhere"]) == wanted(need, there)
    with pytest.raises(WeightsUnusable, match="no weights in unet"):
        wanted(need, [name for name in there if "unet/d" not in name])


def test_torn_files(tmp_path: Path) -> None:
    """By what the file says of itself, and by what the hub said of it."""
    file = tmp_path / "x.safetensors"
    need = Need(role="model", source=source("model", str(file), tmp_path))
    assert problem(need) == f"{file} does not exist"
    file.write_bytes(safetensors(100))
    assert problem(need) is None
    file.write_bytes(safetensors(100)[:-1])
    assert "is incomplete" in str(problem(need))
    for broken in (b"", b"PK\3\4" * 10, struct.pack("<Q", 2**60), struct.pack("<Q", 2) + b"[]"):
        file.write_bytes(broken)
        assert "not a safetensors file" in str(problem(need))
    file.write_bytes(safetensors(100))
    (tmp_path / MANIFEST).write_text(json.dumps({"files": {"x.safetensors": {"size": 99}}}))
    assert "instead of the 99 that were fetched" in str(problem(need))


def test_the_shipped_file() -> None:
    """It is read, and each engine's section is what that engine takes."""
    settings = read(FILE)

    assert settings.engine == "lanczos-bp"
    assert (settings.slots, settings.max_output_pixels) == (None, None)
    assert len(options(TileDiffusionOptions, "tile-diffusion", settings.options("tile-diffusion")).needs()) == 3
    assert len(options(EsrganOptions, "esrgan", settings.options("esrgan")).needs()) == 1
    assert settings.options("lanczos-bp") == {}


def test_which_limit_counts(tmp_path: Path) -> None:
    """The command line's (or the cluster's), then the file's, then the default."""
    (tmp_path / "worker.toml").write_text("[worker]\nmax_output_pixels = 1000")
    settings = read(tmp_path / "worker.toml")

    assert settings.limits(50).max_output_pixels == 50
    assert settings.limits(None).max_output_pixels == 1000
    assert read(FILE).limits(None).max_output_pixels == 64_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine = 'esrgan'", "engine must be in a section"),
        (
            "[worker]\nengin = 'esrgan'",
            r"has no key engin; the keys are engine, max_output_pixels, slots, weights",
        ),
        ("[worker]\nslots = -1", "slots must be a non-negative integer, not -1"),
        ("[worker]\nslots = true", "slots must be a non-negative integer"),
        ("[worker]\nengine = ''", "engine must be a text"),
        ("[ersgan]\nmodel = 'x'", r"\[ersgan\] is not an engine; use lanczos-bp, esrgan, tile-diffusion"),
        ("[worker", "worker.toml: "),
    ],
)
def test_mistakes_in_the_file(text: str, said: str, tmp_path: Path) -> None:
    """Each with the file's name and what would be right."""
    (tmp_path / "worker.toml").write_text(text)
    with pytest.raises(WeightsUnusable, match=said):
        read(tmp_path / "worker.toml")
    with pytest.raises(WeightsUnusable, match=r"none\.toml: No such file"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "./x.pth", "tyle": 1}, r"\[esrgan\] tyle: Extra inputs"),
        ({"model": "./x.pth", "tile": 7}, r"\[esrgan\] tile: Input should be greater than or equal to 32"),
        ({"model": "./x.pth", "dtype": "fp8"}, r"\[esrgan\] dtype: "),
        ({}, r"\[esrgan\] model: Field required"),
        (None, r"needs a section \[esrgan\]"),
    ],
)
def test_mistakes_in_a_section(given: dict[str, object] | None, said: str, tmp_path: Path) -> None:
    """Each with the section's and the setting's name."""
    with pytest.raises(WeightsUnusable, match=said):
        options(EsrganOptions, "esrgan", given if given is None else {**given, "weights": tmp_path})


def test_a_repository_is_no_file(tmp_path: Path) -> None:
    chosen = EsrganOptions(model="owner/name", weights=tmp_path)
    with pytest.raises(WeightsUnusable, match="name a file in it, as owner/name@revision:file"):
        chosen.needs()


def weights(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "worker", "weights", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**environ, "PATH": ""}, check=False)


def test_the_list(tmp_path: Path) -> None:
    """What an engine needs, how large it is, under which licence, and that it does not exist."""
    done = weights("--engine", "tile-diffusion", DARKROOM_DATA=str(tmp_path))

    assert done.returncode == 1, done.stderr
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe" in done.stdout
    assert "1.97 GB" in done.stdout
    assert "CreativeML OpenRAIL-M" in done.stdout
    assert done.stdout.count("does not exist") == 3
    assert "darkroom worker weights fetch --engine tile-diffusion" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_list_of_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "RealESRGAN_x4plus.safetensors").write_bytes(safetensors(200_000))
    done = weights("--engine", "esrgan", DARKROOM_DATA=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert "200.1 kB" in done.stdout or "0.2 MB" in done.stdout
    assert f"present: {tmp_path}" in done.stdout


def test_nothing_needed() -> None:
    done = weights()
    assert done.returncode == 0
    assert (
        done.stdout == "lanczos-bp needs no weights; choose an engine that does with --engine: esrgan, tile-diffusion\n"
    )
