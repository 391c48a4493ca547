"""The tile loop against diffusers' own pipelines, and against itself without tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from providers.worker.engines.base import RunCancelled
from providers.worker.engines.cards import Card
from providers.worker.engines.diffusion.denoise import DenoisePlan, refine
from providers.worker.engines.diffusion.models import Models, load
from providers.worker.engines.diffusion.prompts import encode, parse
from providers.worker.engines.options import TileDiffusionOptions
from tests.engines import networks

PLAN = DenoisePlan(
    scheduler="DDIM", steps=8, strength=0.5, guidance=5, resemblance=0, seed=11, tile=(64, 64), overlap=4
)


@pytest.fixture(scope="module")
def models(settings: Mapping[str, object]) -> Models:
    return load(TileDiffusionOptions.model_validate(settings), Card("cpu", 4))


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(1, 4, 24, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 192, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))


def refined(models: Models, latents: torch.Tensor, pixels: torch.Tensor, plan: DenoisePlan) -> torch.Tensor:
    with torch.inference_mode():
        prompts = encode(
            models.tokenizer, models.text_encoder, (parse("bad"), parse("good")), models.vectors, models.card.device
        )
        return refine(models, latents, pixels, prompts, plan, lambda step, steps: None, lambda: False)


def pipeline(kind: str, models: Models, tiny: Path, **parts: Any) -> Any:
    """diffusers' own pipeline over the same networks."""
    import diffusers

    made = getattr(diffusers, kind)(
        vae=models.vae,
        text_encoder=models.text_encoder,
        tokenizer=models.tokenizer,
        unet=models.unet,
        scheduler=diffusers.DDIMScheduler.from_pretrained(tiny / "base" / "scheduler", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("guidance", [5, 1])
def test_one_tile_is_image_to_image(
    models: Models, latents: torch.Tensor, pixels: torch.Tensor, tiny: Path, guidance: float
) -> None:
    """Where the picture is one tile and nothing holds it, the result is diffusers' own, to the last digits."""
    pipe = pipeline("StableDiffusionImg2ImgPipeline", models, tiny)
    expected = pipe(
        prompt="good",
        negative_prompt="bad",
        image=latents,
        strength=0.5,
        num_inference_steps=8,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(11),
        output_type="latent",
    ).images

    made = refined(models, latents, pixels, replace(PLAN, guidance=guidance))

    assert torch.allclose(made, expected, atol=1e-4)
    assert float((made - latents).abs().mean()) > 0.05


def test_one_tile_with_its_controlnet(models: Models, latents: torch.Tensor, pixels: torch.Tensor, tiny: Path) -> None:
    """Where every block counts fully, the ControlNet's say is what it is in diffusers' own pipeline."""
    from diffusers import ControlNetModel

    net = ControlNetModel.from_pretrained(tiny / "controlnet")
    pipe = pipeline("StableDiffusionControlNetImg2ImgPipeline", models, tiny, controlnet=net)
    expected = pipe(
        prompt="good",
        negative_prompt="bad",
        image=latents,
        control_image=pixels.float() / 255,
        strength=0.5,
        num_inference_steps=8,
        guidance_scale=5.0,
        controlnet_conditioning_scale=0.7,
        height=192,
        width=256,
        generator=torch.Generator("cpu").manual_seed(11),
        output_type="latent",
    ).images

    made = refined(models, latents, pixels, replace(PLAN, resemblance=0.7, decay=1.0))

    assert torch.allclose(made, expected, atol=1e-4)
    without = refined(models, latents, pixels, PLAN)
    assert float((made - without).abs().mean()) > 0.01


def test_shallow_blocks_count_less(models: Models, latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """The deepest residual counts fully, each above it 0.825 times the one below."""
    given: list[Mapping[str, Any]] = []
    raw: list[Any] = []
    hooks = [
        models.unet.register_forward_pre_hook(lambda module, args, kwargs: given.append(kwargs), with_kwargs=True),
        models.controlnet.register_forward_hook(lambda module, args, result: raw.append(result)),
    ]
    refined(models, latents, pixels, replace(PLAN, resemblance=0.5, steps=2))
    for hook in hooks:
        hook.remove()

    down, middle = raw[0]
    weights = [0.5 * 0.825 ** (len(down) - number) for number in range(len(down))]
    for residual, scaled, weight in zip(down, given[0]["down_block_additional_residuals"], weights, strict=True):
        assert torch.allclose(scaled, residual * weight)
    assert torch.allclose(given[0]["mid_block_additional_residual"], middle * 0.5)


@pytest.fixture(scope="module")
def local(models: Models) -> Models:
    """Networks that see nothing of a place's neighbours. What they make of a picture cannot depend on its tiles."""
    torch.manual_seed(3)
    flat = {
        "block_out_channels": (16,),
        "down_block_types": ("DownBlock2D",),
        "norm_num_groups": 8,
    }
    unet = networks.unet(**flat, up_block_types=("UpBlock2D",), mid_block_type=None)
    return replace(models, unet=networks.pointwise(unet).eval().requires_grad_(False))


def test_no_seams(local: Models, latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """Tiled equals untiled, at the borders of tiles as elsewhere."""
    plan = replace(PLAN, steps=4, strength=1)
    whole = refined(local, latents, pixels, plan)
    tiled = refined(local, latents, pixels, replace(plan, tile=(16, 16)))

    off = (tiled - whole).abs()[0].amax(0)
    borders = torch.zeros_like(off, dtype=torch.bool)
    for start in (4, 8, 12, 16, 20, 28):
        if start < 24:
            borders[start - 1 : start + 1] = True
        borders[:, start - 1 : start + 1] = True
    print(f"at borders {float(off[borders].max()):.2e}, elsewhere {float(off[~borders].max()):.2e}")
    assert float(off.max()) < 1e-4
    assert float((whole - latents).abs().mean()) > 0.05


def test_batches_do_not_change_it(models: Models, latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """How many tiles are run at once is of no account."""
    plan = replace(PLAN, tile=(16, 16), resemblance=0.6)
    several = refined(models, latents, pixels, plan)
    single = refined(replace(models, card=Card("cpu", 1)), latents, pixels, plan)

    assert torch.allclose(several, single, atol=1e-5)


def test_memory_runs_out(models: Models, latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """With a card that holds three tiles the picture is the same, and from then on it is asked for no more."""
    card = Card("cpu", 8)
    sizes: list[int] = []

    def refuse(module: Any, args: Any) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    plan = replace(PLAN, tile=(16, 16), resemblance=0.6)
    hook = models.unet.register_forward_pre_hook(refuse)
    made = refined(replace(models, card=card), latents, pixels, plan)
    hook.remove()

    assert card.batch.size == 3
    # All six tiles, then three, each for both prompts.
    assert sizes[:3] == [12, 6, 6]
    assert max(sizes[1:]) == 6
    assert torch.allclose(made, refined(models, latents, pixels, plan), atol=1e-5)


def test_cancelled_within_a_step(models: Models, latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """The run ends before the next batch of tiles, in the middle of a step."""
    calls: list[int] = []
    hook = models.unet.register_forward_pre_hook(lambda module, args: calls.append(1))
    prompts = torch.zeros(2, 77, networks.WIDTH)
    plan = replace(PLAN, tile=(16, 16))
    with pytest.raises(RunCancelled), torch.inference_mode():
        refine(
            replace(models, card=Card("cpu", 1)), latents, pixels, prompts, plan, lambda a, b: None,
            lambda: len(calls) == 3,
        )  # fmt: skip
    hook.remove()

    assert len(calls) == 3


def test_nothing_to_do(models: Models, latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """With a strength of nothing the latents are what they were."""
    assert refined(models, latents, pixels, replace(PLAN, strength=0)) is latents
