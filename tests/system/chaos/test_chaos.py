"""Nothing is paid twice and nothing that was paid is lost, under faults and kills: the small size of `make chaos`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.chaos.gateway import gateway
from tests.chaos.providers import clouds
from tests.chaos.run import SMALL, Killer, chaos
from tests.chaos.troubles import Together, Troubles, troubles_of
from tests.simulators.clouds import ALL

# Each run has a weather of its own, and says which: CHAOS_SEED=… brings that one back.
SEED = int(os.environ.get("CHAOS_SEED") or Random().randrange(10**6))
SIZE = replace(SMALL, seed=SEED)


# A careful caller and a job that nobody can find take a minute together; most runs take half of that.
@pytest.mark.timeout(300)
def test_one_gateway(tmp_path: Path) -> None:
    """A gateway that is killed three times under forty calls buys each picture once, and has each that was bought."""
    with clouds(*ALL, seed=SEED, share=SIZE.share) as there, gateway(tmp_path, there.environ) as served:
        random = Random(f"{SEED} troubles")
        troubles = Troubles(troubles_of([served], random, tmp_path / "data"), random)
        account = chaos(SIZE, there, Killer([served], Random(f"{SEED} kills")), served.base_url, troubles)
        print(account.table())

        assert not (problems := account.problems()), "\n".join((f"CHAOS_SEED={SEED}", *problems))
        assert served.crashes() == []
    assert served.starts == 1 + SIZE.kills + troubles.met[Together.name]
    assert sum(troubles.met.values()) == SIZE.troubles
    assert len(account.answers) == SIZE.calls
    # It was a storm, and most came through it.
    assert sum(storm.met for storm in there.storms.values()) > SIZE.calls / 2
    assert sum(entry.state == "completed" for entry in account.entries) > SIZE.calls / 2
