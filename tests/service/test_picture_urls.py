"""Pictures by address over real HTTP: fetched from where the operator lets, and from nowhere else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.simulators.common import serve, tiny
from tests.support.hooked import caller
from tests.support.ports import dead_port
from tests.support.world import Canary, World, world

PICTURE = tiny(24, 16)
DIGEST = hashlib.sha256(PICTURE).hexdigest()
SECRET = "path-7f3a/key=secret"


@dataclass(slots=True)
class Album:
    """A stranger's server. `/p/…` has the picture; what else it does stands in `give`."""

    url: str = ""
    image: bytes = PICTURE
    status: int = 200
    seen: list[Request] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Album]:
        """Serve until the block ends."""
        routes = [Route("/p/{rest:path}", self.give), Route("/{kind}", self.misbehave)]
        with serve(Starlette(routes=routes)) as served:
            self.url = served.url
            yield self

    async def give(self, request: Request) -> Response:
        """The picture, with headers that nobody may pass on."""
        self.seen.append(request)
        strange = {"set-cookie": "a=stranger", "x-strange": "stranger", "content-disposition": "stranger"}
        return Response(self.image, self.status, strange, media_type="text/html")

    async def misbehave(self, request: Request) -> Response:
        """Everything else that a server may do."""
        self.seen.append(request)
        match request.path_params["kind"]:
            case "hops":
                left = int(request.query_params["left"])
                return RedirectResponse(f"/hops?left={left - 1}" if left else "/p/a.png")
            case "to":
                return RedirectResponse(request.query_params["url"])
            case "text":
                return Response("<html>no picture</html>", media_type="image/png")
            case "circle":
                return RedirectResponse(str(request.url))
            case "half":
                return Response(b"half", headers={"content-length": "8"}, media_type="image/png")
            case "page":
                return Response("<!DOCTYPE html><title>secret</title>", media_type="text/html")
            case "json":
                return Response('{"error": "secret"}', media_type="Application/JSON; charset=utf-8")
            case "xml":
                return Response("<svg xmlns='http://www.w3.org/2000/svg'/>", media_type="text/xml")
            case "plain":
                return Response("secret", media_type="text/plain")
            case "empty":
                return Response(b"", media_type="image/png")
            case "hang":
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                self.left.set()
                return Response()
            case "endless":
                return StreamingResponse(_endless(), media_type="image/png")
            case _:
                after = request.query_params.get("after")
                return Response(
                    status_code=int(request.path_params["kind"]), headers={"retry-after": after} if after else None
                )


async def _endless() -> Any:
    while True:
        yield bytes(65536)
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Place:
    """A world, a stranger's server that its gateway may call, and a client."""

    world: World
    album: Album
    client: httpx.Client

    def ask(self, query: str = "", headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """Send an edit as JSON."""
        body = {"model": "clarity-upscaler", "prompt": "a cup", **fields}
        return self.client.post(f"/images/edits{query}", json=body, headers=headers)


@contextmanager
def place(**environ: str) -> Iterator[Place]:
    """A place with these settings; names without their `DARKROOM_GATEWAY__`."""
    with ExitStack() as stack:
        album = stack.enter_context(Album().running())
        given = {f"DARKROOM_GATEWAY__{name}": value for name, value in environ.items()}
        allow = [album.url.removeprefix("http://")]
        there = stack.enter_context(world("replicate", environ=given, allow=allow))
        yield Place(there, album, stack.enter_context(caller(there.url)))


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    """A place whose limits are small enough to be met."""
    with place(URL_TIMEOUT_S="1", MAX_UPLOAD_BYTES="300000") as there:
        yield there


@pytest.fixture
def there(shared: Place) -> Place:
    """The shared place, with an album as new."""
    shared.album.image, shared.album.status = PICTURE, 200
    shared.album.seen.clear()
    shared.album.left.clear()
    return shared


def error(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which tells nothing of an address but its host."""
    assert "secret" not in answer.text
    assert "path-7f3a" not in answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


SPELLINGS = [
    ("image", lambda url: url),
    ("image", lambda url: [url]),
    ("image[]", lambda url: [url]),
    ("image[0]", lambda url: url),
    ("images", lambda url: url),
    ("images", lambda url: [{"image_url": url}]),
    ("images", lambda url: [{"image_url": {"url": url}, "type": "input_image"}]),
    ("image_url", lambda url: url),
]


@pytest.mark.parametrize(("name", "made"), SPELLINGS)
def test_every_spelling_is_fetched(there: Place, name: str, made: Any) -> None:
    """In JSON and, where it is a text, in a form too: what would be sent is the picture at the address."""
    value = made(f"{there.album.url}/p/{SECRET}")
    answers = [there.ask("?dry_run=true", **{name: value})]
    if isinstance(value, str):
        fields = {"model": (None, "clarity-upscaler"), name: (None, value)}
        answers.append(there.client.post("/images/edits?dry_run=true", files=fields))
    for answer in answers:
        payload = answer.json()["candidates"][0]["payload"]
        assert payload["image"]["picture"]["sha256"] == DIGEST
    assert len(there.album.seen) == len(answers)


def test_the_sdk_sends_an_address(there: Place) -> None:
    """From the official client to the provider; nothing of the stranger's headers comes through, nor of ours to him."""
    with OpenAI(base_url=f"{there.world.url}/openai/v1", api_key="our-key") as client:
        raw = client.post(
            "/images/edits",
            body={"model": "clarity-upscaler", "images": [{"image_url": f"{there.album.url}/p/a.png"}]},
            cast_to=httpx.Response,
        )
    assert raw.json()["data"][0]["b64_json"]
    assert "stranger" not in f"{raw.headers} {raw.text}"
    (request,) = there.album.seen
    assert {"authorization", "cookie", "referer", "x-api-key"}.isdisjoint(request.headers)
    assert "our-key" not in str(request.headers)


FAILURES: dict[str, tuple[str, int, str, str]] = {
    "gone": ("/404", 400, "image_url_unreachable", "HTTP 404"),
    "refused there": ("/403", 400, "image_url_unreachable", "HTTP 403"),
    "broken there": ("/500", 400, "image_url_unreachable", "127.0.0.1 answered HTTP 500"),
    "later": (
        "/503?after=120",
        400,
        "image_url_unreachable",
        "HTTP 503 and asks to wait for 120 seconds (Retry-After)",
    ),
    "too often": ("/429?after=30", 400, "image_url_unreachable", "asks to wait for 30 seconds (Retry-After)"),
    "too often, without a time": ("/429", 400, "image_url_unreachable", "HTTP 429: it is asked too often."),
    "empty": ("/empty", 400, "image_url_unreachable", "answered with an empty body"),
    "broken off": ("/half", 400, "image_url_unreachable", "127.0.0.1 gave no picture: the answer broke off"),
    "a page": ("/page", 400, "image_url_unreachable", "answered with text/html: an HTML page, not an image."),
    "an API's answer": ("/json", 400, "image_url_unreachable", "application/json: JSON text, not an image."),
    "a drawing": ("/xml", 400, "image_url_unreachable", "text/xml: an SVG drawing, not an image."),
    "some text": ("/plain", 400, "image_url_unreachable", "text/plain: no picture of a format that we know."),
    "too slow": ("/hang", 400, "image_url_unreachable", "within 1 seconds"),
    "too large": ("/endless", 413, "file_too_large", "300000 bytes"),
    "no picture": ("/text", 400, "invalid_image_file", "image"),
    "four hops": (
        "/hops?left=3",
        400,
        "image_url_unreachable",
        "more than 3 redirects, the next of them to 127.0.0.1.",
    ),
    "in a circle": ("/circle", 400, "image_url_unreachable", "127.0.0.1 redirects to itself"),
    "to a file": ("/to?url=file:///etc/passwd", 400, "image_url_refused", "'file'"),
    "to the metadata": ("/to?url=http://169.254.169.254/path-7f3a", 400, "image_url_refused", "169.254.169.254"),
    "to a key": ("/to?url=https://a:secret@example.com/", 400, "image_url_refused", "user name"),
}


@pytest.mark.parametrize(("path", "status", "code", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_what_cannot_be_fetched(there: Place, path: str, status: int, code: str, words: str) -> None:
    """Each failure is told by its place and its kind, and nothing is bought."""
    before = there.world.taken("replicate")
    answer = there.ask(image_url=f"{there.album.url}{path}{'&' if '?' in path else '?'}key=secret")

    found = error(answer)
    assert (answer.status_code, found["code"]) == (status, code)
    assert found["param"] in ("image_url", "image")
    assert words in found["message"]
    assert there.world.taken("replicate") == before


def test_who_failed_behind_a_redirect(there: Place) -> None:
    """Each host that was asked by another one's word is named, and no more of where that is."""
    other = there.album.url.replace("127.0.0.1", "localhost")
    with place(URL_ALLOW=json.dumps([other.removeprefix("http://"), there.album.url.removeprefix("http://")])) as here:
        found = error(here.ask(image=f"{other}/to?url={there.album.url}/404?key=secret"))
    assert found["message"].endswith("could not be fetched: localhost redirects to 127.0.0.1, which answered HTTP 404.")


def test_who_speaks_no_tls(there: Place) -> None:
    """A server that answers in plain text where https was asked for."""
    found = error(there.ask(image=there.album.url.replace("http:", "https:") + "/p/a.png?key=secret"))
    assert found["code"] == "image_url_unreachable"
    assert "127.0.0.1 gave no picture: the TLS handshake failed" in found["message"]


def test_we_name_ourselves(there: Place) -> None:
    """By the project and its version: some hosts refuse a bare word."""
    assert there.ask("?dry_run=true", image=f"{there.album.url}/p/a.png").status_code == 200
    (request,) = there.album.seen
    assert re.fullmatch(r"darkroom/\d+\.\d+\.\d+( \(\+https://\S+\))?", request.headers["user-agent"])


def test_a_few_hops_are_followed(there: Place) -> None:
    """Redirects to where the gateway may call are; each is judged anew."""
    assert there.ask("?dry_run=true", image=f"{there.album.url}/hops?left=2").status_code == 200


def test_nobody_listening_is_told(there: Place) -> None:
    """An address of the operator's own at which nobody listens."""
    with place(URL_ALLOW=json.dumps([f"127.0.0.1:{(port := dead_port())}"])) as other:
        found = error(other.ask(image=f"http://127.0.0.1:{port}/{SECRET}"))
    assert found["code"] == "image_url_unreachable"
    assert "127.0.0.1 gave no picture: the connection was refused" in found["message"]


def test_the_cheap_checks_come_first(there: Place) -> None:
    """A request that is wrong anyway makes nobody fetch anything."""
    url = f"{there.album.url}/p/a.png"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model": "no-such-model"}, "model_not_found"),
        ({"n": 99}, "integer_above_max_value"),
        ({"image": [url, url]}, "too_many_images"),
        ({"mask": url}, "unknown_parameter"),
        ({"lora_links": "https://example.com"}, "parameter_refused"),
        ({"webhook_url": "https://10.0.0.1/"}, "invalid_value"),
    ]
    for fields, code in wrong:
        assert error(there.ask(**{"image": url, **fields}))["code"] == code
    bad_key = there.ask(headers={"idempotency-key": "a b"}, image=url)
    assert error(bad_key)["code"] == "invalid_idempotency_key"
    assert there.album.seen == []


@pytest.mark.parametrize("headers", [{"idempotency-key": "address-1"}, {"x-stainless-retry-count": "1"}])
@pytest.mark.parametrize("later", ["another picture", "gone"])
def test_a_repeated_call_asks_for_the_address(there: Place, headers: dict[str, str], later: str) -> None:
    """It is given the job that it repeats, whatever is at the address by now, and nothing is fetched for it."""
    headers = {name: f"{value}{later}".replace(" ", "-") if "key" in name else value for name, value in headers.items()}
    first_headers = headers if "idempotency-key" in headers else {}
    url = f"{there.album.url}/p/{later}?by={next(iter(headers))}"
    first = there.ask(headers=first_headers, image=url)
    assert first.status_code == 200, first.text
    taken = there.world.taken("replicate")
    there.album.image, there.album.status = (tiny(32, 32), 200) if later == "another picture" else (b"", 404)
    again = there.ask(headers=headers, image=url)

    assert again.status_code == 200, again.text
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["data"][0]["b64_json"] == first.json()["data"][0]["b64_json"]
    assert len(there.album.seen) == 1
    assert there.world.taken("replicate") == taken
    if "idempotency-key" in headers:
        other = there.ask(headers=headers, image=f"{url}&other")
        assert (other.status_code, error(other)["code"]) == (422, "idempotency_key_reuse")


def test_a_caller_who_leaves_ends_the_fetch() -> None:
    """The connection to the stranger is given up before its deadline."""
    with place() as other:
        other.client.timeout = httpx.Timeout(0.5)
        with pytest.raises(httpx.ReadTimeout):
            other.ask(image=f"{other.album.url}/hang")
        assert other.album.left.wait(5)


INNER = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::]"]


def test_nothing_inside_is_ever_called() -> None:
    """With every port and scheme let, addresses of this machine get the same answer, whoever listens there or not."""
    with Canary().running() as canary, ExitStack() as stack:
        port, silent = int(canary.url.rpartition(":")[2]), dead_port()
        there = stack.enter_context(place(URL_HTTP="true", URL_PORTS=json.dumps([80, 443, port, silent])))
        for host in INNER:
            answers = []
            for at in (port, silent):
                direct = there.ask(image=f"http://{host}:{at}/{SECRET}")
                behind = there.ask(image=f"{there.album.url}/to?url=http://{host}:{at}/{SECRET.replace('&', '')}")
                for answer in (direct, behind):
                    found = error(answer)
                    assert (answer.status_code, found["code"], found["param"]) == (400, "image_url_refused", "image")
                answers += [(direct.json(), behind.json())]
            assert answers[0] == answers[1]
        nobody = error(there.ask(image=f"http://no-such-name.invalid:{port}/"))
        local = error(there.ask(image=f"http://localhost:{port}/"))
        assert nobody["message"].replace("no-such-name.invalid", "localhost") == local["message"]
        assert canary.seen == []
        assert there.world.strayed() == []
        assert there.world.taken("replicate") == 0


def test_the_lists_of_hosts_count_for_pictures_and_webhooks() -> None:
    """Only listed hosts are fetched or called, denied ones never; `url_allow` is above both."""
    lists = {"URL_HOSTS_ALLOW": '["*.example.org"]', "URL_HOSTS_DENY": '["bad.example.org"]'}
    with place(**lists) as there:
        for host in ("example.com", "bad.example.org", "example.org"):
            found = error(there.ask(image=f"https://{host}/{SECRET}"))
            assert (found["code"], found["param"]) == ("image_url_refused", "image")
            assert f"{host} is not among the hosts" in found["message"]
            hooked = error(there.ask(image=f"{there.album.url}/p/a", webhook_url=f"https://{host}/{SECRET}"))
            assert hooked["param"] == "webhook_url"
            assert f"{host} is not among the hosts" in hooked["message"]
        assert there.ask("?dry_run=true", image=f"{there.album.url}/p/a").status_code == 200


def test_fetching_can_be_switched_off() -> None:
    """Then an address is refused as one that is not fetched, the allowed ones too; data URLs go on to work."""
    with place(FETCH_IMAGE_URLS="false") as there:
        found = error(there.ask(image=f"{there.album.url}/p/a"))
        assert (found["code"], found["param"]) == ("image_url_unsupported", "image")
        with OpenAI(base_url=f"{there.world.url}/v1", api_key="none") as client, pytest.raises(BadRequestError):
            client.post("/images/edits", body={"image_url": "https://example.com/a"}, cast_to=object)
        assert there.album.seen == []
