"""The body of `/images/edits`, from the parameters of all models."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

from gateway.api.models import property_of
from gateway.settings.loader import Config
from normalization.parameters.rules import Param

Schema: TypeAlias = "dict[str, Any]"


def text(description: str | None = None, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", **({"description": description} if description else {}), **more}


def ref(name: str) -> Schema:
    """A schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


_FORMATS = "png, jpeg, webp, gif or avif"


def form(config: Config) -> Schema:
    """The fields of multipart/form-data."""
    file: Schema = {"type": "string", "format": "binary", "description": f"The image, as a file: {_FORMATS}."}
    return _body(config, file, images=True)


def document(config: Config) -> Schema:
    """The fields of application/json."""
    return _body(config, ref("Picture"), images=False)


def image() -> Schema:
    """An image in JSON: every way to name one."""
    address = text(f"A data URL or bare base64 ({_FORMATS}), or the http(s) URL of one.", minLength=1)
    return {
        "anyOf": [
            address,
            {
                "type": "object",
                "properties": {"image_url": {"anyOf": [address, _url(address)]}, "type": text()},
                "required": ["image_url"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {
                    "file_id": text("The name of a stored result: the last part of its URL."),
                    "type": text(),
                },
                "required": ["file_id"],
                "additionalProperties": False,
            },
        ]
    }


def _url(address: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {"url": address, "detail": text()},
        "required": ["url"],
        "additionalProperties": False,
    }


def _body(config: Config, image: Schema, *, images: bool) -> Schema:
    most = max(model.max_images for model in config.models.values())
    doc = f"A model, an alias, or either after `provider/`. Default: {config.gateway.default_model}."
    properties: dict[str, Schema] = {"model": {**text(doc), "examples": [next(iter(config.models))]}}
    several = {"type": "array", "items": image, "minItems": 1, "maxItems": most}
    for param, declared in _declared(config).items():
        shown = _shown(declared, of_all=len(config.models))
        if declared[0][1].type == "image":
            shown = {"anyOf": [image, several]} if param == "image" and most > 1 else image
        properties[param] = shown
    properties["provider_options"] = {
        "type": "object",
        "description": "Fields for one provider alone, by its name. A parameter overrides the shared value there.",
        "propertyNames": {"enum": list(type(config.providers).model_fields)},
        "additionalProperties": {"type": "object", "properties": _denied(config)},
    }
    for name in ("image[]",) if images else ("images",):
        properties[name] = {**several, "description": "Another name of `image`."}
    properties["image_url"] = {**ref("Picture"), "description": "Another name of `image`, for an image as text."}
    return {
        "type": "object",
        "description": "One model's own fields and bounds: GET /v1/models/{id}?schema=true.",
        "properties": {**properties, **_denied(config)},
        "additionalProperties": {"description": "Most fields that no model declares pass to a cloud as they are."},
    }


def _denied(config: Config) -> dict[str, bool]:
    """The fields that no request may have."""
    return dict.fromkeys(sorted(config.denied), False)


def _declared(config: Config) -> dict[str, list[tuple[str, Param]]]:
    """Each parameter's declarations, with the models that they are of."""
    found: dict[str, list[tuple[str, Param]]] = {}
    for model in config.models.values():
        for name, param in model.params.items():
            found.setdefault(name, []).append((model.id, param))
        for route in model.routes.values():
            for name, param in route.params.items():
                found.setdefault(name, []).append((model.id, param))
    return found


def _shown(declared: list[tuple[str, Param]], *, of_all: int) -> Schema:
    """A parameter as all its models have it; what they do not agree on is left to each model's own schema."""
    shown = [property_of(param) for _, param in declared]
    usual, _ = Counter(schema.pop("description") for schema in shown).most_common(1)[0]
    common = {key: value for key, value in shown[0].items() if all(other.get(key) == value for other in shown)}
    models = list(dict.fromkeys(model for model, _ in declared))
    only = f" Only for {', '.join(models)}." if len(models) < of_all else ""
    return {**common, "description": usual + only}
