"""Samplers: each that is offered runs, and runs what was asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from providers.worker.engines.diffusion.schedulers import SCHEDULERS, Sampler
from tests.support.paths import ROOT

TRAINED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
CLARITY = ROOT / "config" / "models" / "clarity-upscaler.toml"


def denoised(name: str, *, steps: int, strength: float, seed: int = 1) -> tuple[torch.Tensor, int]:
    """Let a sampler take away noise that a perfect network sees; return what is left, and the steps."""
    latents = torch.full((1, 4, 8, 8), 0.5)
    sampler = Sampler(name, TRAINED, steps, strength)
    generator = torch.Generator("cpu").manual_seed(seed)
    now = sampler.begin(latents, generator)
    for timestep in sampler.timesteps:
        # What is not the picture is noise: the network that knows the picture sees it all.
        alpha = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
        place = float(timestep)
        at = alpha[int(place)] + (alpha[min(999, int(place) + 1)] - alpha[int(place)]) * (place % 1)
        given = sampler.scaled(now, timestep)
        now = sampler.step((given - at.sqrt() * latents) / (1 - at).sqrt(), timestep, now, generator)
    return now, sampler.steps


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_takes_the_noise_away(name: str) -> None:
    """With a network that sees all of the noise, what remains is the picture, at any strength."""
    for strength in (0.35, 1.0):
        made, _ = denoised(name, steps=18, strength=strength)
        assert float((made - 0.5).abs().mean()) < 0.03, strength


def test_repeatable() -> None:
    """The noise that samplers add on their way comes from the seed too."""
    one, again = (denoised("Euler a", steps=6, strength=0.5, seed=3)[0] for _ in range(2))
    assert torch.equal(one, again)


@pytest.mark.parametrize(
    ("steps", "strength", "run"), [(18, 0.35, 7), (18, 1, 18), (18, 0.01, 1), (10, 0.5, 5), (5, 0, 0)]
)
def test_steps(steps: int, strength: float, run: int) -> None:
    """The share of the steps that the strength asks, one at least; none for none."""
    assert Sampler("DPM++ 2M Karras", TRAINED, steps, strength).steps == run


def test_names_are_those_of_the_route() -> None:
    """What the table lets through is what the engine has."""
    import tomllib

    routes = tomllib.loads(CLARITY.read_text())["routes"]
    assert routes["tile-diffusion"]["rules"]["scheduler"]["choices"] == list(SCHEDULERS)


def test_trained_as_the_base_says(tiny: Path) -> None:
    """What the base's own scheduler says of its training is taken over; how its maker samples is not."""
    config = json.loads((tiny / "base" / "scheduler" / "scheduler_config.json").read_text())
    config["prediction_type"] = "v_prediction"

    sampler = Sampler("DPM++ 3M SDE Karras", config, 4, 1)

    assert sampler._scheduler.config.prediction_type == "v_prediction"
    assert sampler._scheduler.config.beta_end == 0.012
    assert sampler._scheduler.config.solver_order == 3
