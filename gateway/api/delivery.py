"""How pictures are handed out: by address, as base64, or both, now or when a job is asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.api import problems, results
from gateway.api.parameters import EditRequest
from gateway.http.errors import ApiError
from gateway.jobs.errors import JobResult
from gateway.settings import GatewaySettings, ResponseFormat
from gateway.state import State
from gateway.storage import FileStorage, StorageError
from gateway.telemetry.logs import event
from gateway.webhooks.signing import SigningKeys
from normalization.values import fields_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseOptions:
    """How a caller wants its pictures. `explicit` says that it asked for this form of them."""

    response_format: ResponseFormat
    explicit: bool = False
    stream: bool = False
    require_all: bool = False

    @classmethod
    def of(cls, asked: EditRequest) -> ResponseOptions:
        """What a request asks for."""
        return cls(
            response_format=asked.response_format,
            explicit="response_format" in asked.request.params,
            stream=asked.stream,
            require_all=bool(asked.request.params.get("require_all")),
        )

    @classmethod
    def of_job(cls, kept: Mapping[str, Any]) -> ResponseOptions:
        """What a job that is asked for by its id is to give: pictures inside only where that was asked for."""
        explicit = bool(kept["explicit"])
        return cls(
            response_format=kept["response_format"] if explicit else "url",
            explicit=explicit,
            require_all=bool(kept["require_all"]),
        )

    def to_json(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return fields_of(self)

    @property
    def has_bytes(self) -> bool:
        """Whether the answer has the pictures in it, and not their addresses alone."""
        return self.stream or self.response_format != "url"

    @property
    def wants_url(self) -> bool:
        """A stream's events carry base64, as OpenAI's do, and an address only where one was asked for."""
        form = self.response_format
        return form == "url" or (form == "both" and (not self.stream or self.explicit))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileUrls:
    """Makes the addresses of files, below `origin` or in the bucket itself, as one caller is given them."""

    files: FileStorage
    secrets: SigningKeys
    settings: GatewaySettings
    origin: str

    @classmethod
    def of(cls, state: State, origin: str) -> FileUrls:
        """For a caller who uses this origin."""
        return cls(files=state.files, secrets=state.secrets, settings=state.config.gateway, origin=origin)

    async def to(self, name: str | None) -> str | None:
        """A file's address, for the rest of its time; None where there is no such file, or it cannot be signed for."""
        if name is None:
            return None
        if not (self.settings.files_signed or self.settings.files_presigned):
            return f"{self.origin}/files/{name}"
        try:
            expires = await self.files.expires(name)
            if expires is None:
                return None
            if self.settings.files_presigned:
                return await self.files.presigned(name, expires)
        except StorageError as error:
            event("files.sign_failed", logging.ERROR, error=str(error))
            return None
        # To the next whole second: what the file is served for counts all the same.
        until = math.ceil(expires.timestamp())
        return f"{self.origin}/files/{name}?expires={until}&signature={self.secrets.file(name, until)}"


async def deliver(
    delivery: ResponseOptions, finished: JobResult, links: FileUrls
) -> tuple[list[results.ImageResult], list[str]]:
    """The pictures in the asked form, with notes on what could not be had."""
    delivered: list[results.ImageResult] = []
    notes: list[str] = []
    for image in finished.images:
        url = await links.to(image.file) if delivery.wants_url else None
        if delivery.wants_url and url is None:
            notes = ["The picture could not be kept for its address; it is delivered as base64 only."]
        as_base64 = delivery.stream or url is None or delivery.response_format != "url"
        delivered.append(results.ImageResult(image=image.image, url=url, inside=as_base64, seed=image.seed))
    return delivered, notes


async def incomplete(delivery: ResponseOptions, finished: JobResult, links: FileUrls) -> ApiError | None:
    """The error for fewer pictures than the caller insists on, with the addresses of those that were paid for."""
    if not (finished.partial and delivery.require_all):
        return None
    urls = [await links.to(image.file) for image in finished.images]
    return problems.incomplete(finished, [url for url in urls if url is not None])
