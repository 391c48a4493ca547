"""`make chaos`: calls under faults and kills, and the account of what was bought. The exit status is 1 for any gap."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.chaos.gateway import gateway
from tests.chaos.providers import clouds
from tests.chaos.run import FULL, Killer, Size, chaos
from tests.weather.world import ALL


def main() -> int:
    """Run, and print the account as it comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Calls under faults and kills.")
    parser.add_argument("--calls", type=int, default=FULL.calls)
    parser.add_argument("--kills", type=int, default=FULL.kills)
    parser.add_argument("--seed", type=int, default=Random().randrange(10**6), help="draws everything (default: any)")
    parser.add_argument("--share", type=float, default=FULL.share, help="of requests that go wrong, 0 to 1")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and ledger, which stay there")
    args = parser.parse_args()
    # A simulator that is stopped while it hangs says so at length.
    logging.getLogger("uvicorn.error").disabled = True
    size = Size(calls=args.calls, kills=args.kills, seed=args.seed, share=args.share)
    with tempfile.TemporaryDirectory() as scratch:
        return _run(size, args.keep or Path(scratch))


def _run(size: Size, folder: Path) -> int:
    with clouds(*ALL, seed=size.seed, share=size.share) as there, gateway(folder, there.environ) as served:
        account = chaos(size, there, Killer([served], Random(f"{size.seed} kills")), served.base_url)
        problems = [*account.problems(), *served.crashes()]
    print(account.table())
    print(*problems, sep="\n")
    print("NOT WHOLE" if problems else "whole", f"(seed {size.seed})")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
