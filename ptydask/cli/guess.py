"""``guess``: what the patterns say of the microscope before anything is reconstructed."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.cli import arguments, formats
from ptydask.errors import UsageError, require

if TYPE_CHECKING:
    from ptydask.guess.table import Guess, Report, Value

_EPILOG = """\
The bright-field disk of the mean pattern tells conv_angle by dx, or dx by conv_angle; the centres of mass of the
patterns tell how the scan lies to the detector. Trust is good, fair, or none: not determined. Nothing is
reconstructed; of patterns beyond 4 GiB the rows in the scan's middle are read.
json and yaml have guesses, facts and warnings; of each guess parameter, value, deviation, method, trust, why,
file_value, unit."""


def add_parsers(commands: Any) -> None:
    """Add guess to the command line; it sets ``handler(args) -> int``."""
    does = "guess the microscope's parameters from the patterns, without a reconstruction"
    parser = arguments.add_command(commands, "guess", does, more=_EPILOG, file=False)
    parser.add_argument("file", type=Path, metavar="PARAMS.yaml", help="PtyRAD's params file")
    parser.add_argument("--format", choices=("text", "json", "yaml"), default="text", help="default: text")
    parser.set_defaults(handler=guess_command)


def guess_command(args: argparse.Namespace) -> int:
    """``ptydask guess``: 0, also where nothing can be told."""
    from ptydask import config
    from ptydask.engines import naming_file

    require("scipy", "guesses need", "guess")
    from ptydask.guess.measuring import guess_params

    plan = config.load(args.file)
    if "init_params" not in plan.config:
        raise UsageError(f"{args.file}: guesses are for PtyRAD's params files")
    with naming_file(plan):
        measured = guess_params(plan.config["init_params"])
    if args.format == "text":
        _print_report(measured.report)
    else:
        formats.print_text(formats.object_text(report_object(measured.report), args.format))
    return 0


def report_object(report: Report) -> dict[str, Any]:
    """A report as plain values."""
    return {
        "guesses": [_guess_object(one) for one in report.guesses],
        "facts": [_guess_object(one) for one in report.facts],
        "warnings": list(report.warnings),
    }


def _guess_object(guess: Guess) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(guess).items()}


def _print_report(report: Report) -> None:
    _print_table(("PARAMETER", "FILE", "GUESS", "+-", "UNIT", "METHOD", "TRUST", "WHY"), report.guesses)
    print()
    _print_table(("MEASURED", "", "VALUE", "+-", "UNIT", "METHOD", "TRUST", "WHY"), report.facts)
    if report.warnings:
        print()
    for warning in report.warnings:
        formats.print_report(f"warning: {warning}\n")


def _print_table(columns: tuple[str, ...], guesses: Sequence[Guess]) -> None:
    rows = tuple(
        (
            one.parameter,
            _value_text(one.file_value, None),
            _value_text(one.value, one.deviation),
            "" if one.deviation is None else f"{one.deviation:.2g}",
            one.unit,
            one.method,
            one.trust,
            one.why,
        )
        for one in guesses
    )
    formats.write_table(formats.Table(columns, rows, frozenset({1, 2, 3})), sys.stdout)


def _value_text(value: Value, deviation: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    # A digit beyond the deviation's first.
    decimals = 3 if not deviation else max(0, 1 - math.floor(math.log10(deviation)))
    return f"{value:.4g}" if deviation is None else f"{value:.{min(decimals, 6)}f}"
