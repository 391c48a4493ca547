"""Two gateways over one Postgres, of which one is killed for good half-way."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.chaos.front import front
from tests.chaos.gateway import gateway
from tests.chaos.providers import clouds
from tests.chaos.run import Killer, chaos
from tests.chaos.troubles import Troubles, troubles_of
from tests.simulators.clouds import ALL
from tests.support.postgres import postgres
from tests.system.chaos.test_chaos import SEED, SIZE

pytestmark = pytest.mark.early


# A careful caller and a job that nobody can find take a minute together; most runs take half of that.
@pytest.mark.timeout(300)
def test_two_gateways(tmp_path: Path) -> None:
    """Callers go to the one that is left, whose jobs now are those of both: nothing is bought twice, nothing lost."""
    with postgres() as database, clouds(*ALL, seed=SEED, share=SIZE.share) as there:
        environ = {**there.environ, "DARKROOM_GATEWAY__LEDGER_URL": database.url}
        with gateway(tmp_path, environ) as one, gateway(tmp_path, environ) as two, front(one.port, two.port) as before:
            killer = Killer([one, two], Random(f"{SEED} kills"), for_good=(SIZE.kills + 1) // 2)
            random = Random(f"{SEED} troubles")
            troubles = Troubles(troubles_of([one, two], random, tmp_path / "data", database), random)
            account = chaos(SIZE, there, killer, before.base_url, troubles)
            print(account.table())

            assert not (problems := account.problems()), "\n".join((f"CHAOS_SEED={SEED}", *problems))
            assert one.crashes() + two.crashes() == []
            assert [one.alive, two.alive].count(True) == 1
    assert len(account.answers) == SIZE.calls
    assert sum(entry.state == "completed" for entry in account.entries) > SIZE.calls / 2
