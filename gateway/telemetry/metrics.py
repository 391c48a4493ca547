"""All metrics. Label values are bounded by the config: models, providers, API routes, formats."""

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

REQUESTS = Counter("darkroom_requests_total", "HTTP requests answered.", ["route", "method", "code"])
REQUEST_SECONDS = Histogram(
    "darkroom_request_seconds",
    "Time from the first byte of a request to the last byte of its response, in seconds.",
    ["route"],
    buckets=_SECONDS,
)
IN_FLIGHT = Gauge("darkroom_requests_in_flight", "Requests in progress.", multiprocess_mode="livesum")
ATTEMPTS = Counter("darkroom_attempts_total", "Attempts at providers, by outcome.", ["provider", "model", "outcome"])
ATTEMPT_SECONDS = Histogram(
    "darkroom_attempt_seconds",
    "Time from submit to result of successful attempts, in seconds.",
    ["provider", "model"],
    buckets=_SECONDS,
)
COST = Counter("darkroom_cost_usd_total", "Money spent at providers, in US dollars.", ["provider", "model"])
DUPLICATES = Counter(
    "darkroom_possible_duplicates_total", "Images bought again after an attempt with an unknown outcome.", ["provider"]
)
IMAGES = Counter("darkroom_images_total", "Images delivered.", ["model", "provider", "format"])
DEGRADED = Counter("darkroom_degraded_total", "Requests served by a degraded route.", ["model"])
BYTES_IN = Counter("darkroom_image_bytes_in_total", "Bytes of images received from clients.")
BYTES_OUT = Counter("darkroom_image_bytes_out_total", "Bytes of images delivered to clients.")
EMULATIONS = Counter(
    "darkroom_emulations_total",
    "Operations done by the gateway for providers without them.",
    ["emulation"],
)
JOBS = Gauge("darkroom_jobs_in_progress", "Jobs in progress.", multiprocess_mode="livesum")
QUEUE = Gauge(
    "darkroom_queue_depth", "Jobs waiting for a free slot at a provider.", ["provider"], multiprocess_mode="livesum"
)
LEDGER_SECONDS = Histogram(
    "darkroom_ledger_write_seconds",
    "Time from a ledger write to its commit, in seconds.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
LEDGER_OWED = Gauge(
    "darkroom_ledger_writes_owed", "Ledger writes waiting for the database to recover.", multiprocess_mode="livesum"
)
UNKNOWN = Counter("darkroom_unknown_outcomes_total", "Submits whose outcome could not be determined.", ["provider"])
JOINED = Counter("darkroom_joined_total", "Repeated requests that received the existing job.", ["by"])
RESUMED = Counter("darkroom_resumed_total", "Jobs resumed after the process that ran them had ended.", ["outcome"])
LEFT = Counter("darkroom_callers_left_total", "Clients that disconnected before their response.", ["job"])
HEARD = Counter(
    "darkroom_webhooks_received_total", "Webhooks received from providers, by outcome.", ["provider", "outcome"]
)
TOLD = Counter("darkroom_webhooks_sent_total", "Webhook delivery attempts, by outcome.", ["outcome"])
REFUSED = Counter("darkroom_refused_total", "Requests rejected by an API key's quota, by kind of quota.", ["reason"])
SHED = Counter("darkroom_shed_total", "Requests rejected because the server was at capacity, by limit.", ["limit"])
HELD = Gauge(
    "darkroom_request_bytes_held",
    "Bytes held for request bodies being read or processed and for responses being sent.",
    multiprocess_mode="livesum",
)
CUT = Counter(
    "darkroom_cut_off_total", "Connections closed because the client was too slow to send or to read.", ["while"]
)
DECODERS = Counter("darkroom_decoders_ended_total", "Decoder processes that ended early, by reason.", ["reason"])
LAG = Histogram("darkroom_event_loop_lag_seconds", "Delay of the event loop, in seconds.", buckets=_LAG)


def expose() -> bytes:
    """All metrics in Prometheus' text format, summed over processes if the server runs several."""
    return generate_latest(collected())


def collected() -> CollectorRegistry:
    """The registry to expose, which covers all processes if the server runs several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def forget_process() -> None:
    """Remove this process's gauges from the sums, when it ends."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
