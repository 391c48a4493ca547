"""Tiny networks of the real classes, with random weights: all of the real thing but what it would have learnt."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from providers.worker.engines.vision import import_torchvision

# Before anything imports diffusers or transformers.
import_torchvision()

WIDTH = 32
_START, _END = "<|startoftext|>", "<|endoftext|>"


def save(folder: Path) -> None:
    """Save a base, a ControlNet, and enlarging networks, as a user would have them.

    The base is laid out as the hub has Stable Diffusion 1.5: a tokenizer of two files, and the names that the weights
    of text encoder and VAE had before the libraries changed them.
    """
    from diffusers import PNDMScheduler
    from safetensors.torch import save_file

    torch.manual_seed(20261127)
    _save_tokenizer(folder / "base" / "tokenizer")
    text_encoder().save_pretrained(folder / "base" / "text_encoder")
    _rename(folder / "base" / "text_encoder" / "model.safetensors", lambda name: f"text_model.{name}")
    unet().save_pretrained(folder / "base" / "unet")
    vae().save_pretrained(folder / "base" / "vae")
    _rename(folder / "base" / "vae" / "diffusion_pytorch_model.safetensors", _old_attention)
    # As Stable Diffusion 1.5 has it.
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
    )
    scheduler.save_pretrained(folder / "base" / "scheduler")
    controlnet().save_pretrained(folder / "controlnet")
    for factor in (1, 2, 4):
        save_file(compact(factor).state_dict(), folder / f"compact-x{factor}.safetensors")


def _save_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    words = tokenizer().get_vocab()
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    more = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | more))


def _rename(file: Path, rename: Callable[[str], str]) -> None:
    from safetensors.torch import load_file, save_file

    save_file({rename(name): value for name, value in load_file(file).items()}, file, {"format": "pt"})


def _old_attention(name: str) -> str:
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        name = name.replace(f".{new}.", f".{old}.")
    return name


def main() -> None:
    """Save them in a folder, in a process of its own: `python -m tests.engines.networks FOLDER`."""
    save(Path(sys.argv[1]))


def tokenizer() -> Any:
    """A tokenizer that reads letters."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.()[]:-_<>"
    words = [*letters, *(f"{letter}</w>" for letter in letters), _START, _END]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)


def text_encoder(width: int = WIDTH) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    known = tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(known),
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=known.bos_token_id,
            eos_token_id=known.eos_token_id,
            pad_token_id=known.pad_token_id,
        )
    )


_BLOCKS: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}


def unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    shape = {
        "sample_size": 16,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**(shape | _BLOCKS | changes))


def controlnet(**changes: Any) -> Any:
    from diffusers import ControlNetModel

    shape: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "conditioning_embedding_out_channels": (8, 8, 16, 16),
    }
    made = ControlNetModel(**(shape | _BLOCKS | changes))
    # One that was never trained says nothing: its last layers are zero.
    for layer in (*made.controlnet_down_blocks, made.controlnet_mid_block, made.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return made


def vae(**changes: Any) -> Any:
    from diffusers import AutoencoderKL

    shape: dict[str, Any] = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "latent_channels": 4,
        "norm_num_groups": 4,
    }
    return AutoencoderKL(**(shape | changes))


def compact(factor: int) -> Any:
    """A network of the kind of Real-ESRGAN's small ones, that enlarges by `factor`."""
    from spandrel.architectures.Compact import Compact

    return Compact(num_feat=8, num_conv=2, upscale=factor)


def pointwise(network: Any) -> Any:
    """Make a network look at nothing but the place itself: no neighbours, no averages over the picture."""
    for name, module in list(network.named_modules()):
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            centre = module.weight.data[:, :, 1, 1].clone()
            module.weight.data.zero_()
            module.weight.data[:, :, 1, 1] = centre
        if isinstance(module, torch.nn.GroupNorm):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, torch.nn.Identity())
    return network


if __name__ == "__main__":
    main()
