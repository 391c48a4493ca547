"""Clients that draw things out, pile them up, or never read: each is told, and its connection ended."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from openai import APIStatusError, OpenAI

from tests.support.photo import flat
from tests.support.pictures import encoded, noise
from tests.support.raw import Line, form, head, line
from tests.support.running import Serve, Served, until

pytestmark = pytest.mark.early

PICTURE = flat(64, 48)
HOST = "host: 127.0.0.1"


@pytest.fixture(scope="module", params=["1", "2"], ids=["one_process", "two_processes"])
def hasty(serve: Serve, request: pytest.FixtureRequest) -> Served:
    """A gateway that waits for one second where others wait for ten."""
    return serve(
        "--workers",
        request.param,
        DARKROOM_GATEWAY__HEADER_TIMEOUT_S="1",
        DARKROOM_GATEWAY__MAX_BODY_BYTES="10000000",
        DARKROOM_GATEWAY__BODY_TIMEOUT_S="30",
    )


@pytest.mark.parametrize("said", ["", "\r\n\r\n", "\r\n"])
def test_nothing_is_said(hasty: Served, said: str) -> None:
    """A connection on which no request begins is ended without a word."""
    with line(hasty.root) as client:
        client.say(said)
        assert client.ended()


@pytest.mark.parametrize("first", ["GET /a", "GET /healthz HTTP/1.1\r\n", f"GET /healthz HTTP/1.1\r\n{HOST}\r\nx-a: b"])
def test_an_unfinished_head(hasty: Served, first: str) -> None:
    """A head that comes drop by drop does not keep the connection: 408 after the time for it."""
    with line(hasty.root) as client:
        client.say(first)
        for _ in range(10):
            time.sleep(0.05)
            client.say("x")
        found = client.receive()
        assert found.status == 408
        assert found.error["code"] == "request_timeout"
        assert found.headers["connection"] == "close"
        assert client.ended()


def test_the_second_head_has_its_own_time(hasty: Served) -> None:
    """A kept connection may be idle for long; once a head begins, it has to end."""
    with line(hasty.root) as client:
        client.say(f"GET /healthz HTTP/1.1\r\n{HOST}\r\n\r\n")
        assert client.receive().status == 200
        time.sleep(1.5)
        client.say(f"GET /healthz HTTP/1.1\r\n{HOST}\r\n\r\n")
        assert client.receive().status == 200
        client.say("GET /healthz")
        assert client.receive().status == 408


HEADS = {
    "one_long_header": f"{HOST}\r\nx-long: {'a' * 70_000}\r\n\r\n",
    "a_header_without_end": f"{HOST}\r\nx-long: {'a' * 400_000}",
    "many_headers": f"{HOST}\r\n" + "".join(f"x-{i}: a\r\n" for i in range(120)) + "\r\n",
    "together": f"{HOST}\r\n" + "".join(f"x-{i}: {'a' * 1000}\r\n" for i in range(80)) + "\r\n",
}


@pytest.mark.parametrize("rest", HEADS.values(), ids=HEADS.keys())
def test_a_large_head(hasty: Served, rest: str) -> None:
    """431 in the envelope."""
    with line(hasty.root) as client:
        client.say(f"GET /healthz HTTP/1.1\r\n{rest}")
        found = client.receive()
        assert found.status == 431
        assert found.error["code"] == "headers_too_large"


def test_a_long_address(hasty: Served) -> None:
    """The request's line counts."""
    with line(hasty.root) as client:
        client.say(f"GET /healthz?{'a' * 70_000} HTTP/1.1\r\n{HOST}\r\n\r\n")
        assert client.receive().status == 431


def test_a_large_head_that_is_none_too_large(hasty: Served) -> None:
    """60 kB of cookies pass."""
    with line(hasty.root) as client:
        client.say(f"GET /healthz HTTP/1.1\r\n{HOST}\r\ncookie: {'a' * 60_000}\r\n\r\n")
        assert client.receive().status == 200


BROKEN = {
    "no_http": "\x16\x03\x01\x02\x00 this is TLS\r\n\r\n",
    "no_version": "GET /healthz HTTP/9.9\r\n\r\n",
    "two_lengths": f"POST /healthz HTTP/1.1\r\n{HOST}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "length_and_chunks": f"PUT / HTTP/1.1\r\n{HOST}\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
    "a_space_in_a_name": f"GET /healthz HTTP/1.1\r\n{HOST}\r\nbad name: 1\r\n\r\n",
    "a_chunk_of_no_size": f"POST /v1/images/edits HTTP/1.1\r\n{HOST}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN.keys())
def test_no_http(hasty: Served, said: str) -> None:
    """400 in the envelope, and the connection is over."""
    with line(hasty.root) as client:
        client.say(said)
        found = client.receive()
        assert (found.status, found.headers["content-type"]) == (400, "application/json")
        assert found.error["code"] == "invalid_http"
        assert client.ended()


def test_trailers_are_no_headers(hasty: Served) -> None:
    """What comes behind a chunked body is thrown away; without end it is refused."""
    with line(hasty.root) as client:
        body = form(PICTURE, model="lanczos-bp", size="32x24")
        client.say(head(hasty.root, None) + f"{len(body):x}\r\n")
        client.say(body + b"\r\n0\r\nx-darkroom-routing: no json\r\n\r\n")
        assert client.receive().status == 200
    with line(hasty.root) as client:
        client.say(head(hasty.root, None) + "2\r\n--\r\n0\r\nx: ")
        found = _flooded(client)
        assert found == 431


def _flooded(client: Line) -> int:
    for _ in range(100):
        client.say(b"a" * 10_000)
        time.sleep(0.001)
    return client.receive().status


def test_asking_first(hasty: Served) -> None:
    """`Expect: 100-continue` is answered before the body, and by the refusal alone where there is one."""
    body = form(PICTURE, model="lanczos-bp", size="32x24")
    with line(hasty.root) as client:
        client.say(head(hasty.root, len(body), "expect: 100-continue"))
        assert client.receive().status == 100
        client.say(body)
        assert client.receive().status == 200
    with line(hasty.root) as client:
        client.say(head(hasty.root, 11_000_000, "expect: 100-continue"))
        found = client.receive()
        assert (found.status, found.error["code"]) == (413, "request_too_large")
        assert found.headers["connection"] == "close"
        assert client.ended()


def test_an_early_answer_reaches_who_still_sends(hasty: Served) -> None:
    """60 MB, refused by their length: the whole of it is sent, and the answer is there all the same."""
    with line(hasty.root) as client:
        client.say(head(hasty.root, 60 << 20))
        for _ in range(60):
            client.say(bytes(1 << 20))
        assert client.receive().status == 413

    def chunks() -> Any:
        for _ in range(60):
            yield bytes(1 << 20)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    # Without a length it is refused in the middle, here for not being what it says.
    answer = httpx.post(f"{hasty.base_url}/images/edits", content=chunks(), headers=kind)
    assert answer.status_code in (400, 413)
    with OpenAI(base_url=hasty.base_url, api_key="none", max_retries=0) as sdk:
        with pytest.raises(APIStatusError) as caught:
            sdk.images.edit(model="lanczos-bp", prompt="a cup", image=("in.png", bytes(60 << 20)))
        assert caught.value.status_code == 413
        # The same client goes on, on another connection.
        assert sdk.images.edit(model="lanczos-bp", prompt="a cup", image=("in.png", PICTURE)).data


def test_an_early_answer_ends_the_connection(hasty: Served) -> None:
    """What is still sent after an answer is not taken for ever, nor for the next request."""
    with line(hasty.root) as client:
        client.say(head(hasty.root, 11_000_000) + "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        found = client.receive()
        assert (found.status, found.headers["connection"]) == (413, "close")
        assert client.ended()


def test_a_slow_body(serve: Serve) -> None:
    """A body below the floor is 408 well before its whole time is over; one that waits for us is not."""
    served = serve(DARKROOM_GATEWAY__MIN_UPLOAD_BYTES_PER_S="1000", DARKROOM_GATEWAY__BODY_TIMEOUT_S="600")
    with line(served.root) as client:
        client.say(head(served.root, 100_000))
        client.say(form(b"\x89PNG")[:-20])
        began = time.monotonic()
        client.socket.settimeout(0.2)
        while True:
            try:
                found = client.receive()
                break
            except TimeoutError:
                client.say("x")
        assert (found.status, found.error["code"]) == (408, "request_timeout")
        assert "1000 bytes per second" in found.error["message"]
        assert time.monotonic() - began < 300
    assert served.metric("darkroom_cut_off_total", **{"while": "body"}) == 1


def test_a_client_that_does_not_read(serve: Serve) -> None:
    """Its connection is ended, what was written for it is given back, and others are served meanwhile."""
    served = serve(DARKROOM_GATEWAY__SEND_TIMEOUT_S="1")
    fields = {"size": "1800x1800", "response_format": "b64_json", "output_format": "png"}
    noisy = form(encoded(noise(1800, 1800), "png"), model="lanczos-bp", **fields)
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", int(served.root.rpartition(":")[2])))
        lazy.sendall(head(served.root, len(noisy)).encode() + noisy)
        until(lambda: served.metric("darkroom_cut_off_total", **{"while": "answer"}) == 1, "it is cut off")
    assert served.metric("darkroom_requests_in_flight") <= 1


def test_more_connections_than_there_may_be(serve: Serve) -> None:
    """Those above the limit are told so at once; those within it are served, and places become free again."""
    served = serve(DARKROOM_GATEWAY__MAX_CONNECTIONS="4", DARKROOM_GATEWAY__HEADER_TIMEOUT_S="2")
    with ExitStack() as stack:
        clients = [stack.enter_context(line(served.root)) for _ in range(6)]
        found = clients[5].receive()
        assert (found.status, found.error["code"]) == (503, "overloaded")
        assert found.headers["retry-after"]
        clients[0].say(f"GET /healthz HTTP/1.1\r\n{HOST}\r\n\r\n")
        assert clients[0].receive().status == 200
    until(lambda: httpx.get(f"{served.root}/healthz").status_code == 200, "a place is free")


def test_connections_of_one_address(serve: Serve) -> None:
    """One peer may be held to fewer."""
    served = serve(DARKROOM_GATEWAY__MAX_CONNECTIONS_PER_ADDRESS="2")
    with line(served.root), line(served.root), line(served.root) as third:
        assert third.receive().status == 503
