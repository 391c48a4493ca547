"""The engine esrgan, with a tiny network of Real-ESRGAN's small kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from providers.worker.engines.base import EngineLimits, InputRejected, RunCancelled, WeightsUnusable
from providers.worker.engines.esrgan import Esrgan
from tests.engines import networks
from tests.engines.calls import difference, encoded, perform, photo, picture


def made(tiny: Path, factor: int = 4, **options: Any) -> Esrgan:
    chosen = {"model": str(tiny / f"compact-x{factor}.safetensors"), "weights": tiny, "devices": ["cpu"], "tile": 32}
    engine = Esrgan(chosen | {"overlap": 8} | options)
    engine.load(EngineLimits())
    return engine


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Esrgan:
    return made(tiny)


@pytest.mark.parametrize("scale", [1, 1.7, 2, 4, 5, 16])
def test_sizes(engine: Esrgan, scale: float) -> None:
    """Any factor, to the pixel: what the network makes is shrunk, and above its own factor it is run again."""
    assert picture(perform(engine, image=encoded(photo(31, 23)), scale=float(scale))).size == (
        round(31 * scale), round(23 * scale),
    )  # fmt: skip


def test_runs(engine: Esrgan, tiny: Path) -> None:
    """It is run no more often than it takes, and the last run is given just what it makes the target of."""
    network = engine._networks[engine._cards.all[0]]

    assert network.sizes((100, 80), (400, 320)) == [(100, 80)]
    assert network.sizes((100, 80), (150, 120)) == [(100, 80)]
    assert network.sizes((100, 80), (500, 400)) == [(100, 80), (125, 100)]
    assert network.sizes((100, 80), (1600, 1280)) == [(100, 80), (400, 320)]
    same = made(tiny, 1)
    assert same._networks[same._cards.all[0]].sizes((10, 10), (40, 40)) == [(10, 10)]


def test_tiled_equals_untiled(tiny: Path) -> None:
    """With tiles that share more than the network sees, no tile is to be seen."""
    source = encoded(photo(100, 70))
    whole = picture(perform(made(tiny, tile=256, overlap=0), image=source))
    tiled = picture(perform(made(tiny, tile=48, overlap=24), image=source))

    # Where tiles meet, a tile's edge is padded; there it counts next to nothing.
    assert difference(whole, tiled) < 0.05


def test_it_is_the_network(engine: Esrgan, tiny: Path) -> None:
    """The picture is what spandrel's own call makes."""
    from spandrel import ModelLoader

    source = photo(24, 20)
    pixels = torch.frombuffer(bytearray(source.tobytes()), dtype=torch.uint8).view(20, 24, 3).permute(2, 0, 1)
    with torch.inference_mode():
        raw = ModelLoader("cpu").load_from_file(tiny / "compact-x4.safetensors")(pixels[None].float() / 255)
    expected = Image.fromarray(raw[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())

    assert difference(picture(perform(engine, image=encoded(source))), expected) < 0.01


def test_transparency(engine: Esrgan) -> None:
    source = photo(24, 24).convert("RGBA")
    source.putalpha(Image.linear_gradient("L").resize((24, 24)))
    enlarged = picture(perform(engine, image=encoded(source)))

    assert enlarged.mode == "RGBA"
    assert difference(
        enlarged.getchannel("A"), source.getchannel("A").resize((96, 96), Image.Resampling.LANCZOS)
    ) < 0.01  # fmt: skip


def test_what_cannot_be_done(tiny: Path) -> None:
    """Each with the input that it is about."""
    engine = made(tiny)
    with pytest.raises(InputRejected, match="does not repair faces"):
        perform(engine, face_enhance=True)
    small = Esrgan({"model": str(tiny / "compact-x4.safetensors"), "weights": tiny})
    small.load(EngineLimits(max_output_pixels=1000))
    with pytest.raises(InputRejected, match="256 x 192 pixels are more than the 1000"):
        perform(small)


def test_what_the_network_makes_has_to_fit(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way to a small picture there may be a large one."""
    from providers.worker.engines import esrgan

    monkeypatch.setattr(esrgan, "available_memory", lambda: 24 * 40_000)
    with pytest.raises(InputRejected, match="makes 49152 pixels on the way to 64 x 48"):
        perform(made(tiny), scale=1.0)


def test_cancelled_and_progress(engine: Esrgan) -> None:
    """It ends before the next tiles, and tells how many are done."""
    lines: list[str] = []
    with pytest.raises(RunCancelled):
        perform(engine, image=encoded(photo(200, 100)), lines=lines, cancelled=lambda: any("%" in one for one in lines))
    done = [line for line in lines if line.startswith("progress")]
    assert len(done) == engine._cards.all[0].batch.size
    assert done[0].startswith("progress: ")


def test_memory_runs_out(tiny: Path) -> None:
    """Fewer tiles at once, from then on."""
    engine = made(tiny)
    network = engine._networks[engine._cards.all[0]]
    plain = perform(engine, image=encoded(photo(100, 80)))

    def refuse(module: Any, args: Any) -> None:
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = network._model.model.register_forward_pre_hook(refuse)
    assert difference(picture(perform(engine, image=encoded(photo(100, 80)))), picture(plain)) < 0.01
    hook.remove()
    assert engine.devices()[0].tile_batch == 1


def test_named_by_its_weights(engine: Esrgan) -> None:
    assert engine.model == "esrgan (compact-x4.safetensors)"


def test_no_network(tiny: Path, tmp_path: Path) -> None:
    """A file of something else is said to be so."""
    from safetensors.torch import save_file

    save_file({"something": torch.zeros(1)}, tmp_path / "no.safetensors")
    with pytest.raises(WeightsUnusable, match=r"no\.safetensors is no network that spandrel knows"):
        made(tiny, model=str(tmp_path / "no.safetensors"))


def test_a_pickle(tiny: Path, tmp_path: Path) -> None:
    """The .pth files that most networks come as are loaded where the user names them, and can run nothing."""
    torch.manual_seed(5)
    torch.save(networks.compact(2).state_dict(), tmp_path / "x2.pth")
    assert picture(perform(made(tiny, model=str(tmp_path / "x2.pth")), scale=2.0)).size == (128, 96)

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"params": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match=r"(?i)unpickl|unsupported|weights|global"):
        made(tiny, model=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()
