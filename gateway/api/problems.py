"""Errors of jobs and providers as API errors: status, code and message."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api.results import FileUrls, ResponseOptions, describe_attempts
from gateway.auth.keys import BudgetExceeded, ConcurrencyExceeded, QuotaExceeded
from gateway.http.errors import _DEFAULT_RETRY_AFTER_S, ApiError, _retryable
from gateway.jobs.errors import JobPending, JobRef, JobResult, NotCancellable, ResultExpired, ShuttingDown, error_of
from gateway.ledger.records import AllFailed, Attempt, JobCancelled, JobInterrupted, JobRow
from gateway.ledger.store import IdempotencyKeyReused, LedgerDown
from gateway.routing import selection
from gateway.routing.selection import Choice
from gateway.storage import FileDamaged, StorageError
from normalization.parameters.schema import Model
from providers.errors import (
    Blocked,
    Expired,
    ProviderError,
    Rejected,
    Throttled,
    Unfetched,
    Unfinished,
    Unknown,
    Unreached,
    Unusable,
)

# What a job cannot start for, and what it may end with: `told` has an API error for each.
UNPLACED = (ShuttingDown, LedgerDown, IdempotencyKeyReused, QuotaExceeded)
UNDONE = (
    AllFailed,
    JobPending,
    JobCancelled,
    JobInterrupted,
    ResultExpired,
    NotCancellable,
    LedgerDown,
    ShuttingDown,
    QuotaExceeded,
    StorageError,
    FileDamaged,
)

# After one of these a provider may have done the work: a client that repeats the request would pay again.
_AFTER_SUBMIT_HEADERS = {"x-should-retry": "false"}


def no_route(model: Model, choice: Choice) -> ApiError:
    """No candidate at all: because of the request (400), or of the routes' configuration and health (429, 503).

    If a route that can serve the request will recover, the request is not at fault.
    """
    asked = [excluded for excluded in choice.excluded if excluded.param is not None]
    waits = [excluded.retry_after for excluded in choice.excluded if excluded.retry_after is not None]
    why = selection.told(choice.excluded)
    if asked and not waits:
        message = f"No route of {model.id} can serve this request: {why}."
        param = min(asked, key=lambda excluded: excluded.own).param
        return ApiError(400, message, param=param, code="no_route")
    message = f"{model.id} cannot be served at the moment: {why}."
    if waits and all(excluded.throttled for excluded in choice.excluded if excluded.retry_after is not None):
        return _retryable(429, message, "rate_limit_exceeded", min(waits))
    return _retryable(503, message, "no_route", min(waits, default=_DEFAULT_RETRY_AFTER_S))


def told(error: Exception, job_ref: JobRef | None = None, *, leaving: bool = False) -> ApiError:
    """The API error for what a job may end with, or cannot start for. `leaving`: this process is shutting down."""
    found = _told(error, leaving=leaving)
    if job_ref is not None:
        joined = {"idempotent-replayed": "true"} if job_ref.joined else {}
        found.headers = {**found.headers, "x-darkroom-job": job_ref.id, **joined}
    return found


def _told(error: Exception, *, leaving: bool) -> ApiError:
    match error:
        case AllFailed():
            return failed(error)
        case JobPending() if leaving:
            message = "The server is shutting down; the job keeps running. Retry the request to receive the same job."
            return _retryable(503, message, "overloaded", 1)
        case JobPending():
            message = "Not ready within the deadline. The job keeps running, may be billed, and can be read by its id."
            if any(attempt.outcome == "unfetched" for attempt in error.attempts):
                message = (
                    "The image was generated and billed, but could not be downloaded from the provider within the "
                    "deadline. The download is retried: read the job by its id."
                )
            found = _final(504, message, "deadline_exceeded")
            found.metadata = {"attempts": describe_attempts(error.attempts)}
            return found
        case ShuttingDown():
            return _retryable(503, "The server is shutting down and is not accepting new jobs.", "overloaded", 1)
        case LedgerDown():
            message = "The server cannot record what it would buy, so nothing was bought. Try again later."
            return _retryable(503, message, "ledger_unavailable", _DEFAULT_RETRY_AFTER_S)
        case JobInterrupted():
            message = (
                "The server was restarted before any provider accepted this job. Nothing was bought: send it again."
            )
            return _retryable(503, message, "job_interrupted", 1)
        case JobCancelled():
            found = _final(400, "The job was cancelled.", "job_cancelled")
            found.metadata = {"attempts": describe_attempts(error.attempts)}
            return found
        case ResultExpired(kept=False):
            message = (
                "The job completed and its images were delivered, but the file store was unavailable: they were not "
                "stored."
            )
            return _final(410, message, "result_expired")
        case ResultExpired():
            message = "The job completed, but its images have expired and were deleted."
            return _final(410, message, "result_expired")
        case FileDamaged():
            message = "The image was generated, but its file is damaged and cannot be delivered."
            return _final(500, message, "file_damaged")
        case StorageError():
            message = "The image is stored, but cannot be read at the moment: try again."
            return _retryable(503, message, "files_unavailable", _DEFAULT_RETRY_AFTER_S)
        case NotCancellable():
            message = "This job's provider cannot cancel: the job keeps running, and its image will be stored."
            return _final(400, message, "not_cancellable")
        case BudgetExceeded():
            # A client that repeats the request by itself would get the same answer.
            headers = {"x-should-retry": "false"}
            return ApiError(429, str(error), type="insufficient_quota", code="insufficient_quota", headers=headers)
        case ConcurrencyExceeded():
            return _retryable(429, str(error), "rate_limit_exceeded", 1)
        case IdempotencyKeyReused():
            message = "This Idempotency-Key was used for another request: use a new key, or send the same request."
            return ApiError(422, message, code="idempotency_key_reuse")
        case _:
            raise error


def of(job: JobRow, attempts: Sequence[Attempt]) -> ApiError:
    """The API error of a job that has failed or was cancelled."""
    return told(JobCancelled(attempts) if job.state == "cancelled" else error_of(job, attempts))


def _final(status: int, message: str, code: str) -> ApiError:
    """An error after which a client must not repeat the request by itself."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return ApiError(status, message, type=kind, code=code, headers=_AFTER_SUBMIT_HEADERS)


def failed(failure: AllFailed) -> ApiError:
    """The error after every route was tried, or after one that forbids trying another."""
    error = _worst(failure.causes)
    error.metadata = {"attempts": describe_attempts(failure.attempts)}
    # A known bill, even of nothing, belongs to a job that a provider had accepted.
    if any(cause.billed is not False or cause.cost is not None for cause in failure.causes):
        error.headers = {**error.headers, **_AFTER_SUBMIT_HEADERS}
    return error


async def incomplete(options: ResponseOptions, finished: JobResult, files: FileUrls) -> ApiError | None:
    """The error for fewer images than requested if the client set require_all, with the URLs of those it paid for."""
    if not (finished.partial and options.require_all):
        return None
    urls = [url for image in finished.images if (url := await files.to(image.file)) is not None]
    message = (
        f"Only {len(finished.images)} of {finished.wanted} images were generated; "
        "error.metadata.urls lists their addresses."
    )
    error = ApiError(502, message, type="server_error", code="partial_result", headers=_AFTER_SUBMIT_HEADERS)
    error.metadata = {"attempts": describe_attempts(finished.attempts), "urls": urls}
    return error


def _worst(causes: Sequence[ProviderError]) -> ApiError:
    for cause in causes:
        if isinstance(cause, Unknown):
            message = "The provider's answer was lost: the image may have been generated and billed."
            return ApiError(504, message, type="server_error", code="upstream_outcome_unknown")
        if isinstance(cause, Blocked):
            message = "The provider's content policy refused this image or prompt."
            return ApiError(400, message, code="content_policy_violation")
    if all(isinstance(cause, Rejected) for cause in causes):
        message = f"The provider refused the request: {causes[0].told}. Its own words are in the server's log."
        return ApiError(400, message, code="invalid_value")
    if all(isinstance(cause, Throttled) for cause in causes):
        soonest = min(cause.retry_after or _DEFAULT_RETRY_AFTER_S for cause in causes)
        return _retryable(429, "Every provider is at capacity. Try again later.", "rate_limit_exceeded", soonest)
    if all(isinstance(cause, (Throttled, Unreached, Unusable)) for cause in causes):
        message = "No provider of this model can be reached at the moment."
        return _retryable(503, message, "upstream_unavailable", _DEFAULT_RETRY_AFTER_S)
    if any(isinstance(cause, Unfetched) for cause in causes):
        message = (
            "The image was generated and billed, but could not be downloaded from the provider in time. "
            "A repeated request with the same Idempotency-Key tries again."
        )
        return ApiError(504, message, type="server_error", code="deadline_exceeded")
    if isinstance(causes[-1], Unfinished):
        message = (
            "Not ready within the deadline, and this provider cannot cancel: the image may still be generated "
            "and billed."
        )
        return ApiError(504, message, type="server_error", code="deadline_exceeded")
    if isinstance(causes[-1], Expired):
        message = "The image was not ready within the deadline; the job was cancelled."
        return ApiError(504, message, type="server_error", code="deadline_exceeded")
    reason = "; ".join(dict.fromkeys(cause.told for cause in causes if not isinstance(cause, Unusable)))
    return ApiError(502, f"No provider returned an image: {reason}.", type="server_error", code="all_providers_failed")
