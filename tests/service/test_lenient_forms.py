"""Requests as odd tools write them, over real HTTP: what nobody reads refuses nothing, and what is refused is named."""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64encode, encodebytes, urlsafe_b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.simulators.common import tiny
from tests.support.bodies import MULTIPART, multipart, part
from tests.support.hooked import caller
from tests.support.world import world

PICTURE = tiny(24, 16)
DIGEST = hashlib.sha256(PICTURE).hexdigest()
MODEL = part("model", b"clarity-upscaler")
PROMPT = part("prompt", b"a cup")
IMAGE = b'form-data; name="image"'


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A gateway before Replicate, and a client of it."""
    with world("replicate") as there, caller(there.url) as made:
        yield made


def send(client: httpx.Client, body: bytes, content_type: str = MULTIPART) -> httpx.Response:
    """Ask what would be done with a form."""
    return client.post("/images/edits?dry_run=true", content=body, headers={"content-type": content_type})


def payload(answer: httpx.Response) -> dict[str, Any]:
    """What the provider would be sent."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["candidates"][0]["payload"]
    return found


def headed(*lines: bytes, data: bytes = PICTURE) -> bytes:
    """A part with exactly these headers."""
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n" + data


DISPOSITIONS = [
    IMAGE + b'; filename="my "best" photo.png"',
    IMAGE + b'; filename="my "best";photo.png"',
    IMAGE + b'; filename="photo.png',
    IMAGE + b'; filename=photo".png',
    IMAGE + b'; filename="C:\\photos\\"',
    IMAGE + b'; filename="photo.png\\',
    IMAGE + b'; filename="a.png"; filename="b.png"',
    IMAGE + b"; filename=\"a.png\"; filename*=utf-8''b.png; filename*=nonsense",
    IMAGE + b'; filename="a.png"; size=12; size=13; nonsense; =;;',
    b'form-data; filename="my "best" photo.png"; name="image"',
    b'form-data; filename="C:\\photos\\"; name="image"',
    b'form-data; filename="photo.png; name="image"',
    b'form-data; filename="a; name=mask"; name="image"',
]


@pytest.mark.parametrize("disposition", DISPOSITIONS, ids=ascii)
def test_a_files_name_may_be_anything(client: httpx.Client, disposition: bytes) -> None:
    """Quotes that are not escaped or not closed, a backslash at the end, two names of the file, in either order."""
    sent = headed(b"Content-Disposition: " + disposition, b"Content-Type: image/png")
    assert payload(send(client, multipart(MODEL, PROMPT, sent)))["image"]["picture"]["sha256"] == DIGEST


@pytest.mark.parametrize(
    "content_type",
    [
        *(b"image/png; charset", b"image/png; charset=", b'image/png; name="a', b"image/png; a=1; a=2"),
        *(b"image/png;;; =", b"", b"nonsense", b"; charset=utf-8", b'image/png; charset="utf-8'),
        b"image/png" + b"; a=1" * 100,
    ],
    ids=ascii,
)
def test_a_parts_type_may_be_anything(client: httpx.Client, content_type: bytes) -> None:
    """Of a picture and of a text: as much of it counts as can be read."""
    lines = b'Content-Disposition: form-data; name="prompt"', b"Content-Type: " + content_type
    texts = [] if content_type.startswith(b"image/") else [headed(*lines, data="für dich".encode())]
    picture = headed(b"Content-Disposition: " + IMAGE + b'; filename="a"', b"Content-Type: " + content_type)
    found = payload(send(client, multipart(MODEL, *(texts or [PROMPT]), picture)))
    assert found["image"]["picture"]["sha256"] == DIGEST
    assert found["prompt"] == ("für dich" if texts else "a cup")


@pytest.mark.parametrize(
    "preamble",
    [
        b"This is a multi-part message in MIME format.\r\n",
        b"\r\n\r\n--not-it\r\n\r\n",
        b"--frontiers are not boundaries\r\nneither -- --frontier\r\n--frontier2\r\n",
        b"x" * 200_000 + b"\r\n",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_text_before_the_first_boundary(client: httpx.Client, preamble: bytes) -> None:
    """RFC 2046 lets anything stand there, and nobody reads it."""
    body = preamble + multipart(MODEL, PROMPT, part("image", PICTURE, "a.png"))
    assert payload(send(client, body))["image"]["picture"]["sha256"] == DIGEST


def test_headers_that_nobody_reads(client: httpx.Client) -> None:
    """They may come twice; what is read may come twice if it says the same."""
    sent = headed(
        *(b"X-Tool: a", b"X-Tool: b", b"Content-Disposition: " + IMAGE + b'; filename="a"'),
        *(b"Content-Type: image/png", b"content-type: image/png"),
    )
    assert payload(send(client, multipart(MODEL, PROMPT, sent)))["image"]["picture"]["sha256"] == DIGEST


def test_the_whole_bodys_type(client: httpx.Client) -> None:
    """Of a form's it is the boundary that counts, of JSON's nothing."""
    body = multipart(MODEL, PROMPT, part("image", PICTURE, "a.png"))
    payload(send(client, body, "multipart/form-data; charset; boundary=frontier; x=1; x=2"))
    described = b'{"model": "clarity-upscaler", "prompt": "a cup", "width": 24, "height": 16}'
    assert payload(send(client, described, "application/json; charset"))["prompt"] == "a cup"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (headed(b"Content-Type: image/png"), "Content-Disposition of part 3 has no name"),
        (headed(b'Content-Disposition: form-data; name="a"; name="b"'), "Content-Disposition of part 3 has more than"),
        (headed(b'Content-Disposition: form-data; name="my "best""'), "Content-Disposition of part 3 has a name that"),
        (headed(b"Content-Disposition: " + IMAGE + b";a=1" * 64), "Content-Disposition of part 3 has more than 64 par"),
        (headed(b'Content-Disposition: form-data; name="image'), "Content-Disposition of part 3 has a name that"),
        (
            headed(b"Content-Disposition: " + IMAGE, b"Content-Type: image/png", b"Content-Type: text/plain"),
            "part 3 ('image') has two different headers Content-Type",
        ),
        (
            headed(b"Content-Disposition: " + IMAGE, b"X-Long: " + b"x" * 5000),
            "the header 'X-Long' of part 3 ('image')",
        ),
        (headed(b"Content-Disposition: " + IMAGE, b"X Y: 1"), "part 3 ('image') is not valid"),
    ],
    ids=lambda given: ascii(given[:60]),
)
def test_what_is_strict_says_which_part_and_header(client: httpx.Client, sent: bytes, words: str) -> None:
    """The part by its number, and by its name where it has one."""
    answer = send(client, multipart(MODEL, PROMPT, sent))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_multipart")
    assert words in answer.json()["error"]["message"]


def test_a_boundary_that_is_not_in_the_body(client: httpx.Client) -> None:
    """It is named, as is the header that it comes from."""
    answer = send(client, multipart(MODEL), "multipart/form-data; boundary=elsewhere")
    assert answer.json()["error"]["code"] == "invalid_multipart"
    assert "'--elsewhere' that the Content-Type names" in answer.json()["error"]["message"]


DATA_URLS = {
    "percent": "data:image/png," + quote(PICTURE),
    "base64 in percent signs": "data:image/png;base64," + quote(b64encode(PICTURE), safe=""),
    "lines": "data:image/png;base64,\n    " + encodebytes(PICTURE).decode().replace("\n", "\n    "),
    "URL-safe without padding": "data:image/png;base64," + urlsafe_b64encode(PICTURE).decode().rstrip("="),
}


@pytest.mark.parametrize("url", DATA_URLS.values(), ids=DATA_URLS.keys())
def test_data_urls(client: httpx.Client, url: str) -> None:
    """However their bytes are written, in a form and in JSON."""
    answers = [
        send(client, multipart(MODEL, PROMPT, part("image", url.encode()))),
        client.post("/images/edits?dry_run=true", json={"prompt": "a cup", "images": [{"image_url": url}]}),
    ]
    assert [payload(answer)["image"]["picture"]["sha256"] for answer in answers] == [DIGEST] * 2


def test_a_data_url_of_another_kind_stays_refused(client: httpx.Client) -> None:
    """A drawing is no picture here, in percent signs as in base64."""
    answer = send(client, multipart(MODEL, part("image", b"data:image/svg+xml;utf8,%3Csvg/%3E")))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_base64")
    assert "image/svg+xml" in answer.json()["error"]["message"]


@pytest.mark.parametrize("word", ["jpg", "JPG", "Jpeg", "JPEG", "PNG"])
def test_the_formats_other_names(client: httpx.Client, word: str) -> None:
    """The picture comes in the format that was meant, and the answer calls it by OpenAI's name."""
    body = multipart(MODEL, PROMPT, part("image", PICTURE, "a.png"), part("output_format", word.encode()))
    answer = client.post("/images/edits", content=body, headers={"content-type": MULTIPART})
    assert answer.status_code == 200, answer.text
    assert answer.json()["output_format"] == {"jpg": "jpeg", "jpeg": "jpeg", "png": "png"}[word.lower()]
    assert answer.json()["data"][0]["url"].endswith(f".{answer.json()['output_format']}")


@pytest.mark.parametrize("path", ["/images/edits/", "//images///edits//", "/images//edits/"])
def test_slashes_too_many(client: httpx.Client, path: str) -> None:
    """Those that name nothing: the call is the one that was meant, and its job has a plain address."""
    url = f"{str(client.base_url).rstrip('/')}{path}"
    answer = client.post(f"{url}?dry_run=true", data={"prompt": "a cup"}, files={"image": PICTURE})
    assert payload(answer)["image"]["picture"]["sha256"] == DIGEST
    job = client.post(url, data={"prompt": "a cup", "background": "true"}, files={"image": PICTURE}).json()
    assert job["urls"]["get"].endswith(f"/openai/v1/images/jobs/{job['id']}")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP, br", "zstd"])
def test_a_compressed_body_is_named(client: httpx.Client, encoding: str) -> None:
    """In a form and in JSON, by its encoding and with what is taken; a body that is as it is may say so."""
    body = multipart(MODEL, PROMPT, part("image", PICTURE, "a.png"))
    for content_type in (MULTIPART, "application/json"):
        headers = {"content-type": content_type, "content-encoding": encoding}
        answer = client.post("/images/edits?dry_run=true", content=gzip.compress(body), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
        assert f"'{encoding}'" in answer.json()["error"]["message"]
        assert "without a Content-Encoding" in answer.json()["error"]["message"]
        assert answer.headers["accept-encoding"] == "identity"
    plain = {"content-type": MULTIPART, "content-encoding": "identity"}
    payload(client.post("/images/edits?dry_run=true", content=body, headers=plain))
