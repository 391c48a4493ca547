"""`[gateway]`: where result files are kept, and how they are handed out."""

from __future__ import annotations

from pydantic import model_validator

from gateway.settings.kinds import Seconds
from normalization.rules import Frozen

_PRESIGNING = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")


class FileSettings(Frozen):
    """Result files."""

    files_ttl_s: Seconds = 3600
    files_url: str | None = None
    files_signed: bool = False
    files_presigned: bool = False

    @model_validator(mode="after")
    def _signs(self) -> FileSettings:
        scheme = (self.files_url or "").partition("://")[0].lower()
        if self.files_presigned and scheme not in _PRESIGNING:
            raise ValueError("files_presigned needs a files_url of a bucket, such as s3://bucket/prefix")
        return self
