"""What a caller does wrong, as the Python SDK raises it."""

from __future__ import annotations

import io
import re
from typing import Any

import openai
import pytest
from openai import APIStatusError, BadRequestError, OpenAI
from PIL import Image as Pillow

from tests.support.gateways import Edit
from tests.support.paths import COFFEE
from tests.support.photo import flat, saved
from tests.support.running import Serve, Served, until

PNG = flat(40, 30)
KEYS = {"message", "type", "param", "code"}


def animated() -> bytes:
    """Two pictures in one file."""
    buffer = io.BytesIO()
    frames = [Pillow.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def check(error: APIStatusError, status: int, code: str, param: str | None) -> None:
    """An error is a whole envelope, a sentence that stands alone, and an id to find it by in the log."""
    envelope: dict[str, Any] = error.response.json()["error"]
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert envelope.keys() >= KEYS
    assert set(error.response.json()) == {"error"}
    assert error.response.headers["content-type"] == "application/json"
    assert error.response.headers["x-request-id"] == error.request_id
    assert error.request_id
    assert error.type in ("invalid_request_error", "image_generation_user_error", "server_error")
    assert re.fullmatch(r"\S[^\n]{18,}[.?]", envelope["message"])
    assert envelope["message"] in str(error)


INVALID: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no picture": ({"image": []}, "missing_required_parameter", "image"),
    "empty": ({"image": b""}, "invalid_image_file", "image"),
    "not a picture": ({"image": b"GIF or PNG? Neither."}, "invalid_image_file", "image"),
    "a page": ({"image": ("a.png", b"<html><body>403</body></html>", "image/png")}, "invalid_image_file", "image"),
    "an address in a file": ({"image": b"http://127.0.0.1:1/a.png"}, "invalid_image_file", "image"),
    "cut short": ({"image": COFFEE.read_bytes()[:100_000]}, "invalid_image_file", "image"),
    "cut short jpeg": ({"image": flat(400, 300, form="JPEG")[:-200]}, "invalid_image_file", "image"),
    "cut short webp": ({"image": flat(400, 300, form="WEBP")[:-20]}, "invalid_image_file", "image"),
    "header only": ({"image": PNG[:33]}, "invalid_image_file", "image"),
    "animated": ({"image": animated()}, "invalid_image_file", "image"),
    "svg": ({"image": b'<svg xmlns="http://www.w3.org/2000/svg"/>'}, "invalid_image_file", "image"),
    "bmp": ({"image": flat(20, 20, form="BMP")}, "invalid_image_file", "image"),
    "too many pixels": ({"image": saved(Pillow.new("1", (8000, 8000)))}, "image_too_large", "image"),
    "too long a side": ({"image": saved(Pillow.new("1", (17_000, 10)))}, "image_too_large", "image"),
    "two pictures": ({"image": [PNG, PNG]}, "too_many_images", "image"),
    "second broken": ({"image": [PNG, b"no"]}, "too_many_images", "image"),
    "n above": ({"n": 11}, "integer_above_max_value", "n"),
    "n below": ({"n": 0}, "integer_below_min_value", "n"),
    "n no number": ({"n": "many"}, "invalid_type", "n"),
    "n a fraction": ({"n": 1.5}, "invalid_type", "n"),
    "n true": ({"n": True}, "invalid_type", "n"),
    "compression above": ({"output_compression": 101}, "integer_above_max_value", "output_compression"),
    "compression below": ({"output_compression": -1}, "integer_below_min_value", "output_compression"),
    "factor above": ({"extra_body": {"scale_factor": 16.5}}, "decimal_above_max_value", "scale_factor"),
    "factor below": ({"extra_body": {"scale_factor": 0.5}}, "decimal_below_min_value", "scale_factor"),
    "factor no number": ({"extra_body": {"scale_factor": "big"}}, "invalid_type", "scale_factor"),
    "factor a list": ({"extra_body": {"scale_factor": [1, 2]}}, "invalid_type", "scale_factor"),
    "factor an object": ({"extra_body": {"scale_factor": {"x": 2}}}, "invalid_type", "scale_factor"),
    "format svg": ({"output_format": "svg"}, "invalid_value", "output_format"),
    "response format": ({"response_format": "base64"}, "invalid_value", "response_format"),
    "stream maybe": ({"stream": "maybe"}, "invalid_type", "stream"),
    "size no size": ({"size": "huge"}, "invalid_value", "size"),
    "size of nothing": ({"size": "0x100"}, "invalid_value", "size"),
    "size out of reach": ({"size": "2000x2000"}, "invalid_value", "size"),
    "size mode": ({"extra_body": {"size_mode": "squeeze"}}, "invalid_value", "size_mode"),
    "background a word": ({"background": "green"}, "invalid_value", "background"),
    "background no jpeg has": ({"background": "transparent", "output_format": "jpeg"}, "invalid_value", "background"),
    "prompt too long": ({"prompt": "x" * 32_001}, "string_above_max_length", "prompt"),
    "mask": ({"mask": PNG}, "unknown_parameter", "mask"),
    "markup": ({"markup": PNG}, "unknown_parameter", "markup"),
    "denied": ({"extra_body": {"lora_links": "http://example.com/a"}}, "parameter_refused", "lora_links"),
    "denied, nested": (
        {"extra_body": {"provider_options": {"local": {"webhook": "http://example.com"}}}},
        "parameter_refused",
        "webhook",
    ),
    "conflict": ({"extra_body": {"scale": 3}}, "parameter_conflict", "scale"),
    "options not an object": ({"extra_body": {"provider_options": "x"}}, "invalid_type", "provider_options"),
    "options for nobody": ({"extra_body": {"provider_options": {"x": {"y": 1}}}}, "invalid_value", "provider_options"),
    "output too large": (
        {"image": saved(Pillow.new("L", (700, 700))), "extra_body": {"scale_factor": 16}},
        "output_too_large",
        "scale_factor",
    ),
    "size too large": ({"image": saved(Pillow.new("L", (700, 700))), "size": "9000x9000"}, "output_too_large", "size"),
}


@pytest.mark.parametrize(("fields", "code", "param"), INVALID.values(), ids=INVALID.keys())
def test_invalid(edit: Edit, fields: dict[str, Any], code: str, param: str | None) -> None:
    """A bad request is BadRequestError, with OpenAI's code and the parameter's name."""
    with pytest.raises(BadRequestError) as caught:
        edit(**{"image": PNG, "prompt": "", "model": "lanczos-bp", **fields})

    check(caught.value, 400, code, param)


JSON: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "address": (
        {"images": [{"image_url": "http://127.0.0.1:1/a.png"}]},
        "image_url_refused",
        "images[0].image_url",
    ),
    "address of a disk": ({"image": "file:///etc/passwd"}, "image_url_unsupported", "image"),
    "no base64": ({"image": "%%%"}, "invalid_base64", "image"),
    "file id": ({"images": [{"file_id": "file-1"}]}, "file_id_unsupported", "images[0].file_id"),
    "no picture": ({"images": []}, "missing_required_parameter", "image"),
    "a number": ({"image": 5}, "invalid_type", "image"),
}


@pytest.mark.parametrize(("fields", "code", "param"), JSON.values(), ids=JSON.keys())
def test_invalid_json(client: OpenAI, fields: dict[str, Any], code: str, param: str | None) -> None:
    """A picture that cannot be had from a JSON body is told by its place in the body."""
    with pytest.raises(BadRequestError) as caught:
        client.post("/images/edits", body={"model": "lanczos-bp", **fields}, cast_to=object)

    check(caught.value, 400, code, param)


def test_ranges_are_told(edit: Edit) -> None:
    """The message of an out-of-range value says what is taken and what came, in OpenAI's words."""
    with pytest.raises(BadRequestError) as caught:
        edit(image=PNG, prompt="", n=99)

    message = "Invalid 'n': integer above maximum value. Expected a value <= 10, but got 99 instead."
    assert caught.value.response.json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("name", "hint"), [("clarity-upscalr", "Did you mean 'clarity-upscaler'?"), ("nothing-like-it", "lanczos-bp")]
)
def test_unknown_model(edit: Edit, name: str, hint: str) -> None:
    """A model that is not there is a 404 which says what may have been meant, or what there is."""
    with pytest.raises(openai.NotFoundError) as caught:
        edit(image=PNG, prompt="", model=name)

    check(caught.value, 404, "model_not_found", "model")
    assert hint in str(caught.value)


def test_unknown_url(client: OpenAI) -> None:
    """What is not served here says so, and where the main thing is."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="a cat", model="dall-e-2")

    check(caught.value, 404, "unknown_url", None)
    assert "/openai/v1/images/edits" in str(caught.value)


@pytest.mark.parametrize("path", ["/images/edits", "/models"])
def test_wrong_method(client: OpenAI, path: str) -> None:
    """The wrong method is a 405 with the right one."""
    call = client.post if path == "/models" else client.get
    with pytest.raises(APIStatusError) as caught:
        call(path, cast_to=object)

    check(caught.value, 405, "method_not_allowed", None)
    assert caught.value.response.headers["allow"] == ("GET, HEAD" if path == "/models" else "POST")


@pytest.mark.parametrize("kind", ["text/plain", "image/png", "application/x-www-form-urlencoded", ""])
def test_wrong_type(client: OpenAI, kind: str) -> None:
    """A body of another type is a 415 that says which are taken."""
    with pytest.raises(APIStatusError) as caught:
        client.post("/images/edits", content=PNG, cast_to=object, options={"headers": {"content-type": kind}})

    check(caught.value, 415, "unsupported_media_type", None)


def test_foreign_host(server: Served) -> None:
    """Without keys a page in the browser cannot call through a name that leads here."""
    for header in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        with (
            OpenAI(base_url=server.base_url, api_key="none", default_headers=header) as client,
            pytest.raises(openai.PermissionDeniedError) as caught,
        ):
            client.images.edit(image=PNG, prompt="")
        check(caught.value, 403, "loopback_only", None)


def test_no_retry(client: OpenAI, server: Served) -> None:
    """The SDK with its own two retries sends a request that is refused once."""
    labels = {"route": "/openai/v1/images/edits", "code": "400"}
    before = server.metric("darkroom_requests_total", **labels)
    with pytest.raises(BadRequestError):
        client.images.edit(image=b"no picture", prompt="")

    assert client.max_retries == 2
    # A request is counted when its last byte is out, which is a moment after its client has it.
    until(lambda: server.metric("darkroom_requests_total", **labels) > before, "the call is counted")
    assert server.metric("darkroom_requests_total", **labels) == before + 1


def test_no_worker(serve: Serve) -> None:
    """With no local route at all there is nothing that could serve, and the answer says when to ask again."""
    served = serve(ready=503, DARKROOM_PROVIDERS__LOCAL__WORKERS="[]")
    with (
        OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.images.edit(image=PNG, prompt="")

    check(caught.value, 503, "no_route", None)
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert served.workers() == []
