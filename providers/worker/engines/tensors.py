"""Images to tensors of shape (1, 3, height, width) with values from 0 to 1, and back."""

from __future__ import annotations

import torch
from PIL import Image

from providers.worker.engines.base import EngineFailure

_LANCZOS = Image.Resampling.LANCZOS


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """Return an RGB image as a tensor of bytes: as numbers from 0 to 1 it would be four times as large."""
    width, height = picture.size
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(1, height, width, 3).permute(0, 3, 1, 2)


def to_unit(pixels: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Convert bytes to numbers from 0 to 1, on a device."""
    return (pixels.to(device).float() / 255).to(dtype)


def to_picture(tensor: torch.Tensor) -> Image.Image:
    """Convert a tensor of numbers from 0 to 1, which is overwritten, to an image; values beyond are clamped.

    Raises EngineFailure for NaN values.
    """
    if not bool(torch.isfinite(tensor).all()):
        raise EngineFailure('the network gave no numbers, as some cards do in half precision: set dtype = "fp32"')
    pixels = tensor[0].clamp_(0, 1).mul_(255).round_().to("cpu", torch.uint8).permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.numpy())


def split_alpha(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return an image (8-bit L, LA, RGB or RGBA) as RGB, and its alpha channel if it has one."""
    alpha = picture.getchannel("A") if picture.mode in {"LA", "RGBA"} else None
    return picture.convert("RGB"), alpha


def with_alpha(picture: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Add an alpha channel of another size to an image: networks only process colours, so Lanczos resizes it."""
    if alpha is None:
        return picture
    result = picture.convert("RGBA")
    result.putalpha(resized(alpha, picture.size))
    return result


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image at `size` (width, height), resized by Lanczos."""
    return picture if picture.size == size else picture.resize(size, _LANCZOS)
