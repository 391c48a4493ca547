"""The OpenAPI document is true: what it says can be asked, and what is answered stands in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from openapi_spec_validator import validate

from gateway.api.openapi.codes import CODES
from gateway.api.routes import paths
from tests.simulators.clouds import ALL
from tests.support.keys import api_key
from tests.support.paths import ROOT
from tests.support.world import World, world

KEY, ADMIN = api_key("for-callers"), api_key("for-the-admin")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
# The same routes under another prefix; that they are described alike is a test of its own.
TWICE = "^/v1/(images|keys|models|webhooks)"


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    with world(*ALL, environ={"DARKROOM_API_KEYS": KEY, "DARKROOM_ADMIN_KEY": ADMIN}) as found:
        yield found


@pytest.fixture(scope="module")
def document(there: World) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{there.url}/openapi.json", headers=bearer()).raise_for_status().json()
    return found


def bearer(key: str = ADMIN) -> dict[str, str]:
    """The header of a key."""
    return {"authorization": f"Bearer {key}"}


def test_it_is_an_openapi_document(document: dict[str, Any]) -> None:
    """By the schema of OpenAPI itself; and no name in it leads nowhere."""
    validate(document)


def test_every_route_is_described(document: dict[str, Any]) -> None:
    """Each route with each of its methods, and nothing that is not there."""
    served = {(route.path.replace(":path", ""), method.lower()) for route in paths() for method in route.rows} | {
        ("/openapi.json", "get")
    }

    assert len(served) > 30
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == served


def test_both_prefixes_are_the_same(document: dict[str, Any]) -> None:
    """Whoever leaves OpenAI's part out of the address finds the same."""
    twice = [path for path in document["paths"] if path.startswith("/openai")]

    assert len(twice) > 8
    for path in twice:
        for method, operation in document["paths"][path].items():
            short = document["paths"][path.removeprefix("/openai")][method]
            assert short["operationId"] == f"{operation['operationId']}Short"
            assert short["responses"].keys() == operation["responses"].keys()
            assert {**short, "operationId": "", "responses": ""} == {**operation, "operationId": "", "responses": ""}


def test_every_code_has_its_status() -> None:
    """A code that the front door's files name stands among the codes of some status."""
    found: set[str] = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        found |= set(re.findall(r'\bcode="([a-z_]+)"', path.read_text()))

    assert len(found) > 25
    assert not found - {code for codes in CODES.values() for code in codes}


def test_what_is_never_taken_is_never_described(document: dict[str, Any]) -> None:
    """A field that makes a provider call an address is false in the body's schema, as it is a 400 at the door."""
    form = document["components"]["schemas"]["EditForm"]
    schema = {**form, "components": document["components"]}

    jsonschema.validate({"prompt": "a cup", "scale_factor": 2}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"prompt": "a cup", "lora_links": "https://example.com"}, schema)


@pytest.mark.system
def test_nothing_is_answered_that_is_not_described(there: World, tmp_path: Path) -> None:
    """Schemathesis asks everything there is, well and badly, and compares each answer with the document."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{there.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {ADMIN}"),
        *("--checks", ",".join(CHECKS)),
        *("--exclude-path-regex", TWICE),
        *("--seed", "1", "--max-examples", "15", "--generation-database", "none"),
        *("--continue-on-failure", "--suppress-health-check", "all", "--no-color", "--warnings", "off"),
    ]
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.service.pictures_for_schemathesis", "PYTHONPATH": str(ROOT)}

    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240, check=False)

    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
    assert int(re.findall(r"([0-9]+) generated", ran.stdout)[-1]) > 500, ran.stdout[-5_000:]
    # Some of it got through to a provider: not everything was turned away at the door.
    assert there.metric("darkroom_images_total", key=ADMIN) > 0
    assert there.strayed() == []
