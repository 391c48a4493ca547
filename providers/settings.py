"""What a section of `providers.toml` is: base classes and types for the settings of an adapter."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]

# Path segments that every server reads the same way: not empty, no dots, no escapes.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?")


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/"):
        raise ValueError("expected a URL without a path, such as http://10.0.0.5:5000")
    return text.rstrip("/")


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    valid = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.password is None
    if not valid or parts.query or parts.fragment or not _PATH.fullmatch(parts.path) or "?" in text or "#" in text:
        raise ValueError("expected a URL, with or without a path, such as https://egress.example.org/replicate")
    return text.rstrip("/")


Origin = Annotated[str, AfterValidator(_origin)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]


class ProviderSettings(BaseModel):
    """The settings of a provider: immutable, each with a default, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CloudSettings(ProviderSettings):
    """The settings of a provider that needs an API key.

    `key_env` names the environment variable that holds the key, or several, separated by commas. `key_file` is a file
    with one key a line instead. Without a key the provider is off.
    """

    key_env: str
    key_file: str = ""
