"""Every hostile request over real HTTP: refused in the envelope, in time, in memory, and before anybody is called."""

from __future__ import annotations

import pytest

from tests.hostile import documents, forms, heads, pictures
from tests.hostile.entry import Hostile
from tests.hostile.target import Target, is_envelope

FAMILIES = (pictures, forms, documents, heads)
CORPUS = tuple(entry for family in FAMILIES for entry in family.corpus())


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name)
def test_a_hostile_request_is_refused(target: Target, entry: Hostile) -> None:
    """The right 4xx in the envelope; no provider and no stranger was called; the process is as it was."""
    before = target.called()

    answer = target.send(entry.message())

    assert answer.status == entry.status, answer.body
    is_envelope(answer)
    assert answer.body["error"]["code"] in entry.code, answer.body
    assert entry.says in answer.body["error"]["message"]
    assert target.called() == before
    target.check()


def test_the_corpus_is_large_and_each_entry_has_a_name() -> None:
    """At least 120, as was promised; a name that stood for two would hide one."""
    assert len({entry.name for entry in CORPUS}) == len(CORPUS) >= 120
