"""The weather, row by row: what goes wrong, and what the caller gets, who is tried, and who bills for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from threading import Thread

from tests.simulators.apiframe import Apiframe
from tests.simulators.clouds import CLOUDS
from tests.simulators.common import Fault, Op, html
from tests.simulators.fal import FalAi
from tests.simulators.segmind import Segmind
from tests.support.faults import (
    ASKED,
    FETCHED,
    NOT_TAKEN,
    REFUSED,
    SHORT_ASKED,
    SHORT_SPOILT,
    SPOILT,
    TAKEN,
    TORN,
    WHOLE,
    WITHHELD,
    says,
)
from tests.support.ports import dead_port
from tests.support.running import until
from tests.support.world import CANARY, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """`outcomes` are those of the attempts: the victim's, then the rescue's; `billed` the bills of both.

    `retry_after` is the least and the most that the header may say, in seconds.
    """

    status: int
    code: str | None
    outcomes: tuple[str, ...]
    billed: tuple[int, int]
    retry_after: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One call for one picture, in its own world. `victim` is tried first, and meets `faults` at `op`.

    `always` lets each request of the kind meet the last fault. `alone` leaves no other route. `slow` rows are begun
    first, for they mostly wait.
    """

    name: str
    victim: str
    expect: Expect
    op: Op = "submit"
    faults: tuple[Fault, ...] = ()
    always: bool = False
    alone: bool = False
    slow: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[World], None] = lambda world: None

    @property
    def rescue(self) -> str:
        """Who is to help."""
        return "replicate" if self.victim == "fal" else "fal"


SAME = Expect(status=200, code=None, outcomes=("ok",), billed=(1, 0))


def moved(outcome: str, billed: int = 0) -> Expect:
    """A good answer from the next route; `billed` is what the first one was paid for nothing."""
    return Expect(status=200, code=None, outcomes=(outcome, "ok"), billed=(billed, 1))


def unknown(billed: int) -> Expect:
    """Nobody knows whether it was bought, so it is not bought again."""
    return Expect(status=504, code="upstream_outcome_unknown", outcomes=("unknown",), billed=(billed, 0))


def late(billed: int, outcome: str = "unfinished") -> Expect:
    """Out of time, with a job that cannot be cancelled, or that is made already: it is not bought again."""
    return Expect(status=504, code="deadline_exceeded", outcomes=(outcome,), billed=(billed, 0))


def throttled(least: int, most: int) -> Expect:
    """The only route is at capacity, for so long."""
    return Expect(
        status=429, code="rate_limit_exceeded", outcomes=("throttled",), billed=(0, 0), retry_after=(least, most)
    )


BLOCKED = Expect(status=400, code="content_policy_violation", outcomes=("blocked",), billed=(0, 0))


JOBS: Mapping[str, Mapping[str, Expect]] = {
    "fal": {
        "FAILED": moved("failed"),
        "POLICY": BLOCKED,
        "STUCK": moved("expired"),
        "VANISHED": unknown(1),
        "EMPTY": moved("undecodable", 1),
        "EMPTY_ONCE": SAME,
        "MOVED": SAME,
        "LOST": late(1, "unfetched"),
        "A_NEW_WORD": SAME,
        "REGRESS": SAME,
    },
    "replicate": {
        # It bills the seconds that a job ran, whatever came of it.
        "fails": moved("failed", 1),
        "nsfw": replace(BLOCKED, billed=(1, 0)),
        "stuck": moved("expired", 1),
        "vanishes": unknown(1),
        "empty": moved("undecodable", 1),
        "removed": moved("undecodable", 1),
        "stranger": SAME,
        "back": SAME,
    },
    "segmind": {
        "FAILED": moved("failed"),
        "STUCK": late(0),
        "VANISHED": late(1),
        "EMPTY": moved("undecodable", 1),
        "MOVED": SAME,
        "A_NEW_WORD": SAME,
    },
    "apiframe": {
        "FAILED": moved("failed"),
        "CANCELLED": moved("failed"),
        "STUCK": late(1),
        "EMPTY": moved("undecodable", 1),
        "A_NEW_WORD": SAME,
    },
}  # fmt: skip
_SLOW = ("STUCK", "VANISHED", "stuck", "vanishes", "LOST", "MOVED")
# Every setting of each provider that holds an address.
_URLS = {name: [f"{name}__{setting}".upper() for setting in kind().addresses] for name, kind in CLOUDS.items()}


def rows() -> Iterator[Row]:
    """The whole table."""
    yield from _unreached()
    yield from _submits()
    yield from _throttles()
    yield from _questions()
    yield from _downloads()
    # Nobody can say any more whether the picture is made and billed.
    for victim, expect in (("fal", unknown(1)), ("segmind", late(1))):
        yield Row(name="killed while the job runs", victim=victim, expect=expect, slow=True, prepare=_kill_at_work)
    for victim, words in JOBS.items():
        for word, expect in words.items():
            fault = Fault(kind="job", word=word)
            yield Row(name=f"job {word}", victim=victim, op="job", faults=(fault,), expect=expect, slow=word in _SLOW)


def _unreached() -> Iterator[Row]:
    """What surely never left: the address is wrong, each in its own way."""
    for victim, names in _URLS.items():
        nobody = f"http://127.0.0.1:{dead_port()}"
        # The canary speaks no TLS.
        for what, url in (
            ("connect refused", nobody), ("DNS failure", "http://nobody.invalid"), ("TLS failure", f"https://{CANARY}"),
        ):  # fmt: skip
            environ = {f"DARKROOM_PROVIDERS__{name}": url for name in names}
            yield Row(name=what, victim=victim, expect=moved("unreached"), environ=environ)


def _submits() -> Iterator[Row]:
    for name, fault in NOT_TAKEN.items():
        # fal's list of our requests is looked through: that one is not in it proves nothing.
        yield Row(name=f"submit: {name}", victim="fal", faults=(fault,), expect=unknown(0), slow=True)
    for name in ("502 from a proxy", "hang before headers", "malformed JSON"):
        # Replicate's list is looked through; Apiframe takes the same submit again under the same key.
        faults = (NOT_TAKEN[name],)
        yield Row(name=f"submit: {name}", victim="replicate", faults=faults, expect=unknown(0), slow=True)
        yield Row(name=f"submit: {name}", victim="apiframe", faults=faults, expect=SAME)
    for name, fault in TAKEN.items():
        yield Row(name=f"submit: {name}", victim="fal", faults=(fault,), expect=SAME)
        yield Row(name=f"submit: {name}", victim="segmind", faults=(fault,), expect=unknown(1))
        yield Row(name=f"submit: {name}", victim="replicate", faults=(fault,), expect=SAME)
        yield Row(name=f"submit: {name}", victim="apiframe", faults=(fault,), expect=SAME)
    for name, fault in TORN.items():
        # fal tells the job's id in a header and can be asked; Segmind cannot.
        yield Row(name=f"submit: {name}", victim="fal", faults=(fault,), expect=SAME)
        yield Row(name=f"submit: {name}", victim="segmind", faults=(fault,), expect=unknown(1))
        yield Row(name=f"submit: {name}", victim="replicate", faults=(fault,), expect=SAME)
    for name, (fault, outcome) in REFUSED.items():
        for victim in ("fal", "segmind"):
            yield Row(name=f"submit: {name}", victim=victim, faults=(fault,), expect=moved(outcome))
    for name in ("500", "401", "402", "429 with seconds"):
        fault, outcome = REFUSED[name]
        yield Row(
            name=f"submit: {name}", victim="replicate", faults=(fault,), expect=moved(outcome), slow=name == "500"
        )
        yield Row(name=f"submit: {name}", victim="apiframe", faults=(fault,), expect=moved(outcome))
    poor = says(406, {"error": "Insufficient credits. Available: 0.0001, required: 0.0193"})
    yield Row(name="submit: 406 for want of credit", victim="segmind", faults=(poor,), expect=moved("unusable"))
    odd = says(406, {"error": "handfix must be one of ['disabled']"})
    yield Row(name="submit: 406 for the input", victim="segmind", faults=(odd,), expect=moved("rejected"))
    locked = says(403, {"detail": "User is locked. Reason: Exhausted balance. Top up your balance."})
    yield Row(name="submit: 403 for want of credit", victim="fal", faults=(locked,), expect=moved("unusable"))
    policy = {"detail": [{"loc": ["body", "prompt"], "msg": "Flagged", "type": "content_policy_violation"}]}
    yield Row(name="submit: content policy", victim="fal", faults=(says(422, policy),), expect=BLOCKED)
    for victim in ("segmind", "apiframe"):
        fault = Fault(kind="job", word="FAILED")
        yield Row(
            name="job ended by the content policy", victim=victim, op="job", faults=(fault,), expect=BLOCKED,
            prepare=_flag,
        )  # fmt: skip
    yield Row(name="addresses in the answer lead elsewhere", victim="fal", expect=SAME, prepare=_lead_elsewhere)


def _kill_at_work(world: World) -> None:
    name, sim = next(iter(world.sims.items()))
    sim.run_s = 60

    def kill() -> None:
        until(lambda: sim.books.taken, "the job is taken")
        world.stop(name)

    Thread(target=kill, daemon=True).start()


def _flag(world: World) -> None:
    for sim in world.sims.values():
        if isinstance(sim, Segmind | Apiframe):
            sim.fails = "The prompt violates the content policy"


def _lead_elsewhere(world: World) -> None:
    sim = world.sims["fal"]
    assert isinstance(sim, FalAi)
    sim.announce = lambda address: address.replace(sim.queue_url, world.canary.url)


def _throttles() -> Iterator[Row]:
    """With no other route the caller is told when to come again."""
    date = formatdate(time.time() + 250, usegmt=True)
    for victim, name, fault, expect in (
        ("fal", "429 with seconds", says(429, {"detail": "x"}, retry_after="7"), throttled(7, 7)),
        ("fal", "429 with a date", says(429, {"detail": "x"}, retry_after=date), throttled(1, 250)),
        ("replicate", "429 with a body field", says(429, {"detail": "x", "retry_after": 9}), throttled(9, 9)),
        ("replicate", "429 in words", says(429, {"detail": "Your limit resets in ~30s."}), throttled(30, 30)),
        ("segmind", "429 with nothing", says(429, {"error": "x"}), throttled(1, 60)),
        ("apiframe", "429 with seconds", says(429, {"error": "x"}, retry_after="7"), throttled(7, 7)),
    ):
        yield Row(name=f"alone: {name}", victim=victim, faults=(fault,), always=True, alone=True, expect=expect)


def _questions() -> Iterator[Row]:
    for name, fault in ASKED.items():
        yield Row(name=f"poll: {name}", victim="fal", op="poll", faults=(fault,), expect=SAME)
    for name in SHORT_ASKED:
        yield Row(name=f"result: {name}", victim="fal", op="result", faults=(ASKED[name],), expect=SAME)
        for victim in ("replicate", "segmind", "apiframe"):
            yield Row(name=f"poll: {name}", victim=victim, op="poll", faults=(ASKED[name],), expect=SAME)
    more: dict[str, object] = {
        "status": "IN_PROGRESS",
        "request_id": "x",
        "new": {"a": [1]},
        "metrics": {"inference_time": "fast"},
    }
    yield Row(name="poll: extra fields", victim="fal", op="poll", faults=(says(202, more),), expect=SAME)
    more = {"status": "processing", "new": {"a": [1]}, "output": None, "metrics": {"predict_time": "fast"}}
    yield Row(name="poll: extra fields", victim="replicate", op="poll", faults=(says(200, more),), expect=SAME)
    for victim in ("segmind", "apiframe"):
        # They cannot cancel: the job may end well after this, and is not bought elsewhere.
        down = html(502)
        yield Row(
            name="poll: 502 for good", victim=victim, op="poll", faults=(down,), always=True, expect=late(1), slow=True
        )


def _downloads() -> Iterator[Row]:
    for name, fault in FETCHED.items():
        yield Row(name=f"download: {name}", victim="fal", op="download", faults=(fault,), expect=SAME)
        yield Row(name=f"download: {name}", victim="replicate", op="download", faults=(fault,), expect=SAME)
    for name, fault in WHOLE.items():
        for victim in ("fal", "replicate", "segmind", "apiframe"):
            yield Row(name=f"download: {name}", victim=victim, op="download", faults=(fault,), always=True, expect=SAME)
    for name, fault in SPOILT.items():
        victims = ("fal", "replicate", "segmind", "apiframe") if name in SHORT_SPOILT else ("fal",)
        for victim in victims:
            yield Row(
                name=f"download: {name}", victim=victim, op="download", faults=(fault,), always=True,
                expect=late(1, "unfetched") if name in WITHHELD else moved("undecodable", 1), slow=name in WITHHELD,
            )  # fmt: skip
    for victim in ("fal", "replicate", "segmind", "apiframe"):
        # It is paid for: it is asked for again and again, and nothing is bought instead.
        yield Row(
            name="download: 500 for good", victim=victim, op="download", faults=(says(500, b"x"),), always=True,
            expect=late(1, "unfetched"), slow=True,
        )  # fmt: skip
    for name, fault in (("hang before headers", Fault(kind="hang")), ("slow drip", Fault(kind="drip", seconds=1))):
        for victim in ("fal", "replicate", "segmind", "apiframe"):
            yield Row(
                name=f"download: {name}", victim=victim, op="download", faults=(fault,), always=True,
                expect=late(1, "unfetched"), slow=True,
            )  # fmt: skip
    hang = Fault(kind="hang")
    yield Row(name="download: hang once", victim="fal", op="download", faults=(hang,), expect=SAME, slow=True)


ROWS = tuple(rows())
