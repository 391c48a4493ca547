"""The shipped engines, and loading custom ones."""

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
"""Imported on demand: an engine may need libraries that load slowly or are not installed."""

EXTRAS: Mapping[str, str] = {"esrgan": "torch", "tile-diffusion": "diffusion"}
"""The extra of the package with an engine's libraries."""


def create(name: str, options: Mapping[str, object] | None = None) -> Engine:
    """Create the engine `name`, one of `SHIPPED` or `module:Class`, with its options.

    Raises WeightsUnusable if it does not exist or cannot be created, and whatever its module raises on import.
    """
    # Only the `weights fetch` command downloads; libraries must not look anything up.
    os.environ["HF_HUB_OFFLINE"] = "1"
    module, colon, attribute = SHIPPED.get(name, name).partition(":")
    if not colon:
        raise WeightsUnusable(f"unknown engine {name!r}; use one of {', '.join(SHIPPED)}, or module:Class")
    try:
        kind: object = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise WeightsUnusable(_missing(name, error)) from error
    except AttributeError as error:
        raise WeightsUnusable(f"cannot create the engine {name!r}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Engine)):
        raise WeightsUnusable(
            f"cannot create the engine {name!r}: not a subclass of providers.worker.engines.base.Engine"
        )
    return kind(options)


def _missing(name: str, error: ModuleNotFoundError) -> str:
    if extra := EXTRAS.get(name):
        how = f"pip install '.[{extra}]' in the checkout"
        return f"the engine {name!r} needs packages that are not installed ({error}): {how}"
    return f"cannot create the engine {name!r}: {error}"
