"""The `darkroom` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.mistakes import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status. What is wrong with the command line or the config is 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["worker"]:
        # Before anything of the gateway is imported: a worker starts many times and needs none of it.
        from providers.worker import main as worker

        return worker.run(arguments[1:])
    args = _parser().parse_args(arguments)
    if args.config:
        os.environ["DARKROOM_CONFIG"] = str(args.config)
    try:
        if args.command == "serve":
            from gateway import serve

            return serve.serve(args.host, args.port, args.workers)
        if args.command == "route":
            from gateway import route

            return route.route(args.url, args.picture, args.fields)
        from gateway import check

        return check.check(quiet=args.quiet, markdown=args.markdown)
    except ConfigError as error:
        print(f"darkroom: the configuration cannot be used\n{error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="darkroom", description="An OpenAI-compatible gateway for image editing.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the gateway, with its embedded worker")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    serve.add_argument("--workers", type=int, default=1, help="gateway processes (default: %(default)s)")
    check = commands.add_parser("check", help="check the config and print the table")
    how = check.add_mutually_exclusive_group()
    how.add_argument("--quiet", action="store_true", help="print nothing but mistakes")
    how.add_argument("--markdown", action="store_true", help="print the page docs/models.md")
    route = commands.add_parser("route", help="ask a running gateway how it would serve a request")
    route.add_argument("picture", type=Path, metavar="PICTURE")
    route.add_argument("fields", nargs="*", metavar="NAME=VALUE", help="such as model=clarity-upscaler scale_factor=4")
    route.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway (default: %(default)s)")
    route.set_defaults(config=None)
    commands.add_parser("worker", help="run a local worker (see: darkroom worker --help)")
    for command in (serve, check):
        command.add_argument("--config", type=Path, help="the config folder (default: DARKROOM_CONFIG, or the shipped)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
