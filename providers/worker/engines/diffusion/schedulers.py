"""Samplers by the names that Clarity's pages use, as diffusers' schedulers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import diffusers
import torch

_2M_SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
_3M_SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}
_KARRAS = {"use_karras_sigmas": True}
_EXPONENTIAL = {"use_exponential_sigmas": True}
_MULTISTEP = "DPMSolverMultistepScheduler"

SCHEDULERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "DPM++ 3M SDE Karras": (_MULTISTEP, _3M_SDE | _KARRAS),
    "DPM++ 3M SDE Exponential": (_MULTISTEP, _3M_SDE | _EXPONENTIAL),
    "DPM++ 3M SDE": (_MULTISTEP, _3M_SDE),
    "DPM++ 2M SDE Karras": (_MULTISTEP, _2M_SDE | _KARRAS),
    "DPM++ 2M SDE Exponential": (_MULTISTEP, _2M_SDE | _EXPONENTIAL),
    "DPM++ 2M SDE": (_MULTISTEP, _2M_SDE),
    "DPM++ 2M SDE Heun Karras": (_MULTISTEP, _2M_SDE | _KARRAS | {"solver_type": "heun"}),
    "DPM++ 2M SDE Heun Exponential": (_MULTISTEP, _2M_SDE | _EXPONENTIAL | {"solver_type": "heun"}),
    "DPM++ 2M SDE Heun": (_MULTISTEP, _2M_SDE | {"solver_type": "heun"}),
    "DPM++ 2M Karras": (_MULTISTEP, _KARRAS),
    "DPM++ 2M": (_MULTISTEP, {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM2 Karras": ("KDPM2DiscreteScheduler", _KARRAS),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a Karras": ("KDPM2AncestralDiscreteScheduler", _KARRAS),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    "UniPC": ("UniPCMultistepScheduler", {}),
}
"""Each with diffusers' class and what it is set to: latents are not bound to -1 and 1, and the last step is number 1,
as Stable Diffusion is sampled everywhere. What the pages name beyond these, diffusers has not, or needs more libraries
for.
"""

# What of a model's own scheduler says how it was trained; the rest says how its maker liked to sample.
_TRAINED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


class Sampler:
    """One run of a scheduler: the last part of its steps, as `strength` (0 to 1) asks.

    `steps` is how many are run of the `scheduled`: none for strength 0, else one at least. Solvers of the second order
    ask the networks twice in most steps, so `timesteps` may be more.
    """

    def __init__(self, name: str, trained: Mapping[str, Any], scheduled: int, strength: float) -> None:
        kind, changes = SCHEDULERS[name]
        config = {key: trained[key] for key in _TRAINED if trained.get(key) is not None}
        self._scheduler = getattr(diffusers, kind).from_config({**config, **changes})
        self._noisy = _takes_generator(self._scheduler)
        self.steps = min(scheduled, math.ceil(scheduled * strength - 1e-9)) if strength > 0 else 0
        self._scheduler.set_timesteps(scheduled, device="cpu")
        first = (scheduled - self.steps) * self._scheduler.order
        self.timesteps = self._scheduler.timesteps[first:] if self.steps else ()
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(first)

    def begin(self, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the latents with the noise of the first step. It is drawn on the CPU: the same on every card."""
        noise = torch.randn(latents.shape, generator=generator, dtype=torch.float32).to(latents.device)
        noised: torch.Tensor = self._scheduler.add_noise(latents, noise, self.timesteps[:1])
        return noised

    def scaled(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the latents as the network is given them."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(latents, timestep)
        return scaled

    def step(
        self, predicted: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the latents after a step."""
        more = {"generator": generator} if self._noisy else {}
        after: torch.Tensor = self._scheduler.step(predicted, timestep, latents, return_dict=False, **more)[0]
        return after


def _takes_generator(scheduler: Any) -> bool:
    code = type(scheduler).step.__code__
    return "generator" in code.co_varnames[: code.co_argcount]
