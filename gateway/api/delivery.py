"""How pictures are handed out: by address, as base64, or both, now or when a job is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gateway.api import failures, reply
from gateway.api.errors import ApiError
from gateway.api.request import Asked
from gateway.jobs.execute import Finished
from gateway.settings import ResponseFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How a caller wants its pictures. `explicit` says that it asked for this form of them."""

    response_format: ResponseFormat
    explicit: bool = False
    stream: bool = False
    require_all: bool = False

    @classmethod
    def of(cls, asked: Asked) -> Delivery:
        """What a request asks for."""
        return cls(
            response_format=asked.response_format,
            explicit="response_format" in asked.request.params,
            stream=asked.stream,
            require_all=bool(asked.request.params.get("require_all")),
        )

    @classmethod
    def of_job(cls, kept: Mapping[str, Any]) -> Delivery:
        """What a job that is asked for by its id is to give: pictures inside only where that was asked for."""
        explicit = bool(kept["explicit"])
        return cls(
            response_format=kept["response_format"] if explicit else "url",
            explicit=explicit,
            require_all=bool(kept["require_all"]),
        )

    def to_json(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return asdict(self)

    @property
    def wants_url(self) -> bool:
        """A stream's events carry base64, as OpenAI's do, and an address only where one was asked for."""
        form = self.response_format
        return form == "url" or (form == "both" and (not self.stream or self.explicit))


async def deliver(delivery: Delivery, finished: Finished, origin: str) -> tuple[list[reply.Delivered], list[str]]:
    """The pictures in the asked form, with notes on what could not be had."""
    delivered: list[reply.Delivered] = []
    notes: list[str] = []
    for picture in finished.pictures:
        url = f"{origin}/files/{picture.file}" if delivery.wants_url and picture.file else None
        if delivery.wants_url and url is None:
            notes = ["The picture could not be kept for its address; it is delivered as base64 only."]
        as_base64 = delivery.stream or url is None or delivery.response_format != "url"
        delivered.append(await reply.encode(picture.image, "both" if as_base64 else "url", url))
    return delivered, notes


def incomplete(delivery: Delivery, finished: Finished, origin: str) -> ApiError | None:
    """The error for fewer pictures than the caller insists on, with the addresses of those that were paid for."""
    if not (finished.partial and delivery.require_all):
        return None
    urls = [f"{origin}/files/{picture.file}" for picture in finished.pictures if picture.file]
    return failures.incomplete(finished, urls)
