"""What the ledger keeps of a request: its parameters, and of pictures only what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gateway.api.parameters import Asked
from normalization.values import Image

# The longest text of a parameter that is kept, and the most of all of them together, in characters of JSON.
_TEXT, _WHOLE = 32_000, 262_144
# A picture in a field that nobody declared: a data URL, or base64 without a break.
_PICTURE = re.compile(
    r"data:(image/[^,\s]{0,100}|[^,\s]{0,100};base64),.*|[a-z0-9+/_=-]{1024,}", re.DOTALL | re.IGNORECASE
)
# These are addresses of the caller's own, and are kept where they are used.
_PRIVATE = frozenset({"webhook_url", "webhook_events"})


def kept(asked: Asked) -> dict[str, Any]:
    """The parameters as JSON, without pictures and bounded in size."""
    request = asked.request
    found: dict[str, Any] = {
        "params": {name: plain(value) for name, value in request.params.items() if name not in _PRIVATE},
        "images": [plain(image) for image in request.images],
        "seed": request.seed,
    }
    if request.extra:
        found["extra"] = plain(request.extra)
    if request.provider_options:
        found["provider_options"] = plain(request.provider_options)
    size = len(json.dumps(found))
    return found if size <= _WHOLE else {"left_out": size, "images": found["images"], "seed": found["seed"]}


def plain(value: Any) -> Any:
    """A value without the bytes of pictures: those, and texts that go on and on, are only measured."""
    if isinstance(value, Image):
        return {"format": value.format, "width": value.width, "height": value.height, "bytes": len(value.data)}
    if isinstance(value, str) and (len(value) > _TEXT or _PICTURE.fullmatch(value)):
        return {"left_out": len(value)}
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value
