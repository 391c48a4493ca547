"""torchvision, which spandrel and transformers import for operators that no network here uses."""

from __future__ import annotations

import importlib
import importlib.util
import logging

import torch

LOGGER = logging.getLogger(__name__)

_kept: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Import torchvision, also where it was built for another torch than this: a CPU build beside a CUDA build, say.

    Its compiled operators cannot be loaded then, and it fails as it describes them. So they are declared, without a
    body: what would call one fails there and then, and everything else works.
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
        # The declarations last as long as it.
        _kept.append(library)
        importlib.import_module("torchvision")
