"""Killed while its answer goes out: whoever has half of a picture calls again, and is given all of it."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types import ImagesResponse
from PIL import Image as Pillow

from tests.chaos.gateway import Gateway, gateway
from tests.chaos.providers import clouds
from tests.simulators.common import size

_SIDE, _FACTOR = 400, 4
# What the system has taken over from a process still arrives, 4 MB at most: the answer is larger.
_BUFFER = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)]


def noise() -> bytes:
    """A picture that cannot be compressed."""
    made = io.BytesIO()
    Pillow.frombytes("RGB", (_SIDE, _SIDE), os.urandom(3 * _SIDE * _SIDE)).save(made, "png")
    return made.getvalue()


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"idempotency-key": "k"}, {"idempotency-key": "k"}),
        ({"x-stainless-retry-count": "0"}, {"x-stainless-retry-count": "1"}),
    ],
    ids=["key", "retry"],
)
def test_half_read(tmp_path: Path, first: Mapping[str, str], again: Mapping[str, str]) -> None:
    """One job, one bill, and the picture whole: whether the call is repeated under its key or by the SDK."""
    picture = noise()
    fields: dict[str, Any] = {"model": "clarity-upscaler", "prompt": "a cup", "response_format": "b64_json"}
    with clouds("fal", run_s=0.1) as there, gateway(tmp_path, there.environ) as served:
        transport = httpx.HTTPTransport(socket_options=_BUFFER)
        with httpx.Client(base_url=served.base_url, transport=transport, timeout=60) as http:
            form = {**fields, "scale_factor": str(_FACTOR), "seed": "7"}
            files = {"image": ("in.png", picture, "image/png")}
            with http.stream("POST", "/images/edits", data=form, files=files, headers=first) as response:
                assert response.status_code == 200
                whole, job = int(response.headers["content-length"]), response.headers["x-darkroom-job"]
                read = _read(response, whole // 8, served)
        assert read < whole
        served.start()
        with OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as sdk:
            raw = sdk.images.with_raw_response.edit(
                **fields,
                image=("in.png", picture, "image/png"),
                extra_body={"scale_factor": _FACTOR, "seed": 7},
                extra_headers=again,
            )
            made: ImagesResponse = raw.parse()

        assert raw.headers["x-darkroom-job"] == job
        assert raw.headers["idempotent-replayed"] == "true"
        assert made.data
        assert size(base64.b64decode(str(made.data[0].b64_json))) == (_SIDE * _FACTOR, _SIDE * _FACTOR)
        assert [bill.billed for bill in there.bills()] == [True]
        # It comes from our own store: the provider was not asked for it once more.
        assert there.storms["fal"].asked["download"] == 1


def _read(response: httpx.Response, enough: int, served: Gateway) -> int:
    """Read so many bytes, then kill who sends them; how many came."""
    read = 0
    with contextlib.suppress(httpx.TransportError):
        for block in response.iter_raw():
            read += len(block)
            if read >= enough and served.alive:
                served.kill()
    return read
