"""`[gateway]`: how much is taken of callers, and how fast it has to come."""

from __future__ import annotations

from typing import Literal

from gateway.settings.types import Count, Seconds, Whole
from normalization.parameters.rules import Frozen


class UploadSettings(Frozen):
    """Limits in bytes, pixels and seconds."""

    body_timeout_s: Seconds = 60
    min_upload_bytes_per_s: Whole = 16 * 2**10
    max_upload_bytes: Count = 50 * 2**20
    max_body_bytes: Count = 200 * 2**20
    max_input_pixels: Count = 50_000_000
    max_side: Count = 16_384
    max_output_pixels: Count = 64_000_000
    max_in_flight_pixels: Count = 128_000_000
    max_waiting_pixels: Count = 512_000_000
    max_in_flight_bytes: Count = 512 * 2**20
    max_jobs: Count = 1000
    image_isolation: Literal["thread", "process"] = "thread"
    image_timeout_s: Seconds = 30
