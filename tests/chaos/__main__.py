"""`make chaos`: calls under faults and kills, and the account of what was bought. The exit status is 1 for any gap."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.chaos.account import Account
from tests.chaos.front import front
from tests.chaos.gateway import gateway
from tests.chaos.providers import clouds
from tests.chaos.run import FULL, Killer, Size, chaos
from tests.chaos.troubles import Troubles, troubles_of
from tests.simulators.clouds import ALL
from tests.support.postgres import postgres


def main() -> int:
    """Run, and print the account as it comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Calls under faults and kills.")
    parser.add_argument("--calls", type=int, default=FULL.calls)
    parser.add_argument("--kills", type=int, default=FULL.kills)
    parser.add_argument("--troubles", type=int, default=FULL.troubles, help="pauses, a store that is away, and others")
    parser.add_argument("--seed", type=int, default=Random().randrange(10**6), help="draws everything (default: any)")
    parser.add_argument("--share", type=float, default=FULL.share, help="of requests that go wrong, 0 to 1")
    parser.add_argument("--postgres", action="store_true", help="two gateways on one, of which one stays away half-way")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and ledger, which stay there")
    args = parser.parse_args()
    # A simulator that is stopped while it hangs says so at length.
    logging.getLogger("uvicorn.error").disabled = True
    size = Size(calls=args.calls, kills=args.kills, seed=args.seed, share=args.share, troubles=args.troubles)
    with tempfile.TemporaryDirectory() as scratch:
        account, problems = (_two if args.postgres else _one)(size, args.keep or Path(scratch))
    print(account.table())
    print(*problems, sep="\n")
    print("NOT WHOLE" if problems else "whole", f"(seed {size.seed})")
    return 1 if problems else 0


def _one(size: Size, folder: Path) -> tuple[Account, list[str]]:
    with clouds(*ALL, seed=size.seed, share=size.share) as there, gateway(folder, there.environ) as served:
        random = Random(f"{size.seed} troubles")
        troubles = Troubles(troubles_of([served], random, folder / "data"), random)
        account = chaos(size, there, Killer([served], Random(f"{size.seed} kills")), served.base_url, troubles)
        return account, [*account.problems(), *served.crashes()]


def _two(size: Size, folder: Path) -> tuple[Account, list[str]]:
    with postgres() as database, clouds(*ALL, seed=size.seed, share=size.share) as there:
        environ = {**there.environ, "DARKROOM_GATEWAY__LEDGER_URL": database.url}
        with gateway(folder, environ) as one, gateway(folder, environ) as two, front(one.port, two.port) as before:
            killer = Killer([one, two], Random(f"{size.seed} kills"), for_good=(size.kills + 1) // 2)
            random = Random(f"{size.seed} troubles")
            troubles = Troubles(troubles_of([one, two], random, folder / "data", database), random)
            account = chaos(size, there, killer, before.base_url, troubles)
            return account, [*account.problems(), *one.crashes(), *two.crashes()]


if __name__ == "__main__":
    sys.exit(main())
