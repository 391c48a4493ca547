"""The engines that come with the worker, and the way to others."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

from providers.worker.engines.base import Engine, WeightsUnusable

SHIPPED: Mapping[str, str] = {
    "lanczos-bp": "providers.worker.engines.lanczos_bp:LanczosBP",
    "esrgan": "providers.worker.engines.esrgan:Esrgan",
    "tile-diffusion": "providers.worker.engines.tile_diffusion:TileDiffusion",
}
"""Imported only when asked for: an engine may stand on libraries that take long to load, or are not installed."""

EXTRAS: Mapping[str, str] = {"esrgan": "torch", "tile-diffusion": "diffusion"}
"""The extra of the package that brings what an engine stands on."""


def create(name: str, options: Mapping[str, object] | None = None) -> Engine:
    """Make the engine `name`: one of `SHIPPED`, or `module:Class` of any other. It is made with `options` if any.

    Raises WeightsUnusable where there is no such engine or it cannot be made, and what its module raises while it is
    imported.
    """
    # Weights are fetched by their own command and by nothing else, whatever a library would like to look up.
    os.environ["HF_HUB_OFFLINE"] = "1"
    module, colon, attribute = SHIPPED.get(name, name).partition(":")
    if not colon:
        raise WeightsUnusable(f"there is no engine {name!r}: take one of {', '.join(SHIPPED)}, or module:Class")
    try:
        kind: object = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise WeightsUnusable(_missing(name, error)) from error
    except AttributeError as error:
        raise WeightsUnusable(f"the engine {name!r} cannot be made: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Engine)):
        raise WeightsUnusable(
            f"the engine {name!r} cannot be made: it is no subclass of providers.worker.engines.base.Engine"
        )
    return kind(options)


def _missing(name: str, error: ModuleNotFoundError) -> str:
    if extra := EXTRAS.get(name):
        return f"the engine {name!r} needs what is not installed ({error}): pip install 'darkroom[{extra}]'"
    return f"the engine {name!r} cannot be made: {error}"
