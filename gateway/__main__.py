"""The `darkroom` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.names import NONE
from gateway.settings.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 2 for an invalid command line or config."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["worker"]:
        # Before any gateway module is imported: workers start often, and need none of them.
        from providers.worker import main as worker

        return worker.run(arguments[1:])
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.command == "jobs" and (problem := _purge_problem(args)) is not None:
        parser.error(problem)
    if args.config:
        os.environ["DARKROOM_CONFIG"] = str(args.config)
    if args.command == "serve" and args.no_auth:
        os.environ["DARKROOM_GATEWAY__AUTH"] = "none"
    try:
        if args.command == "serve":
            from gateway.cli import serve

            return serve.serve(args.host, args.port, args.workers)
        if args.command == "route":
            from gateway.cli import explain

            return explain.route(args.url, args.image, args.fields)
        if args.command in ("jobs", "costs"):
            return _reports(args)
        if args.command == "keys":
            return _keys(args)
        from gateway.cli import check

        return check.check(quiet=args.quiet, markdown=args.markdown)
    except ConfigError as error:
        print(f"darkroom: invalid configuration\n{error}", file=sys.stderr)
        return 2


def _purge_problem(args: argparse.Namespace) -> str | None:
    """Why the options of `jobs` cannot be combined, or None: a purge cannot be undone, so its options must be clear."""
    if not args.purge:
        return None if args.before is None else "--before requires --purge"
    if args.before is None:
        return "--purge requires --before, such as --before 30d"
    chosen = [name for name in ("id", "state", "model", "provider", "key", "since") if getattr(args, name) is not None]
    return f"--purge selects jobs by age only and cannot be combined with: {', '.join(chosen)}" if chosen else None


def _reports(args: argparse.Namespace) -> int:
    import time

    from gateway.cli import ledger
    from gateway.ledger.reports import JobFilter

    since = max(0.0, time.time() - args.since) if args.since is not None else None
    if args.command == "costs":
        return ledger.costs(args.by, since, as_json=args.json)
    if args.purge:
        return ledger.purge(max(0.0, time.time() - args.before), as_json=args.json)
    if args.id is not None:
        return ledger.job(args.id, as_json=args.json)
    job_filter = JobFilter(key=args.key, model=args.model, provider=args.provider, state=args.state, since=since)
    return ledger.jobs(job_filter, limit=args.limit, as_json=args.json)


def _keys(args: argparse.Namespace) -> int:
    from gateway.cli import keys

    match args.action:
        case "create":
            return keys.create(args, as_json=args.json)
        case "list":
            return keys.show_all(as_json=args.json)
        case "change":
            return keys.change(args, as_json=args.json)
        case "show":
            return keys.show(args.id, as_json=args.json)
        case _:
            return keys.revoke(args.id, as_json=args.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="darkroom", description="An OpenAI-compatible gateway for image editing.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the gateway, with its embedded worker")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    serve.add_argument("--workers", type=int, default=1, help="gateway processes (default: %(default)s)")
    serve.add_argument(
        "--no-auth",
        action="store_true",
        help="serve requests without an API key, even those that cost money (loopback only)",
    )
    check = commands.add_parser("check", help="validate the config and print the table of parameters")
    how = check.add_mutually_exclusive_group()
    how.add_argument("--quiet", action="store_true", help="print errors only")
    how.add_argument("--markdown", action="store_true", help="print the page docs/models.md")
    route = commands.add_parser("route", help="ask a running gateway how it would serve a request")
    route.add_argument("image", type=Path, metavar="IMAGE", help="the image file")
    route.add_argument(
        "fields", nargs="*", metavar="NAME=VALUE", help="fields, such as model=clarity-upscaler scale_factor=4"
    )
    route.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway's address (default: %(default)s)")
    route.set_defaults(config=None)
    commands.add_parser("worker", help="run a local worker (see: darkroom worker --help)")
    jobs = commands.add_parser("jobs", help="list the recorded jobs, or show one in full")
    jobs.add_argument("id", nargs="?", metavar="ID", help="a job's id, as in the response's `id`")
    jobs.add_argument("--state", choices=("queued", "in_progress", "completed", "failed", "cancelled"))
    for name in ("model", "provider", "key"):
        jobs.add_argument(f"--{name}", help=f"only jobs with this {'API key id' if name == 'key' else name}")
    jobs.add_argument("--limit", type=_count, default=20, help="how many jobs to list (default: %(default)s)")
    jobs.add_argument("--purge", action="store_true", help="delete the jobs that ended longer ago than --before")
    jobs.add_argument("--before", type=_age, metavar="AGE", help="with --purge: an age such as 30d")
    costs = commands.add_parser("costs", help="sum up what was spent")
    costs.add_argument("--by", choices=("provider", "model", "key", "day"), default="provider")
    keys = commands.add_parser("keys", help="manage API keys, their limits and budgets")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="create an API key and print it; it is not shown again")
    create.add_argument("--name", required=True, help="a label, such as the owner's name")
    create.add_argument("--admin", action="store_true", help="allow it to see all jobs, read /metrics and create keys")
    create.add_argument(
        "--keep", action="store_true", help="also save it in the data folder, for the darkroom commands on this machine"
    )
    change = actions.add_parser(
        "change", help="change a key's limits; `none` removes a limit, options not given stay unchanged"
    )
    for action in (create, change):
        action.add_argument(
            "--budget", type=_or_none(str), metavar="USD/PERIOD", help="such as 25/month, 2.50/day, or 100 in total"
        )
        action.add_argument("--rpm", type=_or_none(_count), metavar="N", help="requests per minute")
        action.add_argument("--concurrency", type=_or_none(_count), metavar="N", help="concurrent jobs")
        action.add_argument("--models", type=_or_none(_names), metavar="A,B", help="allow only these models")
        action.add_argument("--providers", type=_or_none(_names), metavar="A,B", help="allow only these providers")
        action.add_argument("--expires", type=_or_none(_moment), metavar="WHEN", help="such as 30d or 2027-01-31")
    every = actions.add_parser("list", help="list all keys, without their secrets")
    one = actions.add_parser("show", help="show one key and what it has spent")
    revoke = actions.add_parser("revoke", help="revoke a key")
    for action in (change, one, revoke):
        action.add_argument("id", metavar="ID", help="the key's id, such as key_0123456789abcdef")
    for action in (create, change, every, one, revoke):
        action.add_argument("--json", action="store_true", help="print JSON")
    for command in (jobs, costs):
        command.add_argument("--since", type=_age, metavar="AGE", help="only the last 90s, 30m, 24h, 7d, …")
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (serve, check, jobs, costs, create, change, every, one, revoke):
        command.add_argument("--config", type=Path, help="the config folder (default: DARKROOM_CONFIG, or the shipped)")
    return parser


def _count(text: str) -> int:
    """Parse a positive number."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 100000")
    return int(text)


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap a parser to accept `none`, which gives NONE: argparse uses None for an option that was not given."""

    def wrapped(text: str) -> Any:
        return NONE if text == "none" else read(text)

    return wrapped


def _names(text: str) -> list[str]:
    """Parse names separated by commas."""
    return [name for part in text.split(",") if (name := part.strip())]


def _moment(text: str) -> float:
    """Parse a future time, given as a duration or a date, into seconds since the epoch."""
    import time
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return time.time() + _age(text)
        except argparse.ArgumentTypeError:
            message = f"invalid time {text!r}: expected one such as 30d, 2027-01-31 or 2027-01-31T12:00:00Z"
            raise argparse.ArgumentTypeError(message) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _age(text: str) -> float:
    """Parse an age such as 24h into seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
    if text[-1:] not in units or not text[:-1].isascii() or not text[:-1].isdigit():
        raise argparse.ArgumentTypeError(f"invalid age {text!r}: expected a number and s, m, h, d or w, such as 24h")
    return float(text[:-1]) * units[text[-1]]


if __name__ == "__main__":
    sys.exit(main())
