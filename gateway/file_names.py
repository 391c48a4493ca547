"""Names of result files: they cannot be guessed, and contain the file's length and checksum.

So a damaged file is detected by its name alone, without asking the ledger or a bucket.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import cast

from normalization.values import FORMATS, MEDIA_TYPES, Format, Image

_RANDOM_BYTES = 24
# Of the SHA-256 and of the length: together 24 characters.
_DIGEST_BYTES, _LENGTH_BYTES = 12, 6
# Names from before checksums were added are accepted too.
_NAME = re.compile(rf"[A-Za-z0-9_-]{{32}}([A-Za-z0-9_-]{{24}})?\.({'|'.join(FORMATS)})")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileName:
    """A parsed name. `size` and `digest` are None for files from before they were part of the name."""

    format: Format
    size: int | None = None
    digest: bytes | None = None

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.format]

    def fits(self, data: bytes) -> bool:
        """Whether these bytes match the name."""
        check = FileDigest(self)
        check.update(data)
        return check.fits


class FileDigest:
    """Checks bytes against a name incrementally."""

    def __init__(self, name: FileName) -> None:
        self._name = name
        self._size = 0
        self._sha = hashlib.sha256()

    def update(self, piece: bytes) -> None:
        """Add the next bytes."""
        self._size += len(piece)
        self._sha.update(piece)

    @property
    def fits(self) -> bool:
        """Whether all the bytes together match the name."""
        if self._name.size is None:
            return True
        return self._size == self._name.size and self._sha.digest()[:_DIGEST_BYTES] == self._name.digest


def new_name(image: Image) -> str:
    """A name for an image to be stored: 192 random bits and the checksum."""
    check = hashlib.sha256(image.data).digest()[:_DIGEST_BYTES] + len(image.data).to_bytes(_LENGTH_BYTES, "big")
    return f"{secrets.token_urlsafe(_RANDOM_BYTES)}{base64.urlsafe_b64encode(check).decode()}.{image.format}"


def parsed(name: str) -> FileName | None:
    """Parse a name; None if it is not one of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    form = cast("Format", match[2])  # guaranteed by the pattern
    if match[1] is None:
        return FileName(format=form)
    check = base64.urlsafe_b64decode(match[1])
    return FileName(format=form, size=int.from_bytes(check[_DIGEST_BYTES:], "big"), digest=check[:_DIGEST_BYTES])
