"""More than there is room for: turned away at once, before its body is read, and nothing is bought for it."""

from __future__ import annotations

import threading
import time

from tests.simulators.common import tiny
from tests.support.photo import flat
from tests.support.raw import form, head, line
from tests.support.running import until
from tests.support.world import World, world

MODEL = {"model": "clarity-upscaler", "prompt": "a cup"}
SLOW = {"DARKROOM_GATEWAY__MAX_IN_FLIGHT_BYTES": "20000", "DARKROOM_GATEWAY__BODY_TIMEOUT_S": "30"}


def test_jobs() -> None:
    """With as many jobs as there may be, in the background too, a call is 503 and told when to come again."""
    with world("replicate", environ={"DARKROOM_GATEWAY__MAX_JOBS": "1"}) as here:
        sim = here.sims["replicate"]
        sim.run_s, before = 1.0, here.metric("darkroom_shed_total", limit="jobs")
        going = threading.Thread(target=lambda: here.edit(retries=0))
        going.start()
        until(lambda: here.metric("darkroom_jobs_in_progress") == 1, "a job goes on")
        answer = here.edit(retries=0)
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.headers["retry-after"]
        going.join()
        assert here.taken("replicate") == 1
        assert here.metric("darkroom_shed_total", limit="jobs") == before + 1
        assert here.edit(retries=0).status == 200


def test_bytes() -> None:
    """A body that is announced and has no room is refused before it is read; others go on, and room comes back."""
    with world("replicate", environ=SLOW) as here, line(here.url) as first:
        before = here.metric("darkroom_shed_total", limit="bytes")
        body = form(tiny(), **MODEL) + bytes(15_000)
        first.say(head(here.url, len(body)))
        first.say(form(tiny(), **MODEL)[:-20] + bytes(15_000))
        until(lambda: here.metric("darkroom_request_bytes_held") > 15_000, "the bytes are counted")

        with line(here.url) as second:
            second.say(head(here.url, 19_000, "expect: 100-continue"))
            found = second.receive()
            assert (found.status, found.error["code"]) == (503, "overloaded")
            assert found.headers["retry-after"]
        assert unannounced(here) == 503
        assert here.edit(tiny(), retries=0).status == 200
        first.socket.close()
        until(lambda: here.metric("darkroom_request_bytes_held") == 0, "the room is given back")
        assert here.metric("darkroom_shed_total", limit="bytes") == before + 2


def unannounced(here: World) -> int:
    """The answer to a body of which nobody said how long it would be."""
    body = form(flat(8, 8) + bytes(15_000), **MODEL)
    with line(here.url) as client:
        client.say(head(here.url, None) + f"{len(body):x}\r\n")
        client.say(body + b"\r\n0\r\n\r\n")
        return client.receive().status


def test_a_job_keeps_its_bytes() -> None:
    """The pictures of a job that goes on in the background count until it has ended."""
    with world("replicate") as here:
        sim = here.sims["replicate"]
        sim.run_s = 0.5
        assert here.edit(extra_body={"background": True}).status == 202
        assert here.metric("darkroom_request_bytes_held") > 0
        until(lambda: here.metric("darkroom_jobs_in_progress") == 0, "it ends")
        time.sleep(0.05)
        assert here.metric("darkroom_request_bytes_held") == 0
