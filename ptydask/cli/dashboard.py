"""``dashboard``: a results file in optuna-dashboard."""

from __future__ import annotations

import argparse
import ipaddress
from typing import Any

from ptydask.cli import arguments, formats

_EPILOG = """\
On a cluster's login node: start it there with --port 8080, then, on your own machine,
  ssh -L 8080:127.0.0.1:8080 LOGIN-NODE
and open http://127.0.0.1:8080/dashboard/. Ctrl-C ends it. Nothing that is done in the page changes the file."""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add ``dashboard`` to the command line; it sets ``handler(args) -> int``."""
    says = "Show a study in optuna-dashboard, in a web browser; trials of a running study appear as they end."
    does = "open a results file in optuna-dashboard"
    parser = arguments.add_command(subparsers, "dashboard", does, says=says, more=_EPILOG)
    parser.add_argument(
        "--port",
        type=arguments.whole_number(0, 65535),
        metavar="N",
        help="default: 8080, or a free one where that is taken; 0: a free one",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="default: 127.0.0.1, for this machine alone; 0.0.0.0 lets everybody in who reaches this machine",
    )
    arguments.add_stage(parser, arguments.LAST_TUNED)
    parser.set_defaults(handler=run_dashboard)


def run_dashboard(args: argparse.Namespace) -> int:
    """``ptydask dashboard``: 130, since it is Ctrl-C that ends it."""
    from ptydask.analysis.dashboard import DashboardServer

    server = DashboardServer(args.file, args.host, args.port, args.stage)
    if not _is_loopback(args.host):
        formats.print_stderr(
            f"--host {args.host}: everybody who reaches this machine can look at the study, without a password"
        )
    formats.print_text(f"{server.url}\n")
    formats.print_stderr("Ctrl-C ends it" + ("; trials appear as they end" if server.follower.live else ""))
    try:
        server.run()
    except KeyboardInterrupt:
        return 130
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
