"""torchvision, which spandrel and transformers import for operators that no network here uses."""

from __future__ import annotations

import importlib
import importlib.util
import logging

import torch

LOGGER = logging.getLogger(__name__)

_kept: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Import torchvision even if it was built for another torch, such as a CPU build next to a CUDA build.

    In that case its compiled operators cannot be loaded, and its import fails when it registers their metadata. So the
    operators are declared without an implementation: a call of one fails, and everything else works.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        LOGGER.warning(
            "torchvision was built for another torch than %s; it is used without operators", torch.__version__
        )
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        # The declarations exist as long as this object.
        _kept.append(library)
        importlib.import_module("torchvision")
