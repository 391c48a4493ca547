"""A gateway that decodes in processes: what becomes of its callers when those hang, and what is in there to be had."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from openai import BadRequestError, OpenAI

from tests.support.photo import flat
from tests.support.pictures import encoded, noise
from tests.support.running import Serve, Served

KEY = "key-of-a-provider-4711"


def decoders(served: Served) -> list[int]:
    """The process ids of the decoders that there are."""
    return [one.pid for one in served.descendants() if "imaging.sandbox" in one.command and one.state[0] != "Z"]


def test_a_decoder_that_hangs(serve: Serve) -> None:
    """The caller is told in a clear 400, the decoder is gone, others are served, and no key was ever in there."""
    served = serve(
        DARKROOM_GATEWAY__IMAGE_ISOLATION="process",
        DARKROOM_GATEWAY__IMAGE_TIMEOUT_S="2",
        SEGMIND_API_KEY=KEY,
        DARKROOM_GATEWAY__AUTH="none",
    )
    with OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:

        def edit(picture: bytes) -> bool:
            answer = client.images.edit(
                model="lanczos-bp", prompt="", image=("in.gif", picture), size="1024x1024", output_format="jpeg"
            )
            return bool(answer.data)

        assert edit(flat(640, 480, form="GIF"))
        (pid, *_) = known = decoders(served)
        for one in known:
            assert KEY.encode() not in Path(f"/proc/{one}/environ").read_bytes()
        stop = threading.Event()

        def freeze() -> None:
            while not stop.is_set():
                for one in decoders(served):
                    with contextlib.suppress(ProcessLookupError):  # it has ended since
                        os.kill(one, signal.SIGSTOP)
                time.sleep(0.01)

        freezing = threading.Thread(target=freeze)
        freezing.start()
        try:
            with pytest.raises(BadRequestError) as caught:
                edit(encoded(noise(900, 900), "gif"))
        finally:
            stop.set()
            freezing.join()
        assert caught.value.code == "invalid_image_file"
        assert "longer than 2 seconds" in str(caught.value)
        assert pid not in decoders(served)
        assert edit(flat(640, 480, form="GIF"))
    assert served.metric("darkroom_decoders_ended_total", reason="timeout") == 1
