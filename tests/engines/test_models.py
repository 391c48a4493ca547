"""Loading as a user would have it: folders, half precision, pickles, LoRAs, embeddings; and parts that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from providers.worker.engines.base import EngineLimits, WeightsUnusable
from providers.worker.engines.tile_diffusion import TileDiffusion
from tests.engines import networks
from tests.engines.calls import perform


@pytest.fixture
def mine(tiny: Path, tmp_path: Path, settings: Mapping[str, object]) -> Mapping[str, object]:
    """The settings with a copy of the networks, to be spoilt."""
    for part in ("base", "controlnet"):
        shutil.copytree(tiny / part, tmp_path / part)
    return {**settings, "base": str(tmp_path / "base"), "controlnet": str(tmp_path / "controlnet"), "weights": tmp_path}


def loaded(settings: Mapping[str, object]) -> TileDiffusion:
    engine = TileDiffusion(settings)
    engine.load(EngineLimits())
    return engine


def models(engine: TileDiffusion) -> Any:
    return engine._loaded[engine._cards.all[0]].models


def test_as_the_hub_has_it(mine: Mapping[str, object], tmp_path: Path) -> None:
    """Files with the names that weights had years ago are read to the last number: the hub's are that old."""
    from safetensors.torch import load_file

    found = models(loaded(mine))
    text = load_file(tmp_path / "base" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in text)
    inside = {name.removeprefix("text_model."): value for name, value in found.text_encoder.state_dict().items()}
    for name, value in text.items():
        assert torch.equal(inside[name.removeprefix("text_model.")], value), name
    coder = load_file(tmp_path / "base" / "vae" / "diffusion_pytorch_model.safetensors")
    old = "decoder.mid_block.attentions.0.query.weight"
    assert torch.equal(found.vae.decoder.mid_block.attentions[0].to_q.weight, coder[old])
    assert sorted(float(value.sum()) for value in coder.values()) == pytest.approx(
        sorted(float(value.sum()) for value in found.vae.state_dict().values())
    )
    assert found.tokenizer("a cat", add_special_tokens=False)["input_ids"]


def test_half_precision_is_taken_first(mine: Mapping[str, object]) -> None:
    """Of two files the smaller is loaded: the larger may be anything, torn even."""
    from safetensors.torch import load_file, save_file

    for part in ("base/unet", "base/vae", "base/text_encoder", "controlnet"):
        [file] = (Path(str(mine["weights"])) / part).glob("*.safetensors")
        half = {name: value.half() for name, value in load_file(file).items()}
        save_file(half, file.with_name(f"{file.stem}.fp16.safetensors"), {"format": "pt"})
        file.write_bytes(file.read_bytes()[:-1])
    engine = loaded(mine)

    assert models(engine).unet.dtype is torch.float32
    assert perform(engine).pixels == 128 * 96


def test_a_pickle_is_read_as_numbers(mine: Mapping[str, object], tmp_path: Path) -> None:
    """The tile ControlNet that everybody uses is a .bin: it is loaded, and cannot run anything."""
    from safetensors.torch import load_file

    file = tmp_path / "controlnet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    safe = perform(loaded(mine))
    file.unlink()
    assert perform(loaded(mine)).data == safe.data

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"weight": Evil()}, file.with_suffix(".bin"))
    with pytest.raises(Exception, match=r"(?i)weights.only|unpickl|unsafe|load"):
        loaded(mine)
    assert not (tmp_path / "ran").exists()


def test_a_vae_of_its_own(mine: Mapping[str, object], tmp_path: Path) -> None:
    """It takes the place of the base's, which need not even be there."""
    torch.manual_seed(99)
    networks.vae().save_pretrained(tmp_path / "better")
    before = perform(loaded(mine))
    shutil.rmtree(tmp_path / "base" / "vae")
    engine = loaded({**mine, "vae": str(tmp_path / "better")})

    assert perform(engine).data != before.data
    assert engine.model == "tile-diffusion (base, controlnet, better)"


def test_loras(mine: Mapping[str, object], tmp_path: Path) -> None:
    """A LoRA of the config is always on, by its weight; a prompt's tag changes nothing and is told."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    unet = networks.unet()
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(unet), weight_name="detail.safetensors"
    )
    plain = perform(loaded(mine), creativity=1.0)
    lines: list[str] = []
    full = loaded({**mine, "loras": {"more.detail": {"file": str(tmp_path / "detail.safetensors"), "weight": 1}}})
    made = perform(full, creativity=1.0, prompt="a cat", lines=lines)
    off = loaded({**mine, "loras": {"detail": {"file": str(tmp_path / "detail.safetensors"), "weight": 0}}})

    assert made.data != perform(loaded(mine), creativity=1.0, prompt="a cat").data
    assert perform(off, creativity=1.0).data == plain.data
    assert "lora more.detail" in full.model
    assert not [line for line in lines if "LoRA" in line]
    tagged = perform(full, creativity=1.0, prompt="a cat<lora:else:1>", lines=lines)
    assert tagged.data == made.data
    assert tagged.notes == ("LoRAs are not for prompts to choose: else was taken out. Always on: more.detail at 1.",)
    assert tagged.notes[0] in lines
    assert made.notes == ()


def test_embeddings(mine: Mapping[str, object], tmp_path: Path) -> None:
    """A name of the config stands for the vectors of its file, wherever a prompt names it."""
    from safetensors.torch import save_file

    torch.manual_seed(4)
    save_file({"emb_params": torch.randn(3, networks.WIDTH)}, tmp_path / "bad.safetensors")
    engine = loaded({**mine, "embeddings": {"bad-hands": str(tmp_path / "bad.safetensors")}})
    plain = loaded(mine)

    assert models(engine).vectors == {"bad-hands": 3}
    named: dict[str, Any] = {"negative_prompt": "(bad-hands:1.2) blur", "creativity": 1.0}
    assert perform(engine, **named).data != perform(plain, **named).data
    assert perform(engine, negative_prompt="blur").data == perform(plain, negative_prompt="blur").data


def test_a_file_that_is_no_lora(mine: Mapping[str, object], tmp_path: Path) -> None:
    """Said by the setting's name."""
    from safetensors.torch import save_file

    save_file({"something": torch.zeros(1)}, tmp_path / "no.safetensors")
    with pytest.raises(WeightsUnusable, match=r"loras\.detail"):
        loaded({**mine, "loras": {"detail": {"file": str(tmp_path / "no.safetensors")}}})


def change(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("base/unet", {"addition_embed_type": "text_time"}, "no Stable Diffusion 1.5"),
        ("base/unet", {"_class_name": "FluxTransformer2DModel"}, "no Stable Diffusion 1.5"),
        ("controlnet", {"_class_name": "ControlNetUnionModel"}, "ControlNetUnionModel, not a ControlNetModel"),
        ("controlnet", {"cross_attention_dim": 768}, "width 768, and the base's unet for 32"),
        ("controlnet", {"block_out_channels": [320]}, "another kind of base"),
        ("base/text_encoder", {"hidden_size": 1024}, "width 1024"),
        ("base/vae", {"latent_channels": 16}, "makes 16 channels"),
        ("base/vae", {"_class_name": "AutoencoderTiny"}, "AutoencoderTiny, not an AutoencoderKL"),
    ],
)
def test_parts_that_do_not_fit(
    mine: Mapping[str, object], tmp_path: Path, part: str, values: Mapping[str, object], said: str
) -> None:
    """It is said before anything is loaded, and by which setting."""
    change(tmp_path / part, **values)
    with pytest.raises(WeightsUnusable, match=said):
        TileDiffusion(mine)


def test_missing_and_torn(mine: Mapping[str, object], tmp_path: Path) -> None:
    """Weights that are not there, or not whole, stop the start, with what to do."""
    file = tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(WeightsUnusable, match=f"is incomplete: it has {len(whole) - 10} bytes instead of {len(whole)}"):
        TileDiffusion(mine)
    file.unlink()
    with pytest.raises(WeightsUnusable, match=r"base: .* has no weights in unet"):
        TileDiffusion(mine)
    with pytest.raises(WeightsUnusable, match="weights fetch --engine tile-diffusion"):
        TileDiffusion({**mine, "base": "someone/something@v1"})
    file.write_bytes(whole)
    with pytest.raises(WeightsUnusable, match="put them there, or set upscaler to their path"):
        TileDiffusion({**mine, "upscaler": "./no.pth"})
