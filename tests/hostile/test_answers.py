"""Every hostile answer of a provider: the caller is told in the envelope, and nobody else is called."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.hostile import answers
from tests.hostile.answers import Spoilt
from tests.hostile.entry import PORT, fields
from tests.hostile.smoke import params
from tests.hostile.target import Target, is_envelope


@pytest.mark.parametrize("entry", params(answers.corpus()))
def test_a_hostile_answer_is_told_as_such(target: Target, entry: Spoilt) -> None:
    """5xx in the envelope; the canary is untouched, the process as it was."""
    faults = target.sims["segmind"].faults
    fault = entry.fault()
    port = target.canary.url.rpartition(":")[2]
    if isinstance(fault.body, dict):
        fault = replace(fault, body=json.loads(json.dumps(fault.body).replace(PORT.decode(), f":{port}")))
    faults.always(entry.op, fault)
    try:
        answer = target.send(fields(prompt="a cup", routing=json.dumps({"only": ["segmind"]})))
    finally:
        faults.clear()

    assert (answer.status, answer.body["error"]["code"]) == (entry.status, entry.code), answer.body
    is_envelope(answer)
    assert [one["outcome"] for one in answer.body["error"]["metadata"]["attempts"]] == ["undecodable"]
    target.check()
