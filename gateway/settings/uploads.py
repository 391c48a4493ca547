"""`[gateway]`: how much is taken of callers, and how fast it has to come."""

from __future__ import annotations

from gateway.settings.kinds import Count, Seconds
from normalization.rules import Frozen


class UploadSettings(Frozen):
    """Limits in bytes, pixels and seconds."""

    body_timeout_s: Seconds = 60
    max_upload_bytes: Count = 50 * 2**20
    max_body_bytes: Count = 200 * 2**20
    max_input_pixels: Count = 50_000_000
    max_side: Count = 16_384
    max_output_pixels: Count = 64_000_000
    max_in_flight_pixels: Count = 128_000_000
