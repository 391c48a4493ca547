"""`make demo`: four simulated providers, the gateway before them, and switches to break them with."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack

from gateway.__main__ import main as darkroom
from tests.demo.switches import Switches
from tests.simulators.base import Simulated, wiring
from tests.simulators.clouds import CLOUDS
from tests.simulators.common import serve

# So that a provider which was broken and mended is soon tried again.
_FORGIVING = {
    "DARKROOM_GATEWAY__ACCOUNT_SUSPEND_S": "20",
    "DARKROOM_GATEWAY__BREAKER_EJECTION_S": "10",
    "DARKROOM_GATEWAY__SUBMIT_TIMEOUT_S": "8",
    "DARKROOM_PROVIDERS__LOCAL__WORKERS": "[]",
}
_HELP = """
Four simulated providers stand behind the gateway: nothing leaves this machine, and nothing costs money.

Who would serve a call, and at what price, without buying anything:
  .venv/bin/darkroom route tests/data/coffee.png model=clarity-upscaler scale_factor=4 --url {root}
  curl -s '{edits}?dry_run=true' -F model=clarity-upscaler -F width=600 -F height=400

The cheapest serves it; a small picture has another cheapest than a large one:
  curl -s {edits} -F model=clarity-upscaler -F image=@tests/data/coffee.png \\
    -F 'prompt=a cup of espresso' -F size=1024x1024 -F response_format=url

Break a provider and call again; metadata.attempts tells the story:
  curl -X POST {control}/replicate/down
  (providers: {providers}; switches: {switches})

What each provider was asked, took and bills:
  curl -s {control}/

Ctrl-C ends it all.
"""


# What a job takes at each, as shares of --seconds: waiting, and at work.
_SHARES = {"replicate": (0.2, 1.0), "fal": (0.2, 0.6), "segmind": (0.1, 1.2), "apiframe": (0.3, 1.4)}


def providers(seconds: float) -> dict[str, Simulated]:
    """All of them; a job takes about so many seconds, at each a little different."""
    return {
        name: kind().timed(queue_s=seconds * queue, run_s=seconds * run)
        for name, kind in CLOUDS.items()
        for queue, run in [_SHARES.get(name, (0.2, 1.0))]
    }


def main() -> int:
    """Run until a signal; return the exit status of `darkroom serve`."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="the gateway's port (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="how long a job takes (default: %(default)s)")
    args = parser.parse_args()
    with ExitStack() as stack:
        sims = providers(args.seconds)
        for sim in sims.values():
            stack.enter_context(sim.running())
        control = stack.enter_context(serve(Switches(sims).app)).url
        data = stack.enter_context(tempfile.TemporaryDirectory())
        # What the environment says of patience holds.
        os.environ.update({**_FORGIVING, **os.environ, **wiring(sims.values()), "DARKROOM_DATA": data})
        root = f"http://127.0.0.1:{args.port}"
        edits = f"{root}/openai/v1/images/edits"
        names, words = ", ".join(sims), ", ".join(Switches.WORDS)
        text = _HELP.format(root=root, edits=edits, control=control, providers=names, switches=words)
        print(text, flush=True)
        return darkroom(["serve", "--port", str(args.port)])


if __name__ == "__main__":
    sys.exit(main())
