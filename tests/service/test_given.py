"""Queries and headers over HTTP: what is not known, or comes twice, is told and not dropped."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.simulators.common import tiny
from tests.support.raw import form, head, line
from tests.support.world import World, world

KEY = "the-key-of-one-caller-out-of-many"
BEARER = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """A gateway with a key, before one provider."""
    with world("replicate", environ={"DARKROOM_API_KEYS": KEY}) as found:
        yield found


def refused(answer: httpx.Response) -> tuple[str, str | None, str]:
    """The code, the parameter and the message of a 400."""
    error = answer.json()["error"]
    assert answer.status_code == 400, answer.text
    return error["code"], error["param"], error["message"]


def edit(there: World, query: str = "", headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
    """A call that would be served, were it not for these."""
    return httpx.post(
        f"{there.url}/openai/v1/images/edits{query}",
        data={"model": "clarity-upscaler", "prompt": "a cup", **fields},
        files={"image": ("in.png", tiny())},
        headers={**BEARER, **(headers or {})},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("query", "code", "param", "says"),
    [
        ("?dryrun=true", "unknown_parameter", "dryrun", "Did you mean 'dry_run'?"),
        ("?dry_runn=true", "unknown_parameter", "dry_runn", "Did you mean 'dry_run'?"),
        ("?dry-run", "unknown_parameter", "dry-run", "Did you mean 'dry_run'?"),
        ("?scale_factor=4", "unknown_parameter", "scale_factor", "The query parameters are: dryRun, dry_run."),
        ("?dry_run=true&x=1", "unknown_parameter", "x", "The query parameters are"),
        ("?dry_run=yes", "invalid_value", "dry_run", "expected true or false"),
        ("?dry_run", "invalid_value", "dry_run", "expected true or false"),
        ("?dry_run=true;x=1", "invalid_value", "dry_run", "expected true or false"),
        ("?dry_run=true&dryRun=on", "invalid_value", "dryRun", "expected true or false"),
        ("?dry_run=false&dry_run=true", "invalid_value", "dry_run", "more than once"),
    ],
)
def test_a_slip_in_a_query_does_not_buy(there: World, query: str, code: str, param: str, says: str) -> None:
    """A dry run with a slip in its name or its value is told of it; nothing is sent to a provider."""
    before = there.taken("replicate")
    found = refused(edit(there, query))

    assert found[:2] == (code, param)
    assert says in found[2]
    assert there.taken("replicate") == before


def test_a_dry_run_in_its_spellings(there: World) -> None:
    """Both names, both words for true, in any case; and false is false."""
    before = there.taken("replicate")
    for query in ("?dry_run=true", "?dryRun=1", "?dry_run=TRUE&dryRun=false"):
        assert edit(there, query).json()["dry_run"] is True
    assert there.taken("replicate") == before
    assert edit(there, "?dry_run=false").json()["data"]
    assert there.taken("replicate") == before + 1


@pytest.mark.parametrize(
    ("path", "code", "param", "says"),
    [
        ("/v1/requests?modell=aura-sr", "unknown_parameter", "modell", "Did you mean 'model'?"),
        ("/v1/requests?state=failed", "unknown_parameter", "state", "Did you mean 'status'?"),
        ("/v1/requests?created_since=1", "unknown_parameter", "created_since", "Did you mean 'created_after'?"),
        ("/v1/requests?summary=yes", "invalid_value", "summary", "true or false"),
        ("/v1/requests?summary=true&limit=5", "parameter_conflict", "limit", "covers all requests"),
        ("/v1/requests?provider=replicat", "invalid_value", "provider", "replicate, fal"),
        ("/v1/requests?limit=5&limit=6", "invalid_value", "limit", "more than once"),
        ("/v1/requests/img_0?wait=1", "unknown_parameter", "wait", "has none"),
        ("/openai/v1/images/jobs?provider=fal", "unknown_parameter", "provider", "The query parameters are"),
        ("/v1/images/jobs/img_0?waits=1", "unknown_parameter", "waits", "Did you mean 'wait'?"),
        ("/v1/models?schema=true", "unknown_parameter", "schema", "has none"),
        ("/v1/models/aura-sr?shema=true", "unknown_parameter", "shema", "Did you mean 'schema'?"),
        ("/v1/models/aura-sr?schema=on", "invalid_value", "schema", "true or false"),
        ("/v1/webhooks/secret?x", "unknown_parameter", "x", "has none"),
        ("/openapi.json?v=3", "unknown_parameter", "v", "has none"),
    ],
)
def test_a_slip_in_a_filter(there: World, path: str, code: str, param: str, says: str) -> None:
    """A list that ignored it would show too much, or nothing; so would a model."""
    found = refused(httpx.get(f"{there.url}{path}", headers=BEARER))

    assert found[:2] == (code, param)
    assert says in found[2]


def test_what_others_put_behind_an_address(there: World) -> None:
    """Probes, files and metrics are asked for by programs that add words of their own; they change nothing."""
    picture = edit(there, response_format="url").json()["data"][0]["url"]
    for url in (f"{there.url}/healthz?from=probe", f"{there.url}/readyz?x", f"{picture}?cache=1"):
        assert httpx.get(url).status_code == 200


def test_strangers_are_not_told_what_there_is(there: World) -> None:
    """The key comes before the query."""
    assert httpx.get(f"{there.url}/v1/requests?modell=x").status_code == 401


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (("Idempotency-Key: a", "Idempotency-Key: b"), "invalid_idempotency_key"),
        (("Idempotency-Key: a", "idempotency-key: a"), "invalid_idempotency_key"),
        (("X-Darkroom-Routing: {}", 'X-Darkroom-Routing: {"only": ["fal"]}'), "invalid_value"),
        ((f"Authorization: Bearer {KEY}",), "invalid_value"),
        (("api-key: a", "api-key: b"), "invalid_value"),
        (("content-type: application/json",), "invalid_value"),
        (("x-stainless-retry-count: 0", "x-stainless-retry-count: 1"), "invalid_value"),
    ],
)
def test_a_header_that_comes_twice(there: World, lines: tuple[str, ...], code: str) -> None:
    """Of two keys, or two wishes, none is taken and none is dropped: the call is refused, and nothing is bought."""
    before = there.taken("replicate")
    body = form(tiny(), model="clarity-upscaler", prompt="a cup")
    with line(there.url) as client:
        client.say(head(there.url, len(body), f"authorization: Bearer {KEY}", *lines))
        client.say(body)
        answer = client.receive()

    assert (answer.status, answer.error["code"]) == (400, code), answer.body
    assert "more than once" in answer.error["message"]
    assert there.taken("replicate") == before


def test_events_without_an_address(there: World) -> None:
    """Whoever says of what to tell has to say whom."""
    before = there.taken("replicate")
    found = refused(edit(there, webhook_events='["failed"]', background="true"))

    assert found[:2] == ("missing_required_parameter", "webhook_url")
    assert "'webhook_events'" in found[2]
    assert there.taken("replicate") == before


@pytest.mark.timing
@pytest.mark.parametrize("name", ["a" * (1 << 20), "clarity-upscaler" * (1 << 16)])
def test_a_long_name_holds_nobody(there: World, name: str) -> None:
    """A model's name of a megabyte is looked at as little as one of a hundred bytes."""
    edit(there, model="nobody")
    took = []
    for given in (name, name[:100]):
        began = time.perf_counter()
        assert edit(there, model=given).json()["error"]["code"] == "model_not_found"
        took.append(time.perf_counter() - began)
    assert took[0] < took[1] + 0.15
