"""``report``: a study as one web page that works without a network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ptydask.cli import arguments

_EPILOG = """\
The page holds the summary, a table of all trials to sort and filter, the plots, the best images beside each
other, and a page for each trial. It is one file: open it, copy it, send it; nothing is fetched from anywhere.
The best trials come with a large image and probe, all others with a thumbnail."""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add report to the command line; it sets ``handler(args) -> int``."""
    parser = arguments.add_command(
        subparsers, "report", "write a web page of a results file, for any browser", more=_EPILOG
    )
    parser.add_argument("-o", "--output", type=Path, metavar="NAME.html", help="default: beside FILE.h5, same name")
    parser.add_argument(
        "--images",
        type=arguments.natural,
        default=100,
        metavar="N",
        help="trials with a large image, the best first (default: 100)",
    )
    arguments.add_stage(parser)
    parser.set_defaults(handler=run_report, elsewhere="place with -o NAME.html")


def run_report(args: argparse.Namespace) -> int:
    """``ptydask report``: 0; prints where the page is."""
    out: Path = args.output or arguments.path_beside_file(args, ".html")
    from ptydask.analysis import report
    from ptydask.cli import inspect

    with inspect.open_results(args.file, args.stage) as results:
        report.write(results, out, images=args.images)
    size = out.stat().st_size / 1e6
    print(out)
    print(f"{size:.1f} MB; open it in any browser", file=sys.stderr)
    return 0
