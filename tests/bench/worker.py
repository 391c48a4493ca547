"""`make bench-worker`: what a picture costs the engine tile-diffusion, beside a loop of diffusers' own pipeline.

On a card the networks have the size of Stable Diffusion 1.5's, on a CPU they are tiny; their weights are random, which
changes nothing about the speed. Each row is a process of its own. Compare within one run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from providers.worker.engines.cards import DTYPES, Card
from providers.worker.engines.diffusion.denoise import DenoisePlan, refine
from providers.worker.engines.diffusion.latents import Coder
from providers.worker.engines.diffusion.models import Models
from providers.worker.engines.diffusion.prompts import encode, parse
from providers.worker.engines.tiles import Grid
from tests.engines import networks

TRAINED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
_SD15: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}
_CROSS = ("CrossAttnDownBlock2D",) * 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement. `tile_batch` 0 is diffusers' pipeline, a tile at a time."""

    tile_batch: int
    dtype: str
    attention: str = "sdpa"

    @property
    def name(self) -> str:
        return "a pipeline call for each tile" if self.tile_batch == 0 else f"tiles in batches of {self.tile_batch}"


@dataclass(frozen=True, kw_only=True)
class Size:
    """The picture (pixels a side) and the tiles (latent pixels a side)."""

    side: int
    tile: int
    steps: int
    repeats: int


def main() -> None:
    """Measure every row and print the table, or one row in this process."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.worker", description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    told = parser.parse_args()
    card = torch.cuda.is_available()
    if told.one:
        print(json.dumps(measure(Row(**json.loads(told.one)), card=card)))
        return
    print(heading(card))
    found = {row: _alone(row) for row in rows(card)}
    base = next(result for row, result in found.items() if row.tile_batch == 0)
    print("| | numbers | attention | seconds a megapixel | least, most | CPU s a megapixel | peak MB | to the loop |")
    print("|---|---|---|---|---|---|---|---|")
    for row, result in found.items():
        pace = result["pace"]
        ratio = base["pace"][1] / pace[1]
        print(
            f"| {row.name} | {row.dtype} | {row.attention} | {pace[1]:.2f} | {pace[0]:.2f}, {pace[2]:.2f} "
            f"| {result['cpu']:.2f} | {result['peak']:.0f} | {ratio:.2f} |",
            flush=True,
        )


def rows(card: bool) -> list[Row]:
    """What is compared."""
    usual = "fp16" if card else "fp32"
    batches = [Row(tile_batch=size, dtype=usual) for size in (0, 1, 2, 4, 8)]
    others = [Row(tile_batch=8, dtype=dtype) for dtype in (("bf16", "fp32") if card else ("bf16",))]
    return [*batches, *others, Row(tile_batch=8, dtype=usual, attention="eager")]


def size(card: bool) -> Size:
    return Size(side=2048, tile=96, steps=7, repeats=3) if card else Size(side=512, tile=32, steps=4, repeats=3)


def heading(card: bool) -> str:
    """Where and when, and what is measured."""
    what = (
        torch.cuda.get_device_name(0)
        if card
        else f"no card: {os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    )
    shape = size(card)
    count = len(Grid((shape.side // 8,) * 2, (shape.tile,) * 2, 8).tiles)
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {what}, torch {torch.__version__}. "
        f"{shape.side} x {shape.side} pixels, {count} tiles of {shape.tile} x {shape.tile} latent pixels, "
        f"{shape.steps} steps with guidance and ControlNet; "
        f"networks {'as large as those of Stable Diffusion 1.5' if card else 'tiny'}, random.\n"
    )


def measure(row: Row, *, card: bool) -> Mapping[str, Any]:
    """Run one row; return seconds a megapixel (least, median, most), CPU seconds a megapixel, and peak megabytes."""
    shape = size(card)
    models = build(row, card=card)
    pixels = torch.randint(0, 256, (1, 3, shape.side, shape.side), dtype=torch.uint8)
    call = _pipeline(models, pixels, shape) if row.tile_batch == 0 else _engine(models, pixels, shape)
    megapixels = shape.side**2 / 1e6
    times, cpu = [], 0.0
    with torch.inference_mode():
        call()
        for _ in range(shape.repeats):
            began, spent = time.perf_counter(), time.process_time()
            call()
            if card:
                torch.cuda.synchronize()
            times.append((time.perf_counter() - began) / megapixels)
            cpu += (time.process_time() - spent) / megapixels / shape.repeats
    peak = torch.cuda.max_memory_allocated() / 1e6 if card else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    times.sort()
    return {"pace": (times[0], times[len(times) // 2], times[-1]), "cpu": cpu, "peak": peak}


def build(row: Row, *, card: bool) -> Models:
    """Make the networks."""
    torch.manual_seed(1)
    device = Card("cuda:0" if card else "cpu", max(1, row.tile_batch))
    dtype = DTYPES[row.dtype]
    unet, net, vae, text = _full() if card else _small()
    for part in (unet, net, vae, text):
        part.to(device.device, dtype).eval().requires_grad_(False)
        if card and part is not text:
            part.to(memory_format=torch.channels_last)
    if row.attention == "eager":
        from diffusers.models.attention_processor import AttnProcessor

        for part in (unet, net):
            part.set_attn_processor(AttnProcessor())
    embed = net.controlnet_cond_embedding
    if row.tile_batch:
        net.controlnet_cond_embedding = torch.nn.Identity()
    return Models(
        card=device, dtype=dtype, vae_dtype=dtype, tokenizer=networks.tokenizer(), text_encoder=text, unet=unet,
        controlnet=net, embed=embed, vae=vae, trained=TRAINED, vectors={},
    )  # fmt: skip


def _full() -> tuple[Any, Any, Any, Any]:
    unet = networks.unet(
        **_SD15, down_block_types=(*_CROSS, "DownBlock2D"), attention_head_dim=8,
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )  # fmt: skip
    net = networks.controlnet(
        **_SD15, down_block_types=(*_CROSS, "DownBlock2D"), attention_head_dim=8,
        conditioning_embedding_out_channels=(16, 32, 96, 256),
    )  # fmt: skip
    vae = networks.vae(block_out_channels=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32)
    return unet, net, vae, networks.text_encoder(768)


def _small() -> tuple[Any, Any, Any, Any]:
    shape: dict[str, Any] = {"block_out_channels": (32, 64), "attention_head_dim": 8}
    return networks.unet(**shape), networks.controlnet(**shape), networks.vae(), networks.text_encoder()


def _engine(models: Models, pixels: torch.Tensor, shape: Size) -> Callable[[], None]:
    coder = Coder(models)
    plan = DenoisePlan(
        scheduler="DDIM", steps=shape.steps, strength=1, guidance=6, resemblance=0.6, seed=1,
        tile=(shape.tile, shape.tile), overlap=8,
    )  # fmt: skip

    def call() -> None:
        prompts = encode(models.tokenizer, models.text_encoder, (parse("bad"), parse("good")), {}, models.card.device)
        latents = coder.encode(pixels, lambda: False)
        latents = refine(models, latents, pixels, prompts, plan, lambda step, steps: None, lambda: False)
        coder.decode(latents, lambda: False)

    return call


def _pipeline(models: Models, pixels: torch.Tensor, shape: Size) -> Callable[[], None]:
    """What one would write first: each tile through diffusers' own pipeline, with the same settings."""
    from diffusers import DDIMScheduler, StableDiffusionControlNetImg2ImgPipeline

    pipe = StableDiffusionControlNetImg2ImgPipeline(
        vae=models.vae, text_encoder=models.text_encoder, tokenizer=models.tokenizer, unet=models.unet,
        controlnet=models.controlnet, scheduler=DDIMScheduler(**TRAINED, steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    grid = Grid((shape.side // models.vae_scale,) * 2, (shape.tile, shape.tile), 8)
    result = torch.zeros(1, 3, shape.side, shape.side)

    def call() -> None:
        for tile in grid.tiles:
            cut = grid.cut(pixels, (tile,), models.vae_scale).to(models.card.device).to(models.dtype) / 255
            made = pipe(
                prompt="good", negative_prompt="bad", image=cut, control_image=cut, strength=1.0,
                num_inference_steps=shape.steps, guidance_scale=6.0, controlnet_conditioning_scale=0.6,
                generator=torch.Generator("cpu").manual_seed(1), output_type="pt",
            ).images  # fmt: skip
            scale = models.vae_scale
            rows = slice(tile.rows.start * scale, tile.rows.stop * scale)
            columns = slice(tile.columns.start * scale, tile.columns.stop * scale)
            result[..., rows, columns] = made.float().cpu()

    return call


def _alone(row: Row) -> Mapping[str, Any]:
    command = [sys.executable, "-m", "tests.bench.worker", "--one", json.dumps(asdict(row))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{row}: {done.stderr[-2000:]}")
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
