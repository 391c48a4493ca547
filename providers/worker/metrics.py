"""A worker's Prometheus metrics: predictions, slots and devices."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from providers.worker.engines.base import Engine

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds per output megapixel: from a resampler to minutes.
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_MEGAPIXEL = 1_000_000


class Tally:
    """Counts of an engine's predictions. For one event loop."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()
        self._paces = [0] * (len(_BUCKETS) + 1)
        self._pace_sum = 0.0

    def count(self, status: str, seconds: float, pixels: int) -> None:
        """Count a finished prediction, with its run time and output pixels."""
        self._ended[status] += 1
        if pixels and status == "succeeded":
            pace = seconds / (pixels / _MEGAPIXEL)
            self._paces[bisect_left(_BUCKETS, pace)] += 1
            self._pace_sum += pace

    def render(self, engine: Engine, slots: int, taken: int) -> bytes:
        """Return the metrics page."""
        # Imported on demand: it takes longer to import than the worker to start.
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import generate_latest

        tally = self

        class Collector:
            def collect(self) -> Iterator[Metric]:
                yield from tally._families(engine, slots, taken)

        registry = CollectorRegistry()
        registry.register(Collector())
        return generate_latest(registry)

    def _families(self, engine: Engine, slots: int, taken: int) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        info = GaugeMetricFamily("darkroom_worker_info", "The engine in use.", labels=["engine", "version", "model"])
        info.add_metric([engine.name, engine.version, engine.model], 1)
        ended = CounterMetricFamily("darkroom_worker_predictions", "Finished predictions.", labels=["status"])
        for status in ("succeeded", "failed", "canceled"):
            ended.add_metric([status], self._ended[status])
        pace = HistogramMetricFamily(
            "darkroom_worker_seconds_per_megapixel", "Run time of a prediction per output megapixel, in seconds."
        )
        below, buckets = 0, []
        for limit, number in zip((*map(str, _BUCKETS), "+Inf"), self._paces, strict=True):
            below += number
            buckets.append((limit, float(below)))
        pace.add_metric([], buckets, self._pace_sum)
        slot_counts = GaugeMetricFamily("darkroom_worker_slots", "Slots for predictions.", labels=["state"])
        slot_counts.add_metric(["all"], slots)
        slot_counts.add_metric(["taken"], taken)
        yield from (info, ended, pace, slot_counts)
        memory = GaugeMetricFamily(
            "darkroom_worker_device_memory_bytes",
            "Memory of a device: total, used now, peak.",
            labels=["device", "state"],
        )
        batch = GaugeMetricFamily("darkroom_worker_tile_batch", "Tiles processed at once.", labels=["device"])
        for device in engine.devices():
            batch.add_metric([device.name], device.tile_batch)
            # A CPU has no memory of its own to report.
            if device.total_bytes:
                memory.add_metric([device.name, "total"], device.total_bytes)
                memory.add_metric([device.name, "used"], device.used_bytes)
                memory.add_metric([device.name, "peak"], device.peak_bytes)
        yield from (memory, batch)
