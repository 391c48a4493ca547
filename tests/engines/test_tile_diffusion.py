"""The engine tile-diffusion as a whole, with tiny networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from providers.worker.engines.base import EngineFailure, EngineLimits, InputRejected, RunCancelled
from providers.worker.engines.diffusion.inputs import factors
from providers.worker.engines.tile_diffusion import TileDiffusion
from tests.engines.calls import difference, encoded, perform, photo, picture
from tests.engines.conftest import Run


@pytest.mark.parametrize(
    ("scale", "passes"),
    [
        (1, (1,)),
        (1.5, (1.5,)),
        (2, (2,)),
        (2.05, (2.05,)),
        (3, (2, 1.5)),
        (4, (2, 2)),
        (8, (2, 2, 2)),
        (5, (2, 2, 1.25)),
    ],
)
def test_factors(scale: float, passes: tuple[float, ...]) -> None:
    """At most 2 a pass, and a little more rather than one for next to nothing."""
    assert factors(scale) == pytest.approx(passes)


@pytest.mark.parametrize("scale", [1, 1.37, 2, 3])
def test_sizes(run: Run, scale: float) -> None:
    """The picture has the asked size to the pixel, also where the networks need multiples of 8 or 16."""
    made = picture(run(image=encoded(photo(53, 41)), scale_factor=float(scale)))

    assert made.size == (round(53 * scale), round(41 * scale))
    assert made.mode == "RGB"


def test_passes_with_less_and_less(run: Run) -> None:
    """Above 2 there are passes, each with one seed more and four fifths of the creativity."""
    lines: list[str] = []
    made = picture(run(scale_factor=4.0, creativity=1.0, num_inference_steps=10, lines=lines))

    assert made.size == (256, 192)
    steps = [line for line in lines if line.startswith("progress")]
    assert [sum(f"pass {number} of 2" in line for line in steps) for number in (1, 2)] == [10, 8]
    assert "seed 7" in lines[0]
    second = picture(run(image=encoded(picture(run(creativity=1.0, num_inference_steps=10))), creativity=0.8, seed=8,
                         num_inference_steps=10))  # fmt: skip
    assert difference(made, second) == 0


def test_seeds_repeat_to_the_bit(run: Run) -> None:
    """The same seed gives the same bytes, also with a sampler that draws; another seed does not."""
    asked: dict[str, Any] = {"scheduler": "DPM++ 3M SDE Karras", "creativity": 0.8}
    one, again, other = run(**asked), run(**asked), run(seed=8, **asked)

    assert one.data == again.data
    assert one.data != other.data


def test_a_seed_is_drawn_and_told(engine: Any) -> None:
    """Without a seed each run differs, and its log tells how to have it again."""
    lines: list[str] = []
    values = {name: field.default for name, field in engine.inputs.items() if field.default is not None}
    values |= {"image": encoded(photo(32, 32)), "tiling_width": 16, "tiling_height": 16, "num_inference_steps": 2}
    made = engine.run(values, lines.append, lambda: False)
    seed = re.search(r"seed (\d+)", lines[0])

    assert seed
    assert engine.run(values | {"seed": int(seed[1])}, lines.append, lambda: False).data == made.data


def test_no_creativity_is_the_picture_through_the_vae(run: Run, engine: Any) -> None:
    """With a creativity of 0 no step is run: what comes is the enlarged picture, encoded and decoded."""
    lines: list[str] = []
    source = photo(64, 48)
    made = picture(run(image=encoded(source), creativity=0.0, lines=lines))
    larger = source.resize((128, 96), Image.Resampling.LANCZOS)
    models = engine._loaded[engine._cards.all[0]].models
    with torch.inference_mode():
        pixels = torch.frombuffer(bytearray(larger.tobytes()), dtype=torch.uint8).view(96, 128, 3).permute(2, 0, 1)
        latents = models.vae.encode(pixels[None].float() / 127.5 - 1).latent_dist.mean
        decoded = (models.vae.decode(latents).sample[0] / 2 + 0.5).clamp(0, 1)
    expected = Image.fromarray(decoded.mul(255).round().byte().permute(1, 2, 0).numpy())

    assert difference(made, expected) < 0.01
    assert not [line for line in lines if line.startswith("progress")]


def test_no_resemblance_is_no_controlnet(run: Run, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a resemblance of 0 the ControlNet is not even asked."""
    held = run(resemblance=0.6)
    models = engine._loaded[engine._cards.all[0]].models
    for part in (models.controlnet, models.embed):
        monkeypatch.setattr(part, "forward", lambda *args, **more: pytest.fail("the ControlNet was asked"))
    without = run(resemblance=0.0)

    assert without.data != held.data


def test_guidance(run: Run, engine: Any) -> None:
    """A dynamic of 1 runs no negative prompt: half of the work; above it both prompts count."""
    sizes: list[int] = []
    models = engine._loaded[engine._cards.all[0]].models
    hook = models.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    plain = run(image=encoded(photo(32, 32)), scale_factor=1.0, dynamic=1.0, tiling_width=64, tiling_height=64)
    assert set(sizes) == {1}
    hook.remove()
    other = run(
        image=encoded(photo(32, 32)), scale_factor=1.0, dynamic=1.0, tiling_width=64, tiling_height=64,
        negative_prompt="else",
    )  # fmt: skip
    assert plain.data == other.data
    assert run(negative_prompt="else").data != run(negative_prompt="other").data
    assert run(prompt="else").data != run(prompt="other").data


def test_cancelled(run: Run) -> None:
    """A run that is cancelled after its first step takes no second."""
    lines: list[str] = []
    with pytest.raises(RunCancelled):
        run(lines=lines, cancelled=lambda: any("step 1 " in line for line in lines), creativity=1.0)

    assert "step 1 of 4" in lines[-1]


def test_progress_only_rises(run: Run) -> None:
    """As the gateway reads it, over all passes, and never to the end before the end."""
    from providers.kit.polling import parse_progress

    lines: list[str] = []
    run(scale_factor=4.0, creativity=1.0, lines=lines)
    shares = [found for line in lines if (found := parse_progress(line)) is not None]

    assert len(shares) == 8
    assert shares == sorted(set(shares))
    assert shares[-1] == 0.99


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA"])
def test_other_pictures(run: Run, mode: str) -> None:
    """Transparency is kept, enlarged by itself; a grey picture comes in colour."""
    source = photo(48, 48)
    if mode in {"RGBA", "LA"}:
        alpha = Image.new("L", source.size, 0)
        ImageDraw.Draw(alpha).rectangle((24, 0, 47, 47), fill=255)
        source = source.convert(mode)
        source.putalpha(alpha)
    made = picture(run(image=encoded(source.convert(mode))))

    assert made.size == (96, 96)
    if mode == "L":
        assert made.mode == "RGB"
    else:
        assert made.mode == "RGBA"
        alpha = made.getchannel("A")
        assert (alpha.getpixel((10, 50)), alpha.getpixel((90, 50))) == (0, 255)


def test_downscaling(run: Run) -> None:
    """The longer side first, and only if it is longer."""
    assert picture(run(downscaling=True, downscaling_resolution=64)).size == (128, 96)
    source = encoded(photo(100, 50))
    assert picture(run(image=source, downscaling=True, downscaling_resolution=64)).size == (128, 64)


def test_sharpen(run: Run) -> None:
    """Clarity's kernel: nine numbers that add up to one."""
    plain, sharp = picture(run()), picture(run(sharpen=3.0))
    kernel = ImageFilter.Kernel((3, 3), [-0.3] * 4 + [3.4] + [-0.3] * 4, scale=1)

    assert difference(plain, sharp) > 0.1
    assert difference(plain.filter(kernel), sharp) == 0


def test_mask(run: Run) -> None:
    """Where the mask is white the source is restored, and the picture keeps its size."""
    source = photo(64, 48)
    mask = Image.new("L", source.size, 0)
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 47), fill=255)
    made = picture(run(image=encoded(source), mask=encoded(mask)))

    assert made.size == source.size
    right, left = (50, 0, 64, 48), (0, 0, 14, 48)
    assert difference(made.crop(right), source.crop(right)) < 1
    assert difference(made.crop(left), source.crop(left)) > 3
    with pytest.raises(InputRejected, match="32 x 32 pixels, and the picture 64 x 48"):
        run(image=encoded(source), mask=encoded(Image.new("L", (32, 32))))


def test_what_cannot_be_done(run: Run) -> None:
    """Each with the input that it is about."""
    with pytest.raises(InputRejected, match="40 is no multiple of 16") as caught:
        run(tiling_width=40)
    assert caught.value.field == "tiling_width"
    with pytest.raises(EngineFailure, match="cannot be read"):
        run(image=b"no picture")


def test_too_large(settings: Mapping[str, object]) -> None:
    """Above the operator's limit, or what memory allows, it is said before anything is run."""
    engine = TileDiffusion(settings)
    engine.load(EngineLimits(max_output_pixels=10_000))

    with pytest.raises(InputRejected, match="128 x 96 pixels are more than the 10000"):
        perform(engine)
    assert picture(perform(engine, scale_factor=1.0)).size == (64, 48)


def test_a_large_picture_that_gets_smaller(settings: Mapping[str, object]) -> None:
    """Downscaling makes a small result of it, but first it would have to be held."""
    engine = TileDiffusion(settings)
    engine.load(EngineLimits(max_output_pixels=20_000))
    large = encoded(Image.new("1", (3000, 3000)))

    with pytest.raises(InputRejected, match="its 3000 x 3000 pixels are more than the 20000 that this worker holds"):
        perform(engine, image=large, downscaling=True, downscaling_resolution=64)


def test_endless_prompts(run: Run) -> None:
    """A prompt is read to its end or refused, by its name."""
    for name in ("prompt", "negative_prompt"):
        with pytest.raises(InputRejected, match=r"has 800 tokens, and 750 are taken at most") as caught:
            run(**{name: "a" * 800})
        assert caught.value.field == name
        with pytest.raises(InputRejected, match="has 40000 characters, and 32000 are taken at most"):
            run(**{name: "a b " * 10_000})
        with pytest.raises(InputRejected, match="more than 200 brackets"):
            run(**{name: "(a[" * 150})
    assert picture(run(prompt="a" * 700, creativity=0.5)).size == (128, 96)


def test_little_memory(settings: Mapping[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory holds is a limit too."""
    from providers.worker.engines import tile_diffusion

    monkeypatch.setattr(tile_diffusion, "available_memory", lambda: 40 * 5000)
    engine = TileDiffusion(settings)
    engine.load(EngineLimits())

    with pytest.raises(InputRejected, match="more than the 5000"):
        perform(engine)


def test_tiles_of_the_vae_are_halved(run: Run, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the VAE finds no room for a tile it takes smaller ones, and the picture is whole."""
    loaded = engine._loaded[engine._cards.all[0]]
    monkeypatch.setattr(loaded.coder, "side", 128)
    decode = loaded.models.vae.decode
    shapes: list[int] = []

    def refuse(latents: torch.Tensor, **more: Any) -> Any:
        shapes.append(latents.shape[-1])
        if latents.shape[-1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(latents, **more)

    monkeypatch.setattr(loaded.models.vae, "decode", refuse)
    made = picture(run(image=encoded(photo(400, 64)), scale_factor=1.0, creativity=0.0))

    assert made.size == (400, 64)
    assert shapes[0] == 50
    assert loaded.coder.side == 32


def test_no_numbers_are_no_picture(run: Run, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be a black picture is an error that says what helps."""
    vae = engine._loaded[engine._cards.all[0]].models.vae
    monkeypatch.setattr(vae, "decode", lambda latents, **more: (latents.new_full((1, 3, 96, 128), torch.nan),))

    with pytest.raises(EngineFailure, match='dtype = "fp32"'):
        run()


def test_two_devices(settings: Mapping[str, object]) -> None:
    """Each has its own copy, and there is a slot for each."""
    engine = TileDiffusion({**settings, "devices": ["cpu", "cpu"], "slots_per_device": 2})
    engine.load(EngineLimits())

    assert engine.slots == 4
    first, second = (engine._loaded[card].models.unet for card in engine._cards.all)
    assert first is not second
    assert [device.name for device in engine.devices()] == ["cpu", "cpu"]


def test_with_an_upscaler(settings: Mapping[str, object], tiny: Path) -> None:
    """A network enlarges before, where one is named."""
    engine = TileDiffusion({**settings, "upscaler": str(tiny / "compact-x4.safetensors")})
    engine.load(EngineLimits())
    enlarged = picture(perform(engine, creativity=0.0))

    assert enlarged.size == (128, 96)
    assert "compact-x4" in engine.model
    plain = TileDiffusion(settings)
    plain.load(EngineLimits())
    assert difference(enlarged, picture(perform(plain, creativity=0.0))) > 1


def test_what_the_upscaler_makes_has_to_fit(
    settings: Mapping[str, object], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way to a picture of twice the size there is one of four times; where the size stays, there is none."""
    from providers.worker.engines import tile_diffusion

    monkeypatch.setattr(tile_diffusion, "available_memory", lambda: 40 * 20_000)
    engine = TileDiffusion({**settings, "upscaler": str(tiny / "compact-x4.safetensors")})
    engine.load(EngineLimits())

    with pytest.raises(InputRejected, match="makes 49152 pixels on the way to 128 x 96, more than the 33333"):
        perform(engine)
    assert picture(perform(engine, scale_factor=1.0)).size == (64, 48)


def test_bfloat(settings: Mapping[str, object]) -> None:
    """In half of the numbers' width it runs too."""
    engine = TileDiffusion({**settings, "dtype": "bf16"})
    engine.load(EngineLimits())

    assert engine._loaded[engine._cards.all[0]].models.unet.dtype is torch.bfloat16
    assert picture(perform(engine)).size == (128, 96)
