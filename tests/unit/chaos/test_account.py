"""The account itself: it finds what was bought twice and what was lost, or else no run could ever fail."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.account import Account, settled
from tests.chaos.calls import Call
from tests.chaos.clients import Answer
from tests.chaos.ledger import Attempt, Entry
from tests.chaos.providers import Bill

CALL = Call(number=0, kind="plain", seed=10, colour=(1, 2, 3))
BILL = Bill(provider="fal", id="a", unit=10, billed=True)
GOOD = Attempt(provider="fal", unit=10, state="ended", outcome="ok", cost=0.1, job="a")
ENTRY = Entry(id="img_1", seed=10, state="completed", code=None, images=1, attempts=(GOOD,))
ANSWER = Answer(call=CALL, status=200, right=1)
UNKNOWN = replace(GOOD, state="unknown", outcome="unknown", job=None)
FAILED = replace(ENTRY, state="failed", code="upstream_outcome_unknown", images=0, attempts=(UNKNOWN,))


def of(*bills: Bill, answer: Answer = ANSWER, entry: Entry | None = ENTRY) -> Account:
    """The account of one call."""
    return settled([answer], [entry] if entry else [], bills)


def words(account: Account) -> list[str]:
    """The kinds of problems."""
    return [problem.partition(":")[0] for problem in account.problems()]


def test_a_good_call() -> None:
    """One bill, one picture: nothing is wrong, and the last lines say so."""
    account = of(BILL)

    assert words(account) == []
    assert list(account.fates.values()) == ["kept"]
    assert account.table().splitlines()[-2:] == [
        "billed - (delivered or accounted for) = 1 - 1 = 0",
        "double-billed = 0",
    ]


def test_bought_twice() -> None:
    """A second bill for the same seed is too much, wherever it comes from and whatever the ledger says of it."""
    second = replace(BILL, provider="segmind", id="b")
    told = replace(GOOD, provider="segmind", job="b")

    assert words(of(BILL, second, entry=replace(ENTRY, attempts=(GOOD, told)))) == ["DOUBLE"]
    assert words(of(BILL, second)) == ["LOST", "DOUBLE"]
    assert words(of(BILL, replace(second, billed=False))) == []


def test_equal_calls_may_be_bought_as_often() -> None:
    """Two equal calls are two jobs, and three bills for them are one too many."""
    calls = [replace(CALL, number=number, equals=2) for number in range(2)]
    bills = [replace(BILL, id=name) for name in "abc"]
    entries = [replace(ENTRY, id=name, attempts=(replace(GOOD, job=name),)) for name in "abc"]
    answers = [replace(ANSWER, call=call) for call in calls]

    assert words(settled(answers, entries[:2], bills[:2])) == []
    assert words(settled(answers, entries, bills)) == ["DOUBLE"]


def test_under_one_key_they_are_one_job() -> None:
    """Two equal calls under one key are bought once."""
    answers = [replace(ANSWER, call=replace(CALL, number=number, kind="keyed", equals=2)) for number in range(2)]
    second = replace(GOOD, job="b")

    assert words(settled(answers, [ENTRY], [BILL])) == []
    entries = [ENTRY, replace(ENTRY, id="img_2", attempts=(second,))]
    assert words(settled(answers, entries, [BILL, replace(BILL, id="b")])) == ["DOUBLE"]


def test_lost() -> None:
    """A bill of which the ledger has no word, or whose picture cannot be had, is lost."""
    assert words(of(BILL, entry=None)) == ["LOST"]
    assert "LOST" in words(of(BILL, entry=replace(ENTRY, images=0)))
    assert words(of(BILL, entry=replace(FAILED, attempts=(GOOD,)))) == ["LOST"]
    assert words(of(BILL, entry=replace(FAILED, attempts=(replace(GOOD, outcome="failed", cost=0),)))) == ["LOST"]


def test_unknown_is_accounted_for_once() -> None:
    """An attempt of unknown outcome stands for one bill of its provider and seed, not for two, and for no other."""
    assert list(of(BILL, entry=FAILED).fates.values()) == ["unknown"]
    assert words(of(BILL, entry=FAILED)) == []
    assert words(of(BILL, replace(BILL, id="b"), entry=FAILED)) == ["LOST", "DOUBLE"]
    assert words(of(replace(BILL, provider="segmind"), entry=FAILED)) == ["LOST"]


def test_billed_for_nothing() -> None:
    """What a provider billed without a picture may be bought elsewhere, and is told apart."""
    spoilt = replace(GOOD, outcome="undecodable")
    second = replace(GOOD, provider="segmind", job="b")
    account = of(BILL, replace(BILL, provider="segmind", id="b"), entry=replace(ENTRY, attempts=(spoilt, second)))

    assert words(account) == []
    assert list(account.fates.values()) == ["spoilt", "kept"]


def test_without_an_end() -> None:
    """A careful caller always has an answer; of another one the ledger must know, if anything was bought."""
    nothing = replace(ANSWER, status=None, right=0)
    keyed = replace(nothing, call=replace(CALL, kind="keyed"))

    assert words(of(BILL, answer=nothing)) == []
    assert words(of(answer=nothing, entry=None)) == []
    assert words(of(answer=keyed, entry=None)) == ["SILENT"]
    assert words(of(BILL, answer=nothing, entry=replace(ENTRY, state="in_progress"))) == ["LOST", "SILENT"]


def test_a_picture_of_somebody_else() -> None:
    """A picture that the call did not ask for is a problem, however good the books are."""
    assert words(of(BILL, answer=replace(ANSWER, right=0, wrong=1))) == ["WRONG"]
