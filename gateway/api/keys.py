"""`/v1/keys`: API keys, managed by an admin."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gateway.api.paths import PREFIXES, ObjectId, failures, is_id, success
from gateway.api.schemas import BudgetJson, KeyJson, MadeKeyJson, PageJson, listed
from gateway.auth.keys import ApiKey, Budget, digest, draw
from gateway.database.writer import LedgerDown
from gateway.http import errors
from gateway.http.auth import GuardedRouter, Permission, admins_only
from gateway.http.body import FormLimits, check_encoding, feed
from gateway.http.errors import ApiError, invalid
from gateway.routing.pricing import MICROS
from gateway.settings.loader import Config
from gateway.state import State

_LIMITS = FormLimits(max_body_bytes=64 << 10)
_NO_STORE = {"cache-control": "no-store"}

router = GuardedRouter(*PREFIXES)


def _body(schema: str) -> dict[str, Any]:
    """A JSON body that the endpoint reads by itself."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": True, "content": content}}


class ApiKeyPatch(BaseModel):
    """The rights of an API key. `budget` is text such as 25/month, `expires_at` in seconds since the epoch."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    models: list[str] | None = None
    providers: list[str] | None = None
    rpm: int | None = Field(None, ge=1, le=1_000_000)
    concurrency: int | None = Field(None, ge=1, le=100_000)
    budget: str | None = None
    expires_at: float | None = None


class ApiKeyCreate(ApiKeyPatch):
    """A new API key."""

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    admin: bool = False


@router.serve(
    "POST",
    "/keys",
    Permission.ADMIN,
    status_code=201,
    operation_id="createKey",
    summary="Create an API key. Needs an admin's key.",
    responses={
        201: success(
            "The key; only this answer contains it.", MadeKeyJson, links=("readKey", "changeKey", "revokeKey")
        ),
        **failures(413, 415),
    },
    openapi_extra=_body("ApiKeyCreate"),
)
@admins_only
async def create_key(request: Request) -> Response:
    """Create an API key; only this answer contains its secret."""
    state = _managed(request)
    document = await _document(request)
    with _told():
        api_key, key = make(ApiKeyCreate.model_validate(document), state.config, time.time())
        await state.authenticator.add(api_key)
    made: MadeKeyJson = {**described(api_key, 0), "key": key}
    return JSONResponse(made, 201, _NO_STORE)


@router.serve(
    "GET",
    "/keys",
    Permission.ADMIN,
    operation_id="listKeys",
    summary="Every API key, the newest first, with what it has spent. Needs an admin's key.",
    responses={200: success("All keys.", PageJson[KeyJson])},
)
@admins_only
async def list_keys(request: Request) -> Response:
    """Every API key, the newest first, with what it has spent in its budget's period."""
    state = _managed(request)
    try:
        found = await state.authenticator.all()
    except LedgerDown:
        raise errors.unreadable() from None
    return JSONResponse(listed([described(api_key, spent) for api_key, spent in found], more=False))


@router.serve(
    "GET",
    "/keys/{id}",
    Permission.ADMIN,
    operation_id="readKey",
    summary="Read an API key. Needs an admin's key.",
    responses={200: success("The key, without its secret.", KeyJson), **failures(404)},
)
@admins_only
async def read_key(request: Request, key_id: ObjectId) -> Response:
    """One API key."""
    return JSONResponse(described(*await _one(request, key_id)))


@router.serve(
    "PATCH",
    "/keys/{id}",
    Permission.ADMIN,
    operation_id="changeKey",
    summary="Change the rights of an API key that the body names; null removes a limit. Needs an admin's key.",
    responses={200: success("The changed key.", KeyJson), **failures(404, 413, 415)},
    openapi_extra=_body("ApiKeyPatch"),
)
@admins_only
async def change_key(request: Request, key_id: ObjectId) -> Response:
    """Change the rights that the body names; null removes a limit."""
    state = _managed(request)
    document = await _document(request)
    api_key, _ = await _one(request, key_id)
    with _told():
        await state.authenticator.change(
            changed(api_key, ApiKeyPatch.model_validate(document), state.config, time.time())
        )
    return JSONResponse(described(*await _one(request, key_id)))


@router.serve(
    "DELETE",
    "/keys/{id}",
    Permission.ADMIN,
    operation_id="revokeKey",
    summary="Revoke an API key. Its running jobs are not cancelled. Needs an admin's key.",
    responses={200: success("The revoked key.", KeyJson), **failures(404)},
)
@admins_only
async def revoke_key(request: Request, key_id: ObjectId) -> Response:
    """Revoke an API key: no further request with it is accepted. Its running jobs are not cancelled."""
    state = _managed(request)
    api_key, _ = await _one(request, key_id)
    with _told():
        await state.authenticator.revoke(api_key.id)
    return JSONResponse(described(*await _one(request, key_id)))


class KeyRejected(Exception):
    """A key cannot have these rights. `field` is at fault, the message says what was expected."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def make(asked: ApiKeyCreate, config: Config, now: float) -> tuple[ApiKey, str]:
    """A new API key, and its secret. Raises KeyRejected."""
    number, key = draw()
    api_key = ApiKey(id=number, name=asked.name, admin=asked.admin, created_at=now, digest=digest(key))
    return changed(api_key, asked, config, now), key


def changed(api_key: ApiKey, asked: ApiKeyPatch, config: Config, now: float) -> ApiKey:
    """An API key with the requested rights. Raises KeyRejected."""
    rights: dict[str, Any] = {
        name: getattr(asked, name) for name in asked.model_fields_set & ApiKeyPatch.model_fields.keys()
    }
    if asked.budget is not None:
        try:
            rights["budget"] = Budget.parse(asked.budget)
        except ValueError as error:
            raise KeyRejected("budget", str(error)) from None
    if asked.expires_at is not None and asked.expires_at <= now:
        raise KeyRejected("expires_at", "it is in the past")
    if asked.models is not None:
        rights["models"] = _models(asked.models, config)
    if asked.providers is not None:
        rights["providers"] = _providers(asked.providers, config)
    return replace(api_key, **rights)


def described(api_key: ApiKey, spent: int) -> KeyJson:
    """An API key as JSON, without its secret. Times are in seconds since the epoch, money in US dollars."""
    return {
        "id": api_key.id,
        "object": "key",
        "name": api_key.name,
        "created_at": api_key.created_at,
        "expires_at": api_key.expires_at,
        "revoked_at": api_key.revoked_at,
        "admin": api_key.admin,
        "models": None if api_key.models is None else sorted(api_key.models),
        "providers": None if api_key.providers is None else sorted(api_key.providers),
        "rpm": api_key.rpm,
        "concurrency": api_key.concurrency,
        "budget": None if api_key.budget is None else _budget(api_key.budget, spent),
    }


def _budget(budget: Budget, spent: int) -> BudgetJson:
    now = datetime.now(UTC).timestamp()
    return {
        "limit": budget.limit / MICROS,
        "every": budget.every,
        "spent": spent / MICROS,
        "left": max(0, budget.limit - spent) / MICROS,
        "currency": "USD",
        "until": budget.period(now).end,
    }


def _models(names: list[str], config: Config) -> frozenset[str]:
    found = {name: config.resolve(name)[0] for name in names}
    if not names or None in found.values():
        unknown = next((name for name, model in found.items() if model is None), "")
        raise KeyRejected("models", f"there is no model '{unknown[:80]}'; the models are {', '.join(config.models)}")
    return frozenset(model.id for model in found.values() if model is not None)


def _providers(names: list[str], config: Config) -> frozenset[str]:
    known = type(config.providers).model_fields
    unknown = next((name for name in names if name not in known), None)
    if not names or unknown is not None:
        raise KeyRejected(
            "providers", f"there is no provider '{(unknown or '')[:80]}'; the providers are {', '.join(known)}"
        )
    return frozenset(names)


@contextmanager
def _told() -> Iterator[None]:
    """Turn errors of the request into 400, and those of the ledger into 503."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])[:80]
        raise invalid(name or None, f"Invalid '{name}': {first['msg']}.") from None
    except KeyRejected as error:
        raise invalid(error.field, f"Invalid '{error.field}': {error}.") from None
    except LedgerDown:
        raise errors.unreadable() from None


def _managed(request: Request) -> State:
    """The server's state, for a request with an API key. Raises ApiError 401 for one without.

    A server that accepts requests without a key cannot identify clients: any of them could create a key and keep it.
    """
    api_key: ApiKey = request.scope["darkroom.grant"]
    if not api_key.id:
        message = (
            "API keys are managed with an admin's key: set DARKROOM_ADMIN_KEY, or create one with `darkroom keys "
            "create --admin`. The `darkroom keys` commands manage them on the server's machine."
        )
        raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
    state: State = request.app.state.darkroom
    return state


async def _one(request: Request, key: str) -> tuple[ApiKey, int]:
    state = _managed(request)
    try:
        found = await state.authenticator.one(key) if is_id(key) else None
    except LedgerDown:
        raise errors.unreadable() from None
    if found is None:
        raise ApiError(404, "API key not found.", param="id", code="key_not_found")
    return found


async def _document(request: Request) -> Any:
    length = request.headers.get("content-length", "")
    check_encoding(request.headers)
    body = bytearray()
    try:
        known = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None
        await feed(request.stream(), known, _LIMITS, body.extend)
        return json.loads(body)
    except ClientDisconnect:
        raise ApiError(400, "The connection ended before the body did.", code="truncated_body") from None
    except (ValueError, RecursionError):
        raise invalid(None, "The request body cannot be read as JSON.", "invalid_json") from None
