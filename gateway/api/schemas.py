"""Every answer of the API, declared once: the types of the functions that build it, and its schema in the document.

A class is named for its schema, with `Json` behind it; times are in seconds since the epoch, money in US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, NotRequired, TypeAlias, TypeVar

from pydantic import Field, with_config
from typing_extensions import TypedDict

from gateway.auth.keys import PERIODS
from gateway.http.errors import ErrorDetailJson
from gateway.ledger.records import STATES, Mode
from gateway.routing.breaker import Standing
from gateway.routing.preferences import STRATEGIES
from normalization.parameters.rules import ParamType
from normalization.parameters.schema import Mode as ModelMode
from providers.base import Readiness

T = TypeVar("T", bound=Mapping[str, object])

Money: TypeAlias = Annotated[float, Field(ge=0, description="US dollars.")]
Time: TypeAlias = Annotated[float, Field(description="Seconds since the epoch.")]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Seconds: TypeAlias = Annotated[float, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Id: TypeAlias = Annotated[str, Field(min_length=1, description="The object's id.")]
Uri: TypeAlias = Annotated[str, Field(json_schema_extra={"format": "uri"})]
Currency: TypeAlias = Literal["USD"]
Anything: TypeAlias = dict[str, Any]
JobState: TypeAlias = Annotated[str, Field(json_schema_extra={"enum": list(STATES)})]
Ready: TypeAlias = Annotated[str, Field(json_schema_extra={"enum": [found.value for found in Readiness]})]


@with_config(extra="forbid")
class Json(TypedDict):
    """An object with the declared keys and no others."""


class PageJson(Json, Generic[T]):
    """A page of a list."""

    object: Literal["list"]
    data: Sequence[T]
    has_more: Annotated[bool, Field(description="Whether there is another page.")]
    next: Annotated[str | None, Field(description="The value of `after` for the next page.")]


def listed(data: Sequence[T], *, more: bool) -> PageJson[T]:
    """A page of a list; `next` is the value of `after` for the following page."""
    return {"object": "list", "data": data, "has_more": more, "next": str(data[-1]["id"]) if more and data else None}


class AttemptJson(Json):
    """One upstream call and how it went."""

    provider: str
    model: Annotated[str, Field(description="The provider's own name of the model.")]
    picture: Annotated[int, Field(ge=0, description="The index of the image that it was made for.")]
    outcome: Annotated[str, Field(description="`ok`, or how it failed.")]
    seconds: Seconds
    cost: Money
    actual: Annotated[bool, Field(description="Whether the provider reported the cost; else it is the estimate.")]
    message: str | None


class MetadataJson(Json):
    """What was done, by which provider, at what cost, and every loss on the way."""

    model: str
    executed_model: str
    provider: str
    cost: Money
    cost_currency: Currency
    attempts: list[AttemptJson]
    warnings: list[str]
    partial: NotRequired[Annotated[bool, Field(description="Fewer images than requested.")]]


class ImageJson(Json):
    url: NotRequired[Uri]
    b64_json: NotRequired[Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]]
    seed: NotRequired[Annotated[int, Field(ge=0, description="The seed that was sent for it, if its route has one.")]]


class ImagesResponseJson(Json):
    """OpenAI's ImagesResponse, with the job's id and metadata."""

    id: Id
    created: Count
    data: Annotated[list[ImageJson], Field(min_length=1)]
    size: Annotated[str, Field(pattern="^[0-9]+x[0-9]+$")]
    background: Literal["transparent", "opaque"]
    output_format: NotRequired[Literal["png", "jpeg", "webp", "gif"]]
    metadata: MetadataJson


class ExcludedJson(Json):
    provider: str
    route: str
    reason: str
    param: str | None


class CandidateJson(Json):
    """A route that would be tried, with its price and its first call."""

    provider: str
    route: str
    model: str | None
    cost: Money
    cost_at_most: Money
    cost_currency: Currency
    components: dict[str, Money]
    healthy: bool
    degraded: bool
    calls: Count
    payload: Annotated[Anything, Field(description="The first call's input, an image as its size and hash.")]
    output: str | None
    delivered: str | None
    finish: list[Anything]
    warnings: list[str]


class DryRunJson(Json):
    """The routes that would be tried, in this order. Nothing is sent or spent."""

    dry_run: Literal[True]
    model: str
    candidates: list[CandidateJson]
    excluded: list[ExcludedJson]


class JobUrlsJson(Json):
    get: Uri
    cancel: Uri


class JobEntryJson(Json):
    """A job without its result."""

    id: Id
    object: Literal["image.job"]
    status: JobState
    created_at: Count
    ended_at: Count | None
    model: str
    progress: Share | None
    cost_estimate: Money
    cost: Money | None
    error: ErrorDetailJson | None
    urls: JobUrlsJson
    cancel_requested: NotRequired[Annotated[bool, Field(description="The job is being cancelled.")]]


class JobJson(JobEntryJson):
    """A job with its result, once there is one."""

    result: ImagesResponseJson | None


class RequestAttemptJson(Json):
    """An upstream call as the ledger has it."""

    id: Id
    provider: str
    route: str
    model: str
    picture: Count
    status: str
    outcome: str | None
    upstream_id: Annotated[str | None, Field(description="The provider's own id of the job.")]
    sent_at: Time
    submitted_at: Time | None
    ended_at: Time | None
    estimate: Money
    cost: Money
    actual: bool
    message: str | None


class RequestErrorJson(Json):
    message: str
    type: str
    code: str | None


class RequestEntryJson(Json):
    id: Id
    object: Literal["request"]
    created_at: Time
    ended_at: Time | None
    duration_ms: Count | None
    model: str
    status: JobState
    mode: Mode
    key: Annotated[str | None, Field(description="The id of the API key that it came with.")]
    request_id: str | None
    idempotency_key: str | None
    provider: str | None
    images_wanted: Count
    images: Count
    cost_estimate: Money
    cost: Money
    cost_currency: Currency
    error: RequestErrorJson | None
    attempts: list[RequestAttemptJson]


class RequestJson(RequestEntryJson):
    """A request with its parameters, as far as they are stored."""

    parameters: Anything | None


class ProviderSumJson(Json):
    attempts: Count
    cost: Money


class RequestSummaryJson(Json):
    object: Literal["request.summary"]
    count: Count
    cost: Money
    cost_currency: Currency
    by_provider: dict[str, ProviderSumJson]


class PurgedJson(Json):
    """A request whose parameters and images were deleted."""

    id: Id
    object: Literal["request"]
    purged: Literal[True]
    files_deleted: Count


class BudgetJson(Json):
    limit: Money
    every: Annotated[str, Field(json_schema_extra={"enum": list(PERIODS)})]
    spent: Money
    left: Money
    currency: Currency
    until: Time | None


class KeyJson(Json):
    """An API key, without its secret."""

    id: Id
    object: Literal["key"]
    name: str
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    admin: bool
    models: list[str] | None
    providers: list[str] | None
    rpm: Count | None
    concurrency: Count | None
    budget: BudgetJson | None


class MadeKeyJson(KeyJson):
    """A new API key; only this answer contains the secret."""

    key: Annotated[str, Field(description="The secret that clients send.")]


class ParameterJson(Json):
    type: ParamType
    doc: str
    required: bool
    min: NotRequired[float]
    max: NotRequired[float]
    choices: NotRequired[list[Any]]
    default: NotRequired[Any]
    synonyms: NotRequired[Annotated[Anything, Field(description="Other words for a choice, each with its choice.")]]


class RuleJson(Json):
    """How a parameter reaches the provider."""

    rule: Literal["passthrough", "renamed", "converted", "emulated"]
    to: NotRequired[str]
    using: NotRequired[str]
    table: NotRequired[Anything]
    by: NotRequired[str]
    min: NotRequired[float]
    max: NotRequired[float]
    choices: NotRequired[list[Any]]
    default: NotRequired[Any]


class InputJson(Json):
    formats: list[Literal["png", "jpeg", "webp"]]
    max_bytes: NotRequired[Count]
    max_pixels: NotRequired[Count]
    max_side: NotRequired[Count]


@with_config(extra="allow")
class PriceJson(TypedDict):
    """A route's price; its other keys depend on how the provider bills."""

    currency: Currency


class RouteJson(Json):
    """A route of a model to a provider."""

    provider: str
    model: str | None
    state: Ready
    detail: str
    standing: Standing
    degraded: Annotated[str | None, Field(description="How it falls short of what the model's name promises.")]
    alpha: Annotated[Literal["keep", "drop"], Field(description="Whether images keep their transparency.")]
    input: InputJson
    price: PriceJson
    parameters: dict[str, ParameterJson]
    rules: dict[str, RuleJson]


class RoutingJson(Json):
    """The routing preferences that apply unless a request has its own."""

    order: NotRequired[list[str]]
    sort: NotRequired[Annotated[str, Field(json_schema_extra={"enum": list(STRATEGIES)})]]
    max_cost: NotRequired[Money]
    allow_fallbacks: NotRequired[bool]


class ModelJson(Json):
    """OpenAI's model, with its parameters, how those reach each provider, and the prices."""

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str
    description: str
    modes: list[ModelMode]
    routing: RoutingJson
    parameters: dict[str, ParameterJson]
    routes: dict[str, RouteJson]
    available: Annotated[bool, Field(description="Whether any route can serve requests at the moment.")]
    alias_of: NotRequired[str]


class ModelsJson(Json):
    object: Literal["list"]
    data: list[ModelJson]


JsonSchemaJson = TypedDict(
    "JsonSchemaJson",
    {
        "$schema": str,
        "title": str,
        "description": str,
        "type": Literal["object"],
        "properties": Anything,
        "required": list[str],
        "additionalProperties": Anything,
    },
)
"""The JSON Schema of a request's fields."""


class AliveJson(Json):
    status: Literal["ok"]


class RouteStateJson(Json):
    state: Ready
    detail: str
    standing: Standing


class ReadinessJson(Json):
    """Whether the server can serve requests."""

    status: Literal["ready", "not ready"]
    ledger: Literal["up", "down"]
    models: NotRequired[
        Annotated[dict[str, dict[str, RouteStateJson]], Field(description="For an admin: each route of each model.")]
    ]


class HeardJson(Json):
    ok: Literal[True]


class WebhookSecretJson(Json):
    key: Annotated[str, Field(description="What webhooks to this client's addresses are signed with.")]
