"""What a Cog worker's answer to a prediction holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from providers.base import WebhookEvent
from providers.errors import Failed, Undecodable
from providers.http.bodies import Json, TooLarge, excerpt, read_capped, read_json
from providers.http.download import Floor, UrlExpired
from providers.http.errors import NoAnswer, polling
from providers.kit.polling import parse_progress
from providers.kit.results import Named
from providers.local.workers import NAME, dig

# A job that is run a second time has another id at its worker.
_AGAIN = "-again"
# A webhook without pictures is small; the log in it may be long.
_WEBHOOK_BYTES = 1_000_000
_LONGEST_ID = 200
_MOST_NOTES = 10
# Longer than any job; a number of a thousand digits cannot even be a float.
_LONGEST_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionResult:
    """What a worker made: pictures, or their addresses at the worker itself, and what it says of them."""

    named: Sequence[Named] = field(repr=False)
    seconds: float | None
    executed: str
    notes: tuple[str, ...]


def made(base_url: str, answer: Json) -> PredictionResult:
    """Return what the worker at `base_url` made.

    Raises Failed where the job did not succeed, whatever the status code was, and Undecodable where no picture came.
    """
    status = dig(answer, "status")
    if status == "failed":
        reason = dig(answer, "error")
        text = excerpt(reason) if isinstance(reason, str) else ""
        raise Failed(f"{NAME}: the job failed", said=text)
    if status == "canceled":
        raise Failed(f"{NAME}: the worker cancelled the job")
    if status != "succeeded":
        raise Undecodable(f"{NAME}: the answer has no status that ends a job")
    output = dig(answer, "output")
    named = [_named(base_url, item) for item in (output if isinstance(output, list) else [output])]
    if not named or not all(named):
        raise Undecodable(f"{NAME}: the job succeeded without a picture")
    return PredictionResult(
        named=named,
        seconds=seconds(dig(answer, "metrics", "predict_time")),
        executed=_executed(answer),
        notes=_notes(answer),
    )


async def fetch(http: httpx.AsyncClient, address: str, *, cap: int, least_bytes_per_s: int) -> bytes:
    """Fetch a picture from a worker, once.

    Raises Failed where the worker is gone, for its results are then gone as well; Unanswered, Gone, and Undecodable.
    """
    try:
        with polling(NAME, private=True):
            async with http.stream("GET", address) as response:
                data = await read_capped(response, cap, Floor(least_bytes_per_s))
    except TooLarge as exc:
        raise Undecodable(f"{NAME}: the output {exc}") from exc
    except NoAnswer as exc:
        if exc.left:
            raise
        raise Failed(f"{NAME}: the worker is gone, and what it made with it") from exc
    if response.status_code != 200:
        raise UrlExpired(response.status_code)
    if not data:
        raise NoAnswer("the output was empty")
    return data


def again(job: str) -> str:
    """Return the id at the worker of a job that is run a second time."""
    return f"{job}{_AGAIN}"


async def heard(body: bytes) -> WebhookEvent | None:
    """Return what a webhook says: whose it is, and by its log how much is done. None where it is no prediction."""
    if len(body) > _WEBHOOK_BYTES:
        return None
    try:
        told = await read_json(body)
    except Undecodable:
        return None
    job = dig(told, "id")
    if not isinstance(job, str) or not 0 < len(job) <= _LONGEST_ID or not isinstance(dig(told, "status"), str):
        return None
    return WebhookEvent(id=job.removesuffix(_AGAIN), progress=parse_progress(dig(told, "logs")))


def seconds(value: Json) -> float | None:
    """Return a run time in seconds, None where it is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _LONGEST_S:
        return None
    return float(value)


def _executed(answer: Json) -> str:
    """What our own workers say they ran; Cog's tell nothing of it."""
    model = dig(answer, "model")
    return excerpt(model.encode("ascii", "replace").decode()) if isinstance(model, str) else ""


def _notes(answer: Json) -> tuple[str, ...]:
    """What our own workers say they did otherwise than asked."""
    notes = dig(answer, "notes")
    said = notes[:_MOST_NOTES] if isinstance(notes, list) else []
    return tuple(excerpt(note) for note in said if isinstance(note, str))


def _named(base_url: str, item: Json) -> Named:
    # Only what the worker itself serves: another address would be fetched on a stranger's word.
    if not isinstance(item, bytes) and (not isinstance(item, str) or not _same_origin(item, base_url)):
        raise Undecodable(f"{NAME}: the output is neither a data URI nor an address at the worker")
    return item


def _same_origin(address: str, base_url: str) -> bool:
    try:
        one, other = httpx.URL(address), httpx.URL(base_url)
    except (httpx.InvalidURL, ValueError):
        return False
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
