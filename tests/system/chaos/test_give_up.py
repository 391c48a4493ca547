"""A caller whose patience is shorter than the job: its SDK gives up, repeats the call, and is given the same job."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types import ImagesResponse

from tests.chaos import ledger
from tests.chaos.calls import Call
from tests.chaos.clients import is_picture_of
from tests.chaos.gateway import gateway
from tests.chaos.providers import clouds
from tests.support.running import clean_environ
from tests.system.test_node_sdk import FOLDER, NODE

_RUN_S = 2.4
# Together longer than the job: three requests of a second, and the SDK's pauses between them.
_PATIENCE_S, _RETRIES = 1, 2
CALL = Call(number=0, kind="plain", seed=10, colour=(200, 90, 30))


def python(base_url: str, call: Call) -> str:
    """The picture that the Python SDK gets, as base64."""
    with OpenAI(base_url=base_url, api_key="none", max_retries=_RETRIES, timeout=_PATIENCE_S) as client:
        response: ImagesResponse = client.images.edit(**call.fields())
    assert response.data
    return str(response.data[0].b64_json)


def node(base_url: str, call: Call) -> str:
    """The picture that the Node SDK gets, as base64."""
    assert (FOLDER / "node_modules" / "openai").is_dir(), "the Node packages are not there: `make test` installs them"
    fields = {name: call.fields()[name] for name in ("model", "prompt", "n", "response_format")}
    options = {"timeout": 1000 * _PATIENCE_S, "maxRetries": _RETRIES}
    environ = clean_environ(
        DARKROOM_BASE_URL=base_url,
        DARKROOM_FIELDS=json.dumps({**fields, **call.fields()["extra_body"]}),
        DARKROOM_PICTURE=base64.b64encode(call.fields()["image"][1]).decode(),
        DARKROOM_OPTIONS=json.dumps(options),
    )
    command = [str(NODE), "edit.mjs"]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, cwd=FOLDER, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("sdk", [python, node])
@pytest.mark.parametrize("provider", ["fal", "segmind"])
def test_give_up(tmp_path: Path, sdk: Callable[[str, Call], str], provider: str) -> None:
    """One second of patience, three requests, a job that takes longer: one job, one bill, one answer."""
    with clouds(provider, run_s=_RUN_S) as there, gateway(tmp_path, there.environ) as served:
        picture = sdk(served.base_url, CALL)

        assert is_picture_of(picture, CALL.colour)
        assert [bill.billed for bill in there.bills()] == [True]
        [entry] = ledger.read(served.url, {CALL.seed: CALL.colour})
        assert (entry.state, entry.images) == ("completed", 1)
        # It did give up, and came again.
        log = served.log.read_text()
        assert log.count('"route": "/openai/v1/images/edits"') > 1, log
        assert served.crashes() == []
