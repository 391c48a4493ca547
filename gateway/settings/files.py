"""`[gateway]`: where result files are kept, and how they are handed out."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, model_validator

from gateway.settings.types import Seconds
from normalization.parameters.rules import Frozen

_BUCKETS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")


def _store(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if scheme not in (*_BUCKETS, "file") or not rest:
        raise ValueError("expected an address such as s3://bucket/prefix or file:///srv/pictures")
    return text


StoreUrl = Annotated[str, AfterValidator(_store)]


class FileSettings(Frozen):
    """Result files."""

    files_ttl_s: Seconds = 3600
    files_url: StoreUrl | None = None
    files_signed: bool = False
    files_presigned: bool = False

    @model_validator(mode="after")
    def _signs(self) -> FileSettings:
        if self.files_presigned and (self.files_url or "").partition("://")[0] not in _BUCKETS:
            raise ValueError("files_presigned needs a files_url of a bucket, such as s3://bucket/prefix")
        return self
