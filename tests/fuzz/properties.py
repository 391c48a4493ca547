"""What must hold for any bytes at all. A property returns, or raises what nobody declared: that is the finding."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from ipaddress import ip_address
from typing import Any, TypeVar

import httpx

from gateway.http.errors import ApiError
from gateway.http.form import Form, FormLimits, read_form
from gateway.settings.loader import SHIPPED, Config, load
from normalization.images.formats.base import BadImage
from normalization.images.sniff import InputLimits, check, scan
from normalization.parameters import plan as planning
from normalization.parameters.coerce import InvalidValue, coerce, is_absent, parse_scalar
from normalization.parameters.nesting import NestingError, nest
from normalization.parameters.plan import Ineligible
from normalization.values import Header, Image, ImageRequest, Value
from providers.apiframe import responses as apiframe_responses
from providers.errors import ProviderError, Undecodable
from providers.fal import responses as fal_responses
from providers.http.bodies import detail, parse_json
from providers.http.ssrf import UrlForbidden, UrlPolicy, public
from providers.replicate import responses as replicate_responses
from providers.segmind import responses as segmind_responses

T = TypeVar("T")
_SMALL = FormLimits(max_body_bytes=60_000, max_file_bytes=4_000, max_text_bytes=2_000, max_files=4, max_parts=12)
_TYPES = (
    "multipart/form-data; boundary=frontier",
    "application/json",
    "application/json; charset=utf-16",
    "application/problem+json; charset=shift_jis",
)
_LIMITS = InputLimits(max_pixels=50_000_000, max_side=16_384)
_PICTURE = Image(data=b"", header=Header(format="png", width=64, height=48))
_STATUSES = (200, 400, 401, 403, 404, 406, 422, 429, 500, 503)


def form(data: bytes) -> None:
    """A body is a form or an error for its sender, whatever its encoding and its pieces."""
    kind, step, body = data[:1] or b"\0", data[1:2] or b"\0", data[2:]

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step[0] + 1):
            yield body[start : start + step[0] + 1]

    try:
        found = driven(read_form(_TYPES[kind[0] % len(_TYPES)], None, chunks(), _SMALL))
    except ApiError as error:
        refused = error
    else:
        assert isinstance(found, Form)
        assert sum(len(file.data) for file in found.files) <= _SMALL.max_files * _SMALL.max_file_bytes
        return
    assert 400 <= refused.status < 500
    assert refused.message.endswith(".")


def sniff(data: bytes) -> None:
    """A picture is taken or refused; what is left of it without its metadata is the same picture."""
    try:
        found = scan(data)
        check(found.header, _LIMITS)
    except BadImage:
        return
    again = scan(b"".join(found.parts)).header
    for name in ("format", "width", "height", "alpha", "animated"):
        assert getattr(again, name) == getattr(found.header, name), name


def table(data: bytes) -> None:
    """Fields become a plan for each route of a model, or a refusal."""
    config = shipped()
    models = sorted(config.models)
    model = config.models[models[(data[:1] or b"\0")[0] % len(models)]]
    pairs = [_pair(line) for line in data[2:].decode(errors="replace").split("\n")]
    typed = (data[1:2] or b"\0")[0] % 2 == 1
    try:
        fields = nest([(name, value) for name, value in pairs if name])
        params: dict[str, Value] = {}
        extra: dict[str, Value] = {}
        for name, value in fields.items():
            if is_absent(value) or name == "image":
                continue
            if (param := model.param(name)) is not None:
                params[name] = coerce(name, value, param, typed=typed)
            else:
                extra[name] = value if typed else parse_scalar(value)
        wanted = ImageRequest(
            model=model.id, images=(_PICTURE,), params=params, extra=extra, provider_options={}, seed=7
        )
        planning.check(model, wanted, config.denied)
    except (InvalidValue, NestingError):
        return
    for route in model.routes.values():
        try:
            made = planning.plan(model, route, wanted)
        except (InvalidValue, Ineligible):
            continue
        assert made.calls


def url_policy(data: bytes) -> None:
    """No address gets through that Python itself would connect to a private place."""
    try:
        url = UrlPolicy().check(data.decode(errors="replace"))
    except UrlForbidden:
        return
    assert url.scheme == "https"
    try:
        host = url.raw_host.decode("ascii").strip("[]")
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return  # a name: what it resolves to is checked when it is connected
    for *_, (address, *_) in found:
        assert ip_address(str(address)).is_global, address
        assert public(str(address)), address


def wire(data: bytes) -> None:
    """Whatever a provider answers is read, or is an error of a provider."""
    status, body = _STATUSES[(data[:1] or b"\0")[0] % len(_STATUSES)], data[1:]
    assert len(detail(body)) <= 200
    response = httpx.Response(status, content=body)
    replicate_responses.refusal(response, body, now=0.0)
    try:
        answer = parse_json(body)
    except Undecodable:
        return
    fal_responses.request_id(answer)
    fal_responses.images(answer)
    fal_responses.seconds(fal_responses.at(answer, "metrics", "inference_time"))
    for ended in (True, False):
        fal_responses.failure(response, answer, now=0.0, ended=ended, usd="0.01")
    replicate_responses.images(answer)
    segmind_responses.found_in(answer)
    segmind_responses.seconds_of(segmind_responses.at(answer, "metrics", "inference_time"))
    segmind_responses.failure(answer)
    _declared(segmind_responses.check, response, body, answer, {})
    apiframe_responses.found_in(answer)
    apiframe_responses.share_of(answer)
    apiframe_responses.cost_of(answer, "0.01")
    apiframe_responses.refused(response, body, answer)
    if isinstance(answer, dict):
        replicate_responses.failure(answer, replicate_responses.cost_of(answer, "0.001"))
        replicate_responses.job_id(answer)
        _declared(apiframe_responses.check, answer)


PROPERTIES: Mapping[str, Callable[[bytes], None]] = {
    "form": form,
    "sniff": sniff,
    "table": table,
    "guard": url_policy,
    "wire": wire,
}


def driven(work: Coroutine[Any, Any, T]) -> T:
    """Run what never really waits, without the price of an event loop."""
    while True:
        try:
            work.send(None)
        except StopIteration as end:
            found: T = end.value
            return found


@functools.cache
def shipped() -> Config:
    """The table as it ships."""
    return load(SHIPPED, {})


def _pair(line: str) -> tuple[str, Value]:
    """A field; behind `:=` its value is JSON, where it is any."""
    name, typed, text = line.partition(":=")
    if typed:
        try:
            value: Value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        return name, value
    name, _, text = line.partition("=")
    return name, text


def _declared(work: Callable[..., object], *args: object) -> None:
    try:
        work(*args)
    except ProviderError:
        return
