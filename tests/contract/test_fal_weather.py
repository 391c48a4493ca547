"""The adapter for fal in bad weather after the submit: what each bad answer means, and that nothing is bought twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from providers.errors import Blocked, Expired, Failed, ProviderError, Undecodable, Unfetched, Unknown
from providers.fal.adapter import Fal
from providers.fal.queue import Confirmation
from tests.contract.fal_setup import SECRET, adapter, no_key_went_astray, run
from tests.simulators.common import Fault, html, size
from tests.simulators.fal import FalAi


@pytest.fixture
def sim(running_fal: FalAi) -> FalAi:
    running_fal.reset()
    return running_fal


@pytest.fixture
async def fal(sim: FalAi) -> AsyncIterator[Fal]:
    async with adapter(sim) as made:
        yield made


POLICY = {
    "detail": [{"loc": ["body", "prompt"], "msg": "Flagged", "type": "content_policy_violation", "input": SECRET}]
}
LOCKED = {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}


BAD_LOOKS = [
    html(500),
    html(502),
    html(503),
    html(504),
    Fault(status=429, headers={"retry-after": "0"}),
    Fault(status=401, body={"detail": "invalid key credentials"}),
    Fault(status=403, body=LOCKED),
    Fault(status=422, body={}),
    Fault(status=302, headers={"location": "https://evil.example"}),
    Fault(status=200, body=b""),
    Fault(status=200, body=b"{"),
    Fault(status=200, body=[]),
    Fault(status=200, body={"status": 5}),
    Fault(status=200, body={"status": "SLEEPING"}),
    Fault(kind="cut"),
    Fault(kind="cut_within"),
    Fault(kind="truncate"),
    Fault(kind="hang"),
    Fault(kind="drip"),
    Fault(kind="endless"),
]


@pytest.mark.parametrize("fault", BAD_LOOKS)
async def test_a_failing_poll_is_polled_again(sim: FalAi, fault: Fault) -> None:
    """It is no reason to submit again, whatever it is."""
    sim.faults.script("poll", fault)
    async with adapter(sim, poll_timeout_s=0.3) as fal:
        assert size((await run(fal)).images[0]) == (48, 32)
    assert len(sim.asked("POST")) == 1
    assert len(sim.asked("GET", "/status")) == 2
    assert sim.asked("PUT") == []
    assert sim.books.billed == 1


@pytest.mark.parametrize("word", ["REGRESS", "SLEEPING", "FAILED_SOON"])
async def test_words_that_end_nothing(fal: Fal, sim: FalAi, word: str) -> None:
    """Back into the queue is legal, and an unknown word is no end."""
    sim.faults.script("job", Fault(kind="job", word=word))
    assert size((await run(fal)).images[0]) == (48, 32)
    assert sim.books.billed == 1


@pytest.mark.parametrize(
    "fault",
    [
        html(500),
        html(502),
        html(504),
        Fault(status=503, body={"detail": "Service unavailable"}),
        Fault(status=500, body={"detail": "x", "error_type": "internal_error"}),
        Fault(status=400, body={"detail": "Request is still in progress"}),
        Fault(status=401, body={"detail": "invalid key credentials"}),
        Fault(status=403, body=LOCKED),
        Fault(status=404, body={"detail": "Request not found"}),
        Fault(status=429, body={"detail": "x"}),
        Fault(status=200, body=b""),
        Fault(status=200, body={}),
        Fault(kind="cut"),
        Fault(kind="cut_within"),
        Fault(kind="truncate"),
        Fault(kind="hang"),
    ],
)
async def test_a_result_that_does_not_come_is_fetched_again(sim: FalAi, fault: Fault) -> None:
    """The job is done and paid for: one bad answer does not make it a failed one."""
    sim.faults.script("result", fault)
    async with adapter(sim, fetch_timeout_s=0.5) as fal:
        assert size((await run(fal)).images[0]) == (48, 32)
    assert len(sim.asked("POST")) == 1
    assert sim.asked("PUT") == []
    assert sim.books.billed == 1


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("FAILED", Failed, "fal: the job failed with HTTP 500: Internal server error"),
        ("POLICY", Blocked, "fal: the job failed with HTTP 422: prompt: The content could not be processed"),
        ("POLICY_TEXT", Blocked, "fal: the job failed with HTTP 422: Content policy violation"),
        ("NO_MEDIA", Failed, "fal: the job failed with HTTP 422: No media generated"),
        ("DOWNSTREAM", Failed, "fal: the job failed with HTTP 400: Downstream"),
        ("GPU", Failed, "fal: the job failed with HTTP 503: GPU error"),
        ("RUNNER", Failed, "fal: the job failed with HTTP 503: Runner disconnected"),
        ("SLOW_START", Expired, "fal: the job failed with HTTP 504: Request timed out"),
    ],
)
async def test_a_failed_job_is_told_by_its_result(
    fal: Fal, sim: FalAi, word: str, kind: type[ProviderError], message: str, quiet: bool
) -> None:
    """COMPLETED is no success: list and text, with and without an error in the status; nothing is billed."""
    sim.quiet = quiet
    sim.faults.script("job", Fault(kind="job", word=word))
    with pytest.raises(kind) as caught:
        await run(fal)
    assert type(caught.value) is kind
    assert caught.value.message.startswith(message)
    assert SECRET not in repr(caught.value)
    assert len(sim.asked("GET", "")) == 2
    assert sim.asked("PUT") == []
    assert sim.books.billed == 0


async def test_a_start_that_takes_too_long_is_expired_by_fal(fal: Fal, sim: FalAi) -> None:
    """The time to start that the submit gave is kept there, so that no orphan starts late."""
    sim.queue_s = 0.1
    sim.faults.script("job", Fault(kind="job", word="SLOW_START"))
    with pytest.raises(Expired, match="Request timed out"):
        await run(fal)
    assert sim.books.billed == 0


async def test_an_error_that_nobody_signed_is_believed_in_the_end(fal: Fal, sim: FalAi) -> None:
    """An answer of fal's own that may be about the asking is doubted for a while, and not for good."""
    sim.faults.always("result", Fault(status=503, body={"detail": "Unavailable"}))
    with pytest.raises(Failed, match="HTTP 503: Unavailable"):
        await run(fal)
    assert len(sim.asked("GET")) >= 4


async def test_the_status_tells_what_the_result_cannot(fal: Fal, sim: FalAi) -> None:
    """With an error in the status, a result that is a proxy's page is no reason to go on asking."""
    sim.faults.script("job", Fault(kind="job", word="RUNNER"))
    sim.faults.always("result", html(502))
    with pytest.raises(Failed, match="Invalid status code"):
        await run(fal)


async def test_a_job_that_vanished_is_unknown(fal: Fal, sim: FalAi) -> None:
    """Three misses over a while: it may have run, so it is not bought again."""
    sim.faults.script("job", Fault(kind="job", word="VANISHED"))
    with pytest.raises(Unknown, match="vanished") as caught:
        await run(fal)
    assert caught.value.code == "404"
    assert len(sim.asked("GET", "/status")) >= 3
    assert len(sim.asked("POST")) == 1


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_trouble_with_our_account_is_not_the_jobs_end(sim: FalAi, status: int) -> None:
    """However often: the job is paid for, and its result waits until our key is good again."""
    sim.faults.script("result", *[Fault(status=status, body={"detail": "x"})] * 4)
    async with adapter(sim, lost_after_s=0) as fal:
        assert size((await run(fal)).images[0]) == (48, 32)


async def test_three_times_at_once_are_not_believed() -> None:
    """What is heard in one bad moment is heard once."""
    hasty, slow = Confirmation(after_s=0), Confirmation(after_s=3600)
    assert [hasty.settled() for _ in range(3)] == [False, False, True]
    assert [slow.settled() for _ in range(5)] == [False] * 5
    hasty.clear()
    assert not hasty.settled()


async def test_a_job_that_is_missed_once_is_there(fal: Fal, sim: FalAi) -> None:
    """Right after the submit not every server knows of it."""
    sim.faults.script("poll", *[Fault(status=404, body={"detail": "Request not found"})] * 2)
    assert size((await run(fal)).images[0]) == (48, 32)


async def test_an_empty_result_is_fetched_once_more(fal: Fal, sim: FalAi) -> None:
    """Then it is paid for, and no picture."""
    sim.faults.script("job", Fault(kind="job", word="EMPTY_ONCE"), Fault(kind="job", word="EMPTY"))
    assert size((await run(fal)).images[0]) == (48, 32)
    with pytest.raises(Undecodable, match="without a picture"):
        await run(fal)
    assert len(sim.asked("POST")) == 2


async def test_a_200_with_an_error_is_an_error(fal: Fal, sim: FalAi) -> None:
    """The status code is not the last word."""
    sim.faults.script("result", Fault(status=200, body=POLICY))
    with pytest.raises(Blocked):
        await run(fal)


async def test_a_result_that_moved_is_asked_for_again(fal: Fal, sim: FalAi) -> None:
    """A fresh address is had by asking the job once more, and no second job is bought."""
    sim.faults.script("job", Fault(kind="job", word="MOVED"))
    assert size((await run(fal)).images[0]) == (48, 32)
    assert sim.books.billed == 1
    assert no_key_went_astray(sim)


async def test_a_result_that_is_lost_is_to_be_fetched(fal: Fal, sim: FalAi) -> None:
    """Whatever its delivery says: it is paid for, and is not bought elsewhere."""
    sim.faults.script("job", Fault(kind="job", word="LOST"))
    with pytest.raises(Unfetched, match="HTTP 404"):
        await run(fal)
    assert len(sim.asked("POST")) == 1


@pytest.mark.parametrize("fault", [html(502), Fault(kind="cut"), Fault(kind="cut_within"), Fault(status=200, body=b"")])
async def test_a_download_that_breaks_is_made_again(fal: Fal, sim: FalAi, fault: Fault) -> None:
    """The picture is paid for."""
    sim.faults.script("download", fault)
    assert size((await run(fal)).images[0]) == (48, 32)
    assert sim.books.billed == 1


@pytest.mark.parametrize("location", ["http://169.254.169.254/latest", "https://10.0.0.1/x", "file:///etc/passwd"])
async def test_a_result_behind_a_private_address_is_not_fetched(fal: Fal, sim: FalAi, location: str) -> None:
    """A redirect leads nowhere but into the public."""
    sim.faults.always("download", Fault(status=302, headers={"location": location}))
    with pytest.raises(Undecodable):
        await run(fal)
    assert sim.books.billed == 1


async def test_extra_fields_do_not_matter(fal: Fal, sim: FalAi) -> None:
    """fal may say more than it does today."""
    more = {
        "status": "COMPLETED",
        "request_id": "x",
        "logs": [],
        "metrics": {"inference_time": "fast"},
        "new": {"a": 1},
    }
    sim.faults.script("poll", Fault(status=200, body=more))
    outcome = await run(fal)
    assert outcome.seconds is None
    assert size(outcome.images[0]) == (48, 32)
