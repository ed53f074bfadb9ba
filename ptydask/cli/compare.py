"""``compare``: the best of several studies side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ptydask.cli import arguments, formats
from ptydask.formatting import size_text

_MORE = """\
formats:
  table  a row a study: file, trial, error, its mean with other seeds where there is one, parameters, where their
         optimum is by the slopes, settings that differ, data
  json   an object a study, every digit; 'values' with what earlier stages found, 'tuned' what was tuned
  csv    the same, a line a study: params.NAME, metrics.NAME, optimum.NAME, deviation.NAME, settings.KEY

Below the table it says whether the errors can be compared (not those of other metrics, engines, data or
settings), and whether the optima agree. A folder stands for the results files in it. A file that cannot be
read is named on stderr, and the others are compared (exit code 1)."""


def add_parsers(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add compare to the command line; it sets ``handler(args) -> int``."""
    parser = arguments.add_command(
        subparsers, "compare", "put the best of several studies side by side", more=_MORE, file=False
    )
    files = "results files, of running studies too, or folders of them"
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.h5", help=files)
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: table")
    parser.add_argument("-o", "--output", type=Path, metavar="NAME.html", help="also a web page with their images")
    scale = "grey scale of the images: one for all (default), or each its own"
    parser.add_argument("--scale", choices=("common", "each"), default="common", help=scale)
    parser.set_defaults(handler=run_compare, elsewhere="place with -o NAME.html")


def run_compare(args: argparse.Namespace) -> int:
    """``ptydask compare``: 0; 1 where a file cannot be read, or no trial of a study has completed."""
    from ptydask import comparing
    from ptydask.analysis import comparison

    if args.output is not None:
        from ptydask.analysis.report import comparison_page

        comparison_page.check_page_name(args.output)
    compared = comparing.compare_studies(args.files)
    for why in compared.unreadable.values():
        formats.print_stderr(why)
    if args.format == "json":
        formats.print_text(formats.json_text([study.to_object() for study in compared.studies]))
    elif args.format == "csv":
        columns = comparison.flat_columns(compared)
        formats.print_text(formats.csv_text(columns, map(comparison.flat_row, compared.studies)))
    else:
        styles = tuple("best" if study is compared.best else "" for study in compared.studies)
        table = formats.Table(compared.columns, tuple(compared.rows()), compared.numeric, styles)
        left_out = formats.write_table(table, sys.stdout)
        if left_out:
            formats.print_stderr(f"no room for {', '.join(left_out)}: widen the window, or choose --format csv")
        formats.print_report("".join(f"{note}\n" for note in compared.notes()))
    if args.format != "table":
        for note in compared.notes():
            formats.print_stderr(note)
    if args.output is not None:
        compared.report(args.output, scale=args.scale)
        formats.print_stderr(f"{args.output}: {size_text(args.output.stat().st_size)}; open it in any browser")
    return 1 if compared.unreadable or len(compared.with_best) < len(compared.studies) else 0
