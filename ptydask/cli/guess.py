"""``guess``: what the patterns say of the microscope before anything is reconstructed."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.cli import arguments, formats
from ptydask.errors import UsageError, require
from ptydask.formatting import shell_path

if TYPE_CHECKING:
    from ptydask.guess.report import Report
    from ptydask.guess.table import Guess, Value
    from ptydask.model import SourceFile

_EPILOG = """\
The bright-field disk of the mean pattern tells conv_angle by dx, or dx by conv_angle; the centres of mass of the
patterns tell how the scan lies to the detector; the images of single pixels (parallax, by fast-acbf) tell that, C10 and
C12. Trust is good, fair, or none: not determined. Nothing is reconstructed; of patterns beyond 4 GiB the rows in the
scan's middle are read.
json and yaml have guesses, facts and warnings; of each guess parameter, value, deviation, method, trust, why,
file_value, unit."""


def add_parsers(commands: Any) -> None:
    """Add guess to the command line; it sets ``handler(args) -> int``."""
    does = "guess the microscope's parameters from the patterns, without a reconstruction"
    parser = arguments.add_command(commands, "guess", does, more=_EPILOG, file=False)
    parser.add_argument("file", type=Path, metavar="PARAMS.yaml", help="PtyRAD's params file")
    parser.add_argument("--format", choices=("text", "json", "yaml"), default="text", help="default: text")
    parser.add_argument(
        "--write", type=Path, metavar="TUNED.yaml", help="write the params file with what is guessed otherwise"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="GUESS.png", help="draw what they are made from")
    parser.add_argument("--no-parallax", action="store_true", help="leave out parallax, which takes most of the time")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.set_defaults(handler=guess_command)


def guess_command(args: argparse.Namespace) -> int:
    """``ptydask guess``: 0, also where nothing can be told."""
    from ptydask import config
    from ptydask.engines import naming_file

    require("scipy", "guesses need", "guess")
    from ptydask.analysis.export import place
    from ptydask.guess.measuring import guess_params, has_parallax
    from ptydask.progress.plan_text import looking_line

    for path in (args.write, args.output):
        if path is not None:
            place.check_output_path(path, replace=args.force)
    if args.write is not None and args.write.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"--write {args.write}: the params file is written as YAML; give a name that ends in .yaml")
    if args.output is not None:
        from ptydask.analysis import figures

        figures.check_suffix(args.output)
    plan = config.load(args.file)
    if "init_params" not in plan.config:
        raise UsageError(f"{args.file}: guesses are for PtyRAD's params files")
    parallax = not args.no_parallax and has_parallax()
    if parallax:
        formats.print_stderr(looking_line(1))
    with naming_file(plan):
        measured = guess_params(plan.config["init_params"], parallax=parallax)
    if not parallax and not args.no_parallax:
        formats.print_stderr("without parallax, and C10: it needs fast-acbf (pip install 'ptydask[guess]')")
    if args.format == "text":
        _print_report(measured.report)
    else:
        formats.print_text(formats.object_text(report_object(measured.report), args.format))
    if args.write is not None:
        _write_params(args.write, plan.source, measured.report)
        # The study is called as before: what it has found with other values stays where it is.
        apart = f" -o {shell_path(plan.results.with_name(f'{args.write.stem}.h5'))}" if plan.results.exists() else ""
        formats.print_stderr(f"now: ptydask run {shell_path(args.write)}{apart}")
    if args.output is not None:
        from ptydask.analysis import guess_figure

        figures.save(guess_figure.draw(measured), args.output)
    return 0


def _write_params(path: Path, source: SourceFile, report: Report) -> None:
    from ptydask.config.ptyrad.guessed_file import FLIPS, guessed_text
    from ptydask.store import files

    chosen = {name: one for name, one in report.chosen().items() if not one.agrees}
    lines = [f"{path.name} follows {source.path.name}, with guesses from its patterns:"]
    for one in chosen.values():
        spread = "" if one.deviation is None else f" +- {one.deviation:.2g}"
        value, own = _value_text(one.value, one.deviation), _value_text(one.file_value, None)
        lines.append(f"{one.parameter} = {value}{spread} {one.unit} by {one.method} ({one.trust}); it was {own}")
    values = {name: round(one.value, 6) for name, one in chosen.items() if isinstance(one.value, float)}
    flips = chosen[FLIPS].value if FLIPS in chosen else None
    text = guessed_text(source, values, flips if isinstance(flips, tuple) else None, lines)
    files.write_text(path, text, durable=False)


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
    columns = ("PARAMETER", "FILE", "GUESS", "+-", "UNIT", "METHOD", "TRUST")
    rows = tuple(
        (one.parameter, _value_text(one.file_value, None), *_number_cells(one), one.unit, one.method, one.trust)
        for one in report.guesses
    )
    formats.write_table(formats.Table(columns, rows, frozenset({1, 2, 3})), sys.stdout)
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in report.guesses:
        if one.why:
            reasons.setdefault((one.method, one.why), []).append(one.parameter)
    print()
    for (method, why), names in reasons.items():
        formats.print_report(f"{', '.join(names)} by {method}: {why}\n")
    if reasons:
        print()
    facts = tuple((one.parameter, *_number_cells(one), one.unit, one.why) for one in report.facts)
    formats.write_table(formats.Table(("MEASURED", "VALUE", "+-", "UNIT", ""), facts, frozenset({1, 2})), sys.stdout)
    if report.warnings:
        print()
    for warning in report.warnings:
        formats.print_report(f"warning: {warning}\n")


def _number_cells(guess: Guess) -> tuple[str, str]:
    return _value_text(guess.value, guess.deviation), "" if guess.deviation is None else f"{guess.deviation:.2g}"


def _value_text(value: Value, deviation: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    # A digit beyond the deviation's first.
    decimals = 3 if not deviation else max(0, 1 - math.floor(math.log10(deviation)))
    decimals = min(decimals, 6)
    return f"{value:.4g}" if deviation is None else f"{round(value, decimals) + 0.0:.{decimals}f}"  # no -0.00
