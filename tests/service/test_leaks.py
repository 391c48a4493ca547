"""Secrets stay where they are: in no answer, log, metric, ledger or `repr`, whatever a provider says back to us.

A provider that echoes what it was sent is the worst that can be met by an honest gateway: then every error path has
the key, the prompt, the picture and its address in its hands.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.settings.loader import SHIPPED, load
from tests.simulators import apiframe, fal, replicate, segmind
from tests.simulators.base import Simulated, asking, wiring
from tests.simulators.clouds import ALL, quick
from tests.simulators.common import Fault, tiny
from tests.support import warm
from tests.support.running import Served, clean_environ, serving
from tests.support.world import PATIENCE

pytestmark = [pytest.mark.system, pytest.mark.early]

CALLER, ADMIN = "caller-key-5f2ab90c77d15f2ab90c77d1", "admin-key-91d0cc3e12ab91d0cc3e12ab"
PROMPT = "a violet teapot named Hortensia beside the third window"
PICTURE = tiny(40, 30, (17, 99, 203))
BASE64 = base64.b64encode(PICTURE).decode()
# What may be nowhere: each with the least piece of it that is looked for.
KEYS: Mapping[str, str] = {
    "replicate's key": replicate.TOKEN,
    "fal's key": fal.KEY,
    "fal's secret": fal.KEY.partition(":")[2],
    "Segmind's key": segmind.KEY,
    "Apiframe's key": apiframe.KEY,
    "the caller's key": CALLER,
    "the admin's key": ADMIN,
}
CONTENT: Mapping[str, str] = {
    "the prompt": "Hortensia",
    "the picture": BASE64[60:100],
    "a signature": "signature=5e1f",
}
STATUSES = (400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503)
WORDS = ("headers", "body")


@dataclass(frozen=True, slots=True)
class There:
    """A real server before four providers, and what all of its answers said."""

    served: Served
    sims: Mapping[str, Simulated]
    folder: Path

    def edit(self, provider: str, **fields: str) -> str:
        """Send a call to one provider alone; the whole answer as text, with its headers."""
        form = {"model": "clarity-upscaler", "prompt": PROMPT, "routing": json.dumps({"only": [provider]}), **fields}
        answer = httpx.post(
            f"{self.served.base_url}/images/edits",
            data=form,
            files={"image": ("in.png", PICTURE)},
            headers={"authorization": f"Bearer {CALLER}"},
            timeout=60,
        )
        return self._whole(answer)

    def get(self, path: str, key: str = ADMIN) -> str:
        """Read something; the whole answer as text."""
        return self._whole(httpx.get(f"{self.served.root}{path}", headers={"authorization": f"Bearer {key}"}))

    @staticmethod
    def _whole(answer: httpx.Response) -> str:
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        return f"{answer.status_code}\n{head}\n\n{answer.text}"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    with standing(tmp_path_factory.mktemp("leaks")) as found:
        yield found


@contextmanager
def standing(folder: Path) -> Iterator[There]:
    """A server with all its secrets, that is not to keep what it is asked."""
    with ExitStack() as stack:
        sims: dict[str, Any] = {name: quick(name) for name in ALL}
        for sim in sims.values():
            stack.enter_context(sim.running())
        environ = {
            **PATIENCE,
            **wiring(sims.values()),
            "DARKROOM_API_KEYS": CALLER,
            "DARKROOM_ADMIN_KEY": ADMIN,
            "DARKROOM_GATEWAY__KEEP_PARAMETERS": "false",
            "DARKROOM_GATEWAY__ACCOUNT_SUSPEND_S": "0.001",
            "DARKROOM_GATEWAY__THROTTLE_DEFAULT_S": "0.001",
            "DARKROOM_GATEWAY__DEADLINE_S": "4",
            "DARKROOM_GATEWAY__ATTEMPT_TIMEOUT_S": "3",
        }
        yield There(stack.enter_context(serving(folder, environ=asking(environ))), sims, folder)


def found_in(text: str, what: Mapping[str, str]) -> list[str]:
    """The names of the secrets that stand in a text, as they are or in base64."""
    return [name for name, secret in what.items() if secret in text or _as_base64(secret) in text]


def _as_base64(secret: str) -> str:
    """As a header of basic authorization would have it, less what the length decides."""
    return base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("op", ["submit", "upload", "poll", "result", "download"])
def test_a_provider_that_says_back_what_it_was_sent(there: There, name: str, op: Any) -> None:
    """Whatever its status, and whatever it says first: the caller hears of the error, and of nothing that was sent."""
    sim = there.sims[name]
    met = 0
    for status in STATUSES if op == "submit" else (401, 404, 422, 500):
        for word in WORDS:
            sim.faults.clear()
            sim.faults.script(op, *[Fault(kind="echo", status=status, word=word)] * 2)
            before = len(sim.books.requests)
            said = there.edit(name)
            met += len(sim.books.requests) - before
            assert not found_in(said, {**KEYS, **CONTENT}), f"{status} {word}: {said}"
    sim.faults.clear()
    assert met > 0


@pytest.mark.parametrize("name", ALL)
def test_a_job_that_fails_with_our_own_words(there: There, name: str) -> None:
    """The submit is answered well, and with everything that was sent besides."""
    sim = there.sims[name]
    for word in WORDS:
        sim.faults.clear()
        sim.faults.script(
            "submit", Fault(kind="echo", status=200, word=word), Fault(kind="echo", status=201, word=word)
        )
        assert not found_in(there.edit(name), {**KEYS, **CONTENT})
    sim.faults.clear()


def test_calls_that_are_refused_at_the_door(there: There) -> None:
    """A mistake is told by its name and place, and not with the value where that may be a secret."""
    signed = "https://user:hidden-password-77@pictures.invalid/a.png?signature=5e1f00d"
    for fields in (
        {"image_url": signed},
        {"webhook_url": signed},
        {"lora_links": signed},
        {"image": f"data:image/png;base64,{BASE64[:-9]}"},
        {"mask": signed},
        {"size": PROMPT},
        {"scale_factor": BASE64},
    ):
        said = there.edit("fal", **fields)
        assert said[:3] in ("400", "404", "504", "502"), said
        hidden = {**KEYS, "a password": "hidden-password-77", "a signature": CONTENT["a signature"]}
        assert not found_in(said, hidden), said


def test_nothing_was_written_down(there: There) -> None:
    """After all of that: the metrics, the ledger over HTTP, and the log."""
    there.edit("fal")
    places = {
        "the metrics": there.get("/metrics"),
        "the requests": there.get("/v1/requests?limit=100"),
        "the jobs": there.get("/v1/images/jobs?limit=100"),
        "the keys": there.get("/v1/keys"),
        "readiness": there.get("/readyz"),
        "the models": there.get("/v1/models"),
        "the log": there.served.log.read_text(),
    }

    assert '"event": "attempt.failed"' in places["the log"]
    for place, text in places.items():
        assert not found_in(text, {**KEYS, **CONTENT}), place


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    """What a provider has to be sent again after a crash is written down for that time, and wiped out with it."""
    with standing(tmp_path) as there:
        for name, sim in there.sims.items():
            there.edit(name)
            sim.faults.script("submit", Fault(kind="echo", status=422, word="body"))
            there.edit(name)
    places = {path.name: path.read_bytes().decode("latin-1") for path in (tmp_path / "data").glob("*.db*")}

    assert "darkroom.db" in places
    for place, text in places.items():
        assert not found_in(text, {**KEYS, **CONTENT}), place


WRONG: Mapping[str, str] = {
    "DARKROOM_GATEWAY__LEDGER_URL": "postgres//darkroom:hunter2-marker@db/darkroom",
    "DARKROOM_GATEWAY__LIMITS_URL": "http://:hunter2-marker@redis",
    "DARKROOM_GATEWAY__WEBHOOK_SECRET": "hunter2-marker",
}


@pytest.mark.parametrize("variable", WRONG)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_mistake_is_told_without_the_secret(tmp_path: Path, variable: str, command: str) -> None:
    """The operator's terminal is somebody's log."""
    environ = clean_environ(**{variable: WRONG[variable], "DARKROOM_DATA": str(tmp_path)})
    ran = warm.command([command], environ=environ)

    assert ran.returncode != 0
    assert variable.lower().rpartition("__")[2] in ran.stderr
    assert "hunter2" not in ran.stdout + ran.stderr


def test_settings_do_not_show_their_secrets() -> None:
    """Not as text, not as JSON."""
    environ = {
        "DARKROOM_GATEWAY__LEDGER_URL": "postgresql://darkroom:hunter2-marker@db/darkroom",
        "DARKROOM_GATEWAY__LIMITS_URL": "redis://:hunter2-marker@redis",
        "DARKROOM_GATEWAY__WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"hunter2-marker-and-some-more").decode(),
    }
    config = load(SHIPPED, environ)

    for shown in (repr(config), str(config.gateway), config.gateway.model_dump_json(), f"{config.gateway.ledger_url}"):
        assert not found_in(shown, {"a password": "hunter2-marker"})
        assert environ["DARKROOM_GATEWAY__WEBHOOK_SECRET"] not in shown
