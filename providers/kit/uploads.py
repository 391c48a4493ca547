"""Uploads: what takes the place of the images in a payload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from normalization.values import Image, Value


async def map_images(payload: Mapping[str, Value], upload: Callable[[Image], Awaitable[Value]]) -> dict[str, Value]:
    """Return the payload with what `upload` returns in place of each image, one after the other, at any depth.

    Raises what `upload` raises.
    """
    return {name: await _mapped(value, upload) for name, value in payload.items()}


async def _mapped(value: Value, upload: Callable[[Image], Awaitable[Value]]) -> Value:
    if isinstance(value, Image):
        return await upload(value)
    if isinstance(value, list):
        return [await _mapped(item, upload) for item in value]
    if isinstance(value, dict):
        return await map_images(value, upload)
    return value
