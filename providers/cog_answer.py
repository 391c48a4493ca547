"""What a Cog worker's answer to a prediction holds."""

from __future__ import annotations

import httpx

from providers.base import Failed, Heard, Outcome, Undecodable
from providers.cog_worker import NAME, dig
from providers.http import Unanswered, polling
from providers.share import share
from providers.wire import Json, excerpt, read_body, read_json

# A job that is run a second time has another id at its worker.
_AGAIN = "-again"
# A webhook without pictures is small; the log in it may be long.
_WEBHOOK_BYTES = 1_000_000
_LONGEST_ID = 200
_MOST_NOTES = 10
# Longer than any job; a number of a thousand digits cannot even be a float.
_LONGEST_S = 1e9


async def outcome(http: httpx.AsyncClient, base_url: str, answer: Json, *, cap: int) -> Outcome:
    """Return what the worker at `base_url` made. A picture at an address there is fetched, up to `cap` bytes.

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
    items = output if isinstance(output, list) else [output]
    pictures = tuple([await _picture(http, base_url, item, cap) for item in items])
    if not pictures or not all(pictures):
        raise Undecodable(f"{NAME}: the job succeeded without a picture")
    return Outcome(
        pictures=pictures,
        seconds=seconds(dig(answer, "metrics", "predict_time")),
        executed=_executed(answer),
        notes=_notes(answer),
    )


def again(job: str) -> str:
    """Return the id at the worker of a job that is run a second time."""
    return f"{job}{_AGAIN}"


async def heard(body: bytes) -> Heard | None:
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
    return Heard(id=job.removesuffix(_AGAIN), progress=share(dig(told, "logs")))


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


async def _picture(http: httpx.AsyncClient, base_url: str, item: Json, cap: int) -> bytes:
    if isinstance(item, bytes):
        return item
    # Only what the worker itself serves: another address would be fetched on a stranger's word.
    if not isinstance(item, str) or not _same_origin(item, base_url):
        raise Undecodable(f"{NAME}: the output is neither a data URI nor an address at the worker")
    try:
        with polling(NAME):
            async with http.stream("GET", item) as response:
                data = await read_body(response, cap)
    except Unanswered as exc:
        raise Undecodable(f"{NAME}: the output could not be fetched") from exc
    if response.status_code != 200:
        raise Undecodable(f"{NAME}: the output could not be fetched (HTTP {response.status_code})")
    return data


def _same_origin(address: str, base_url: str) -> bool:
    try:
        one, other = httpx.URL(address), httpx.URL(base_url)
    except (httpx.InvalidURL, ValueError):
        return False
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
