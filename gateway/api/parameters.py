"""From form fields to an edit request: the model, typed parameters, images, and undeclared fields."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from gateway.auth.keys import OPERATOR, ApiKey
from gateway.http.errors import ApiError, invalid
from gateway.http.form import FilePart, Form
from gateway.imaging.pool import BadImage, ImagePool
from gateway.routing.aliases import own_names
from gateway.routing.preferences import RoutingPreferences, read_header, read_wish
from gateway.settings import ResponseFormat
from gateway.settings.loader import Config
from normalization.images.encode import losses
from normalization.parameters.addresses import address_of, addresses_in, is_address
from normalization.parameters.coerce import InvalidValue, coerce, is_absent, parse_scalar
from normalization.parameters.names import near
from normalization.parameters.nesting import NestingError, excerpt, nest
from normalization.parameters.plan import check
from normalization.parameters.rules import Param
from normalization.parameters.schema import Model, target_of
from normalization.parameters.undeclared import check_multipliers, refuse
from normalization.values import Header, Image, ImageRequest, Value
from providers.http.ssrf import UrlForbidden, UrlPolicy

_HINTS = {
    "image": " Send the image as a file.",
    "webhook_url": " 'webhook_events' selects the events, not where they are sent.",
}
# The placeholder of an image that has not been read yet.
_UNREAD = Image(data=b"", header=Header(format="png", width=1, height=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """A request with what only the API needs to know. `name` is the model's name as the client wrote it.

    `background` asks for the job's id instead of its images; `webhook_url` receives the `webhook_events`.
    """

    name: str
    model: Model
    request: ImageRequest
    response_format: ResponseFormat
    stream: bool
    preferences: RoutingPreferences
    background: bool = False
    webhook_url: str | None = field(default=None, repr=False)
    webhook_events: tuple[str, ...] = ()


def read_fields(
    form: Form,
    config: Config,
    *,
    api_key: ApiKey = OPERATOR,
    routing: str | None = None,
    dry: bool = False,
) -> EditRequest:
    """Interpret every field: the request, with placeholders for images, of which only the names are read.

    `routing` is the header X-Darkroom-Routing, `api_key` the client's key. A `dry` request may have `width` and
    `height` instead of an image. Raises ApiError with the field that is at fault.
    """
    try:
        fields = nest(form.fields)
    except NestingError as error:
        raise ApiError(400, error.message, param=error.key, code="invalid_value") from None
    name, provider, model, default_format = _model(fields.pop("model", None), config)
    if not api_key.allows_model(model.id):
        raise model_not_allowed(name, api_key)
    background = _background(fields)
    try:
        params, extra = _params(fields, model, typed=form.typed)
        options = _provider_options(params.pop("provider_options", None), model, config, typed=form.typed)
        sent = _images_of(form)
        described = dry and not sent and "width" in extra
        others = _others_of(form, model)
        for wanted, param in model.params.items():
            there = wanted in params or wanted in others or param.default is not None
            if param.required and not there and (wanted != "image" or not (sent or described)):
                raise InvalidValue(wanted, _missing(wanted), "missing_required_parameter")
        request = ImageRequest(
            model=model.id,
            images=(_stand_in(extra),) if described else (_UNREAD,) * len(sent),
            params=params,
            extra=extra,
            provider_options=options,
            seed=cast("int", params["seed"]) if "seed" in params else secrets.randbelow(2**31),
        )
        check(model, request, config.denied)
        if config.gateway.undeclared == "refuse":
            refuse(model, request)
        if "webhook_events" in params and "webhook_url" not in params:
            raise InvalidValue("webhook_url", _missing("webhook_url"), "missing_required_parameter")
        check_multipliers(model, request, config.multipliers)
        preferences = _wish(params.get("routing"), routing, provider, model, config)
    except InvalidValue as error:
        raise ApiError(400, error.message, param=error.param, code=error.code) from None
    return EditRequest(
        name=name,
        model=model,
        request=request,
        response_format=cast("ResponseFormat", params.get("response_format") or default_format),
        stream=params.get("stream") is True,
        preferences=preferences,
        background=background,
        webhook_url=cast("str | None", params.get("webhook_url")),
        webhook_events=tuple(cast("list[str]", params.get("webhook_events") or [])),
    )


async def read_pictures(asked: EditRequest, form: Form, imaging: ImagePool, owner: str = "") -> EditRequest:
    """The request with its images, all of which the form contains by now. Raises ApiError for an invalid one."""
    sent = _images_of(form)
    params = dict(asked.request.params)
    names = ["image"] if len(sent) == 1 else [f"image[{i}]" for i in range(len(sent))]
    read = [await _image(file, name, imaging, owner) for file, name in zip(sent, names, strict=True)]
    notes = [note for _, found in read for note in losses(found)]
    for name, file in _others_of(form, asked.model).items():
        params[name], found = await _image(file, name, imaging, owner)
        notes += losses(found)
    # What a dry run described stays as it is.
    images = tuple(image for image, _ in read) or asked.request.images
    density = _upright(read[0][1]) if read else None
    told = tuple(dict.fromkeys(notes))
    request = replace(asked.request, images=images, params=params, notes=told, density=density)
    return replace(asked, request=request)


def _upright(header: Header) -> tuple[float, float] | None:
    """The density as the image is displayed: a rotated image has the two values swapped."""
    found = header.density
    return (found[1], found[0]) if found is not None and header.orientation >= 5 else found


def _background(fields: dict[str, Value]) -> bool:
    """Take `background=true` out of the fields: it asks for a background job, unlike OpenAI's other values."""
    value = fields.get("background")
    text = value.strip().lower() if isinstance(value, str) else value
    if text not in (True, False, "true", "false") or (isinstance(text, (int, float)) and not isinstance(text, bool)):
        return False
    del fields["background"]
    return text in (True, "true")


def unknown_model(name: str, config: Config) -> ApiError:
    """The 404 for a model that does not exist, with a suggestion."""
    known = (*config.models, *own_names(config.aliases))
    meant = near(name, known)
    hint = f"Did you mean '{meant}'?" if meant else f"The models are: {', '.join(config.models)}."
    return ApiError(
        404, f"The model '{excerpt(name, 80)}' does not exist. {hint}", param="model", code="model_not_found"
    )


def model_not_allowed(name: str, api_key: ApiKey) -> ApiError:
    """The 403 for a model that the API key may not use, with those that it may."""
    message = (
        f"This API key may not use the model '{name[:80]}'. It may use: {', '.join(sorted(api_key.models or ()))}."
    )
    return ApiError(403, message, param="model", code="model_not_allowed")


def _model(value: Value, config: Config) -> tuple[str, str | None, Model, ResponseFormat]:
    """The model by its name, an alias, or either after `provider/`; with that provider."""
    name = config.gateway.default_model if is_absent(value) else value
    if not isinstance(name, str):
        raise ApiError(400, "Invalid type for 'model': expected a string.", param="model", code="invalid_type")
    model, alias = config.resolve(name)
    provider, _, rest = name.partition("/")
    if model is None and provider in type(config.providers).model_fields:
        model, alias = config.resolve(rest)
    else:
        provider = ""
    if model is None:
        raise unknown_model(name, config)
    own = (alias.default_response_format if alias else None) or model.default_response_format
    return name, provider or None, model, own or config.gateway.default_response_format


def _wish(field: Value, header: str | None, provider: str | None, model: Model, config: Config) -> RoutingPreferences:
    """Routing preferences: the provider in the model's name, then the field, then the header, then the model's own."""
    known = {*type(config.providers).model_fields, *(name for m in config.models.values() for name in m.routes)}
    usual = RoutingPreferences.of(model.routing)
    preferences = read_wish(field, known, usual) if field is not None else read_header(header, known, usual)
    return preferences.through(provider) if provider else preferences


def _params(fields: Mapping[str, Value], model: Model, *, typed: bool) -> tuple[dict[str, Value], dict[str, Value]]:
    """Split the fields into declared ones, typed, and the rest."""
    params: dict[str, Value] = {}
    extra: dict[str, Value] = {}
    for name, value in fields.items():
        if is_absent(value):
            continue
        param = model.param(name)
        if param is not None:
            params[name] = coerce(name, value, param, typed=typed)
        elif name == "provider_options":
            params[name] = value
        else:
            extra[name] = value if typed else parse_scalar(value)
    return params, extra


def _provider_options(value: Value, model: Model, config: Config, *, typed: bool) -> dict[str, Mapping[str, Value]]:
    """`provider_options[fal][model]=…`, or the same as JSON text. A parameter has its declared type there too."""
    if value is None:
        return {}
    as_text = isinstance(value, str)
    value = parse_scalar(value) if as_text else value
    if not isinstance(value, dict) or not all(isinstance(inner, dict) for inner in value.values()):
        raise InvalidValue(
            "provider_options",
            "Invalid type for 'provider_options': expected an object of objects, such as provider_options[local][key].",
            "invalid_type",
        )
    known = type(config.providers).model_fields
    for provider in value:
        if provider not in known:
            raise InvalidValue(
                "provider_options",
                f"'provider_options' names '{excerpt(provider)}'. Supported providers are: {', '.join(known)}.",
                "invalid_value",
            )
    own = {
        (route.provider, name): param
        for route in model.routes.values()
        for name, param in {**model.params, **route.params}.items()
    }

    def read(provider: str, name: str, inner: Value) -> Value:
        if (param := own.get((provider, name))) is not None and param.type != "image":
            return coerce(name, inner, param, typed=typed or as_text)
        return inner if as_text else parse_scalar(inner)

    return {
        provider: {
            name: read(provider, name, inner)
            for name, inner in cast("dict[str, Value]", options).items()
            if not is_absent(inner)
        }
        for provider, options in value.items()
    }


def _images_of(form: Form) -> list[FilePart]:
    return [file for file in form.files if _base(file.name) == "image"]


def _missing(name: str) -> str:
    hint = _HINTS.get(name, "")
    return f"Missing required parameter: '{name}'.{hint}"


def _stand_in(extra: dict[str, Value]) -> Image:
    """An image of a dry run that is only described."""
    side = Param(type="integer", min=1, max=100_000, doc="A side of the image, in pixels.")
    width, height = (cast("int", coerce(name, extra.pop(name, ""), side)) for name in ("width", "height"))
    return Image(data=b"", header=Header(format="png", width=width, height=height))


def _others_of(form: Form, model: Model) -> dict[str, FilePart]:
    """Files beside the image, such as a mask: only those that the model declares. Raises InvalidValue."""
    found: dict[str, FilePart] = {}
    for file in form.files:
        name = _base(file.name)
        if name == "image":
            continue
        param = model.param(name)
        if param is None or param.type != "image":
            raise InvalidValue(name, f"{model.id} takes no '{excerpt(name)}' file, only 'image'.", "unknown_parameter")
        if name in found:
            raise InvalidValue(name, f"'{name}' was sent more than once.", "invalid_value")
        found[name] = file
    return found


async def _image(file: FilePart, param: str, imaging: ImagePool, owner: str) -> tuple[Image, Header]:
    """An image prepared for any provider, and its original header."""
    try:
        image = await imaging.inspect(file.data, owner)
        return await imaging.prepare(image, owner), image.header
    except BadImage as error:
        code = "image_too_large" if error.code == "image_too_large" else "invalid_image_file"
        message = f"Invalid image file in '{param}': {error.told}"
        raise ApiError(400, message, type="image_generation_user_error", param=param, code=code) from None


def _base(name: str) -> str:
    return name.partition("[")[0]


# Nobody honest sends more, and each is parsed.
_MOST = 64
_LOCAL = frozenset(
    {"localhost", "local", "localdomain", "internal", "intranet", "corp", "home", "lan", "private", "arpa"}
)


def check_addresses(asked: EditRequest, url_policy: UrlPolicy) -> None:
    """Refuse a URL that leads nowhere or into a private network, at any depth of a field. Raises ApiError 400.

    Undeclared fields and those of `provider_options` may contain a URL anywhere; a declared parameter that is sent
    unchanged, such as a prompt, only counts if the whole of it is a URL.
    """
    # A data URL is its own content and leads nowhere; addresses within it are found by themselves.
    leading = ((name, address) for name, address in _addresses(asked) if address[:5].lower() != "data:")
    for count, (name, address) in enumerate(leading):
        if count >= _MOST:
            message = f"Invalid '{excerpt(name)}': there are more than {_MOST} addresses in this request."
            raise invalid(name, message, "parameter_refused")
        try:
            _check_name(url_policy.check(address).host)
        except UrlForbidden as reason:
            message = (
                f"Invalid '{excerpt(name)}': an address in it is not passed on: {reason}. Public https addresses are; "
                "send an image of your own as a file, in a parameter that accepts one."
            )
            raise invalid(name, message, "parameter_refused") from None


def _check_name(host: str) -> None:
    """Refuse a host name that each network resolves differently: it is not resolved here."""
    labels = host.rstrip(".").lower().split(".")
    if ":" not in host and (len(labels) < 2 or labels[-1] in _LOCAL):
        raise UrlForbidden(f"{excerpt(host)} is a name of a local network")


def _addresses(asked: EditRequest) -> Iterator[tuple[str, str]]:
    request, model = asked.request, asked.model
    for fields in (request.extra, *request.provider_options.values()):
        for name, value in fields.items():
            yield from ((name, found) for found in addresses_in({name: value}))
    rules = [(name, rule) for route in model.routes.values() for name, rule in route.rules.items()]
    sent = {name for name, rule in rules if target_of(name, rule) is not None}
    for name in request.params.keys() & sent:
        given = request.params[name]
        if not isinstance(given, str):
            yield from ((name, found) for found in addresses_in(given))
        elif is_address(given) and (address := address_of(given)) is not None:
            yield name, address
