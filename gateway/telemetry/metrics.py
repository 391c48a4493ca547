"""Every metric, declared once. Labels are bounded by the config: models, providers, routes of the API, formats."""

from __future__ import annotations

import os

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300)
_LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1)

REQUESTS = Counter("darkroom_requests_total", "Answered requests.", ["route", "method", "code"])
REQUEST_SECONDS = Histogram(
    "darkroom_request_seconds",
    "From the first byte of a request to the last of its answer.",
    ["route"],
    buckets=_SECONDS,
)
IN_FLIGHT = Gauge("darkroom_requests_in_flight", "Requests being answered.", multiprocess_mode="livesum")
ATTEMPTS = Counter(
    "darkroom_attempts_total", "Attempts at a provider, by what came of them.", ["provider", "model", "outcome"]
)
ATTEMPT_SECONDS = Histogram(
    "darkroom_attempt_seconds",
    "From submit to result, for attempts that gave one.",
    ["provider", "model"],
    buckets=_SECONDS,
)
COST = Counter("darkroom_cost_usd_total", "Money spent, in US dollars.", ["provider", "model"])
DUPLICATES = Counter(
    "darkroom_possible_duplicates_total", "Pictures bought again after an unknown outcome.", ["provider"]
)
IMAGES = Counter("darkroom_images_total", "Pictures delivered.", ["model", "provider", "format"])
DEGRADED = Counter("darkroom_degraded_total", "Requests that a degraded route answered.", ["model"])
BYTES_IN = Counter("darkroom_image_bytes_in_total", "Bytes of pictures received from callers.")
BYTES_OUT = Counter("darkroom_image_bytes_out_total", "Bytes of pictures delivered to callers.")
EMULATIONS = Counter("darkroom_emulations_total", "Things done here because the provider lacks them.", ["emulation"])
JOBS = Gauge("darkroom_jobs_in_progress", "Jobs that are running.", multiprocess_mode="livesum")
QUEUE = Gauge(
    "darkroom_queue_depth", "Jobs waiting for a place at a provider.", ["provider"], multiprocess_mode="livesum"
)
LEDGER_SECONDS = Histogram(
    "darkroom_ledger_write_seconds",
    "From a write to the ledger to its commit.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
LEDGER_OWED = Gauge(
    "darkroom_ledger_writes_owed", "Writes that wait for the database to be back.", multiprocess_mode="livesum"
)
UNKNOWN = Counter(
    "darkroom_unknown_outcomes_total", "Submits of which nobody could say what became of them.", ["provider"]
)
JOINED = Counter("darkroom_joined_total", "Repeated calls that were given the job they repeat.", ["by"])
RESUMED = Counter("darkroom_resumed_total", "Jobs that went on after the process that had them was gone.", ["outcome"])
LEFT = Counter("darkroom_callers_left_total", "Callers that left before their answer.", ["job"])
HEARD = Counter("darkroom_webhooks_received_total", "Webhooks from providers.", ["provider", "outcome"])
TOLD = Counter("darkroom_webhooks_sent_total", "Tries to tell a caller by webhook.", ["outcome"])
REFUSED = Counter("darkroom_refused_total", "Calls beyond what their key may, by what they were beyond.", ["reason"])
SHED = Counter("darkroom_shed_total", "Calls turned away because the server was full.", ["limit"])
HELD = Gauge(
    "darkroom_request_bytes_held",
    "Bytes of callers' bodies being read or worked on, and of answers being sent.",
    multiprocess_mode="livesum",
)
CUT = Counter(
    "darkroom_cut_off_total", "Connections ended because a client was too slow to send or to read.", ["while"]
)
DECODERS = Counter("darkroom_decoders_ended_total", "Decoder processes that ended before their time.", ["reason"])
LAG = Histogram("darkroom_event_loop_lag_seconds", "How late the event loop wakes up.", buckets=_LAG)


def expose() -> bytes:
    """All metrics in Prometheus' text format: of every process when the server runs in several."""
    return generate_latest(collected())


def collected() -> CollectorRegistry:
    """What there is to expose: of every process when the server runs in several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def forget_process() -> None:
    """Take this process's gauges out of the sums when it ends."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
