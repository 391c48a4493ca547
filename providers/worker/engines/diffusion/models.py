"""Loading the networks of tile diffusion from the folders where the user has put them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from providers.worker.engines.base import WeightsUnusable, first_line
from providers.worker.engines.cards import Card, dtype_for
from providers.worker.engines.options import TileDiffusionOptions
from providers.worker.engines.vision import import_torchvision
from providers.worker.weights import WeightsSource, choose, files_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The networks on a card, ready to run. All but the VAE are in `dtype`; `trained` is the base's own scheduler.

    `embed` turns pixels into what the ControlNet starts from. It is taken out of the ControlNet, as its result is the
    same for every step. `vectors` are the embeddings of the user's: a name, and how many tokens it stands for.
    """

    card: Card
    dtype: torch.dtype
    vae_dtype: torch.dtype
    tokenizer: Any
    text_encoder: Any
    unet: Any
    controlnet: Any
    embed: Any
    vae: Any
    trained: Mapping[str, Any]
    vectors: dict[str, int]

    @property
    def vae_scale(self) -> int:
        """Pixels a side of one latent pixel."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def unet_scale(self) -> int:
        """What the sides of a tile, in latent pixels, have to be a multiple of."""
        return int(2 ** (len(self.unet.config.block_out_channels) - 1))


def load(options: TileDiffusionOptions, card: Card) -> Models:
    """Load onto a card. Raises WeightsUnusable where the parts do not fit together."""
    import_torchvision()
    import transformers
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    # A bar for each file, in a log.
    transformers.utils.logging.disable_progress_bar()
    base, controlnet, vae = options.source("base"), options.source("controlnet"), options.source("vae")
    assert base is not None
    assert controlnet is not None
    dtype = dtype_for(card.name, options.dtype)
    fit(base, controlnet, vae)
    tokenizer = CLIPTokenizer.from_pretrained(base.path / "tokenizer", local_files_only=True)
    text_encoder = _part(CLIPTextModel, base, "text_encoder", "dtype", dtype)
    unet = _part(UNet2DConditionModel, base, "unet", "torch_dtype", dtype)
    net = _part(ControlNetModel, controlnet, "", "torch_dtype", dtype)
    place, part = (vae, "") if vae else (base, "vae")
    # A VAE that says so overflows in half precision.
    upcast = dtype is torch.float16 and _config(place.path / part / "config.json").get("force_upcast")
    decoder = _part(AutoencoderKL, place, part, "torch_dtype", torch.float32 if upcast else dtype)
    vectors = _add(options, tokenizer, text_encoder, unet, decoder)
    for network in (text_encoder, unet, net, decoder):
        network.requires_grad_(False)
        network.eval().to(card.device)
    if card.device.type == "cuda":
        for network in (unet, net, decoder):
            network.to(memory_format=torch.channels_last)
    embed = net.controlnet_cond_embedding
    net.controlnet_cond_embedding = torch.nn.Identity()
    if options.compile:
        unet.compile()
        net.compile()
    return Models(
        card=card,
        dtype=dtype,
        vae_dtype=decoder.dtype,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        controlnet=net,
        embed=embed,
        vae=decoder,
        trained=_config(base.path / "scheduler" / "scheduler_config.json"),
        vectors=vectors,
    )


def fit(base: WeightsSource, controlnet: WeightsSource, vae: WeightsSource | None) -> None:
    """Raise Unusable where the parts, as their configs tell, are not of one family. Loads nothing."""
    unet = _config(base.path / "unet" / "config.json")
    text = _config(base.path / "text_encoder" / "config.json")
    net = _config(controlnet.path / "config.json")
    coder = _config((vae.path if vae else base.path / "vae") / "config.json")
    width = unet.get("cross_attention_dim")
    if unet.get("_class_name") != "UNet2DConditionModel" or unet.get("addition_embed_type"):
        raise WeightsUnusable(f"base: {base.label} is no Stable Diffusion 1.5 (or 2) in diffusers' layout")
    if net.get("_class_name") != "ControlNetModel":
        raise WeightsUnusable(f"controlnet: {controlnet.label} is a {net.get('_class_name')}, not a ControlNetModel")
    if coder.get("_class_name") != "AutoencoderKL":
        raise WeightsUnusable(
            f"vae: {vae.label if vae else base.label} is a {coder.get('_class_name')}, not an AutoencoderKL"
        )
    for role, found in (
        ("base (text_encoder)", text.get("hidden_size")),
        ("controlnet", net.get("cross_attention_dim")),
    ):
        if found != width:
            raise WeightsUnusable(f"{role}: made for prompts of width {found}, and the base's unet for {width}")
    if net.get("block_out_channels") != unet.get("block_out_channels"):
        raise WeightsUnusable(f"controlnet: {controlnet.label} was made for another kind of base than {base.label}")
    if coder.get("latent_channels") != unet.get("in_channels"):
        raise WeightsUnusable(
            f"vae: makes {coder.get('latent_channels')} channels, and the base's unet takes {unet.get('in_channels')}"
        )


def _part(kind: Any, source: WeightsSource, part: str, word: str, dtype: torch.dtype) -> Any:
    """Load one network from the best of the files that are there, as numbers only."""
    folder = source.path / part
    name = choose(files_in(folder), "") or ""
    more: dict[str, Any] = {"variant": "fp16"} if ".fp16." in name else {}
    # A pickle is read by torch with weights_only, which makes tensors and runs nothing.
    more["use_safetensors"] = name.endswith(".safetensors")
    return kind.from_pretrained(folder, local_files_only=True, **{word: dtype}, **more)


def _add(options: TileDiffusionOptions, tokenizer: Any, text_encoder: Any, unet: Any, vae: Any) -> dict[str, int]:
    """Add the LoRAs and the embeddings of the config; return how many tokens each embedding stands for."""
    if not options.loras and not options.embeddings:
        return {}
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    # For its loaders, which know the formats that such files have.
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for number, (name, lora) in enumerate(options.loras.items()):
        path = options.lora(name).path
        try:
            # Its own names of adapters have no dots.
            pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=f"lora_{number}")
        except (ValueError, KeyError, RuntimeError) as error:
            raise WeightsUnusable(f"loras.{name}: {first_line(error)}") from error
        pipeline.fuse_lora(lora_scale=lora.weight, adapter_names=[f"lora_{number}"])
        pipeline.unload_lora_weights()
    vectors = {}
    for name in options.embeddings:
        before = len(tokenizer)
        path = options.embedding(name).path
        try:
            pipeline.load_textual_inversion(path.parent, weight_name=path.name, token=name, local_files_only=True)
        except (ValueError, KeyError, RuntimeError) as error:
            raise WeightsUnusable(f"embeddings.{name}: {first_line(error)}") from error
        vectors[name] = len(tokenizer) - before
    return vectors


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsUnusable(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise WeightsUnusable(f"{path} is no object")
    return found
