"""Every hostile request over real HTTP: refused in the envelope, in time, in memory, and before anybody is called."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import pytest

from tests.hostile import addresses, documents, forms, heads, pictures, wire
from tests.hostile.entry import Hostile
from tests.hostile.smoke import params
from tests.hostile.target import Target, is_envelope

pytestmark = pytest.mark.early

FAMILIES = (pictures, forms, documents, heads, addresses)
CORPUS = tuple(entry for family in FAMILIES for entry in family.corpus())
WIRE = tuple(wire.corpus())
# uvicorn itself answers what is no HTTP in plain text, and takes heads of any length.
PROTOCOL = find_spec("gateway.http.server") is not None


@pytest.mark.parametrize("entry", [param for family in FAMILIES for param in params(family.corpus())])
def test_a_hostile_request_is_refused(target: Target, entry: Hostile) -> None:
    """The right 4xx in the envelope; no provider and no stranger was called; the process is as it was."""
    refused(target, entry)


@pytest.mark.skipif(not PROTOCOL, reason="there is no protocol of ours below the application")
@pytest.mark.parametrize("entry", params(WIRE))
def test_hostile_bytes_are_refused(target: Target, entry: Hostile) -> None:
    """The same of what is no request, or has no end."""
    refused(target, entry)


def test_the_corpus_is_large_and_each_entry_has_a_name() -> None:
    """At least 120, as was promised; a name that stood for two would hide one."""
    names = [entry.name for entry in (*CORPUS, *WIRE)]
    assert len(CORPUS) >= 120
    assert not [name for name, count in Counter(names).items() if count > 1]


def refused(target: Target, entry: Hostile) -> None:
    """Send it, and hold the answer and the process against what they have to be."""
    before = target.called()

    answer = target.send(entry.message())

    assert answer.status == entry.status, answer.body
    is_envelope(answer)
    assert entry.code is None or answer.body["error"]["code"] in entry.code, answer.body
    assert entry.says in answer.body["error"]["message"]
    assert target.called() == before
    target.check()
