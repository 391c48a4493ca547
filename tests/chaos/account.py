"""The account of a run: what was bought, by the providers' own books, and what callers and the ledger have of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.chaos.clients import Answer
from tests.chaos.ledger import Attempt, Entry
from tests.chaos.providers import Bill

Fate = Literal["kept", "unknown", "spoilt", "lost"]
# What became of what was bought: its picture can be had from the ledger; the ledger says that nobody knows (504), and
# what it may have cost; the ledger says that it was billed and gave no picture; the ledger knows nothing of it.
FATES: tuple[Fate, ...] = ("kept", "unknown", "spoilt", "lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`fates` has every job that was billed; `double` those that were bought beyond what was asked for."""

    answers: Sequence[Answer]
    entries: Sequence[Entry]
    bills: Sequence[Bill]
    fates: Mapping[Bill, Fate]
    double: Sequence[Bill]
    silent: Sequence[Answer]
    """Calls that got nothing, and of which the ledger has no end either, though something was bought for them."""

    def problems(self) -> list[str]:
        """Everything that must not be, a sentence each."""
        found = [
            f"LOST: {bill.provider} billed {bill.id} for seed {bill.unit}, and the ledger has no word of it"
            for bill in self._with("lost")
        ]
        found += [
            f"DOUBLE: {bill.provider} billed {bill.id} for seed {bill.unit} once more\n{self._story(bill.unit)}"
            for bill in self.double
        ]
        found += [f"SILENT: call {answer.call.number} ({answer.call.kind}) has no end" for answer in self.silent]
        found += [f"WRONG: call {a.call.number} got a picture that is not its own" for a in self.answers if a.wrong]
        found += [
            f"HOLLOW: job {entry.id} is completed, with {entry.images} pictures of {good}\n{self._story(entry.seed)}"
            for entry in self.entries
            if entry.state == "completed"
            and entry.images < (good := _good(entry))
            and entry.id not in self._delivered()
        ]
        return found

    def table(self) -> str:
        """All of it, to be read."""
        return "\n".join([*self._calls(), *self._ledger(), *self._providers()])

    def _story(self, unit: int) -> str:
        """What the three books have of one picture, to find out why it was bought twice."""
        lines: list[object] = [bill for bill in self.bills if bill.unit == unit]
        lines += [entry for entry in self.entries if any(attempt.unit == unit for attempt in entry.attempts)]
        lines += [answer for answer in self.answers if unit in answer.call.units]
        return "\n".join(f"  {line}" for line in lines)

    def _delivered(self) -> set[str | None]:
        return _delivered(self.answers)

    def _with(self, fate: Fate) -> list[Bill]:
        return [bill for bill, found in self.fates.items() if found == fate]

    def _calls(self) -> Iterator[str]:
        ended = {entry.seed for entry in self.entries}
        yield "calls          made  picture  error  nothing, and: a job has ended  nothing was begun"
        for kind in ("plain", "keyed", "background"):
            mine = [answer for answer in self.answers if answer.call.kind == kind]
            good = sum(answer.right > 0 for answer in mine)
            errors = sum(answer.code is not None for answer in mine)
            left = sum(answer.call.seed in ended for answer in mine if answer.is_nothing)
            begun = len(mine) - good - errors - left
            yield f"  {kind:<10} {len(mine):>6} {good:>8} {errors:>6} {left:>29} {begun:>18}"
        codes = Counter(answer.code for answer in self.answers if answer.code is not None)
        yield from (f"  error {code:<28} {count:>4}" for code, count in sorted(codes.items()))

    def _ledger(self) -> Iterator[str]:
        states = Counter(entry.state for entry in self.entries)
        yield f"jobs in the ledger: {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}"
        codes = Counter(str(entry.code) for entry in self.entries if entry.code)
        yield from (f"  failed {code:<27} {count:>4}" for code, count in sorted(codes.items()))

    def _providers(self) -> Iterator[str]:
        yield "provider     taken  billed    kept  unknown  spoilt    lost  double"
        names = sorted({bill.provider for bill in self.bills})
        for name in [*names, None]:
            mine = [bill for bill in self.bills if name in (bill.provider, None)]
            fates = Counter(self.fates[bill] for bill in mine if bill.billed)
            double = sum(name in (bill.provider, None) for bill in self.double)
            yield (
                f"  {name or 'together':<10} {len(mine):>5} {sum(bill.billed for bill in mine):>7} {fates['kept']:>7} "
                f"{fates['unknown']:>8} {fates['spoilt']:>7} {fates['lost']:>7} {double:>7}"
            )
        billed = sum(bill.billed for bill in self.bills)
        found = billed - len(self._with("lost"))
        yield f"billed - (delivered or accounted for) = {billed} - {found} = {billed - found}"
        yield f"double-billed = {len(self.double)}"


def settled(answers: Sequence[Answer], entries: Sequence[Entry], bills: Sequence[Bill]) -> Account:
    """Hold the three books against each other."""
    fates = _fates(answers, entries, bills)
    return Account(
        answers=answers,
        entries=entries,
        bills=bills,
        fates=fates,
        double=_double(answers, bills, fates),
        silent=[answer for answer in answers if _is_silent(answer, entries, bills)],
    )


def _delivered(answers: Sequence[Answer]) -> set[str | None]:
    """The jobs whose pictures callers have: where the store was away these are nowhere else."""
    return {answer.job for answer in answers if answer.right}


def _fates(answers: Sequence[Answer], entries: Sequence[Entry], bills: Sequence[Bill]) -> dict[Bill, Fate]:
    known = {(a.provider, a.job): (a, entry) for entry in entries for a in entry.attempts if a.job is not None}
    # Attempts of which nobody knows what became: each may be one bill of its provider for its seed.
    open_ = Counter((a.provider, a.unit) for e in entries for a in e.attempts if a.state == "unknown" and a.job is None)
    delivered = _delivered(answers)
    fates: dict[Bill, Fate] = {}
    for bill in bills:
        if not bill.billed:
            continue
        if (found := known.get((bill.provider, bill.id))) is not None:
            fates[bill] = _fate(*found, delivered=found[1].id in delivered)
        elif open_[bill.provider, bill.unit]:
            open_[bill.provider, bill.unit] -= 1
            fates[bill] = "unknown"
        else:
            fates[bill] = "lost"
    return fates


def _fate(attempt: Attempt, entry: Entry, *, delivered: bool) -> Fate:
    if attempt.outcome == "ok":
        there = delivered or entry.images >= _good(entry)
        return "kept" if entry.state == "completed" and there else "lost"
    if attempt.state == "unknown":
        return "unknown"
    return "spoilt" if attempt.cost > 0 else "lost"


def _good(entry: Entry) -> int:
    return len({attempt.unit for attempt in entry.attempts if attempt.outcome == "ok"})


def _double(answers: Sequence[Answer], bills: Sequence[Bill], fates: Mapping[Bill, Fate]) -> list[Bill]:
    """The bills beyond one for each picture that was asked for; what was billed for nothing may be bought again."""
    jobs = {answer.call.key or str(answer.call.number): answer.call for answer in answers}
    allowed = Counter(unit for call in jobs.values() for unit in call.units)
    bought: defaultdict[int, list[Bill]] = defaultdict(list)
    for bill in bills:
        if bill.billed and fates[bill] != "spoilt":
            bought[bill.unit].append(bill)
    return [bill for unit, several in bought.items() for bill in several[allowed[unit] :]]


def _is_silent(answer: Answer, entries: Sequence[Entry], bills: Sequence[Bill]) -> bool:
    """Whether nobody ever said how a call ended. A plain one that got nothing may have bought nothing either."""
    if not answer.is_nothing:
        return False
    if answer.call.kind == "keyed" or answer.job is not None:
        return True
    ended = any(entry.seed == answer.call.seed and entry.state not in ("queued", "in_progress") for entry in entries)
    return not ended and any(bill.billed and bill.unit in answer.call.units for bill in bills)
