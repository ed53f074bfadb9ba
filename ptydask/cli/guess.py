"""``guess``: what the patterns say of the microscope before anything is reconstructed."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.cli import arguments, formats
from ptydask.errors import PtydaskError, UsageError, require
from ptydask.formatting import shell_path

if TYPE_CHECKING:
    from ptydask.guess.measuring import Measured
    from ptydask.guess.report import Report
    from ptydask.guess.table import Guess, Value
    from ptydask.model import StudyPlan

_ORDER = ("conv_angle", "dx", "rotation", "meas_flipT", "C10", "C12a", "C12b")
"""Of the columns of several files."""
_EPILOG = """\
The bright-field disk of the mean pattern tells conv_angle by dx, or dx by conv_angle; the centres of mass of the
patterns tell how the scan lies to the detector; the images of single pixels (parallax, by fast-acbf) tell that, C10 and
C12. Trust is good, fair, or none: not determined. Nothing is reconstructed; of patterns beyond 4 GiB the rows in the
scan's middle are read.
Of several files, or a folder of them, a row each has what counts; one that cannot be guessed is named on stderr, and
the others are (exit code 1).
json and yaml have guesses, facts and warnings; of each guess parameter, value, deviation, method, trust, why,
file_value, unit; of several files an object of these by file, of one that cannot be guessed its error."""


def add_parsers(commands: Any) -> None:
    """Add guess to the command line; it sets ``handler(args) -> int``."""
    does = "guess the microscope's parameters from the patterns, without a reconstruction"
    parser = arguments.add_command(commands, "guess", does, more=_EPILOG, file=False)
    files = "PtyRAD's params file; several, or a folder of them, for one table of all"
    parser.add_argument("files", type=Path, nargs="+", metavar="PARAMS.yaml", help=files)
    parser.add_argument("--format", choices=("text", "json", "yaml"), default="text", help="default: text")
    parser.add_argument(
        "--write", type=Path, metavar="TUNED.yaml", help="write the params file with what is guessed otherwise"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="GUESS.png", help="draw what they are made from")
    parser.add_argument("--no-parallax", action="store_true", help="leave out parallax, which takes most of the time")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.set_defaults(handler=guess_command)


def guess_command(args: argparse.Namespace) -> int:
    """``ptydask guess``: 0, also where nothing can be told; 1 where one of several files cannot be guessed."""
    from ptydask.cli.run import study_files
    from ptydask.guess.measuring import has_parallax
    from ptydask.progress.plan_text import looking_line

    _check_outputs(args)
    files = study_files(args.files)
    if len(files) > 1 and (args.write, args.output) != (None, None):
        raise UsageError("--write and -o are for one file: name it, and not a folder")
    require("scipy", "guesses need", "guess")
    parallax = not args.no_parallax and has_parallax()
    if len(files) > 1:
        return _guess_each(files, args.format, parallax=parallax)
    plan = _load(files[0])
    if parallax:
        formats.print_stderr(looking_line(1))
    measured = _measure(plan, parallax=parallax)
    if not parallax and not args.no_parallax:
        formats.print_stderr("without parallax, and C10: it needs fast-acbf (pip install 'ptydask[guess]')")
    if args.format == "text":
        _print_report(measured.report)
    else:
        formats.print_text(formats.object_text(report_object(measured.report), args.format))
    if args.write is not None:
        own = plan.results.with_name(f"{args.write.stem}.h5")
        _write_params(args.write, plan, own, measured.report)
        # The study is called as before: what it has found with other values stays where it is.
        apart = f" -o {shell_path(own)}" if own != plan.results else ""
        formats.print_stderr(f"now: python -m ptydask run {shell_path(args.write)}{apart}")
    if args.output is not None:
        from ptydask.analysis import figures, guess_figure

        figures.save(guess_figure.draw(measured), args.output)
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Before the patterns are looked at, which takes a while."""
    from ptydask.analysis.export import place

    for path in (args.write, args.output):
        if path is not None:
            place.check_output_path(path, replace=args.force)
    if args.write is not None and args.write.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"--write {args.write}: the params file is written as YAML; give a name that ends in .yaml")
    if args.output is not None:
        from ptydask.analysis import figures

        figures.check_suffix(args.output)


def _load(path: Path) -> StudyPlan:
    from ptydask import config

    plan = config.load(path)
    if "init_params" not in plan.config:
        raise UsageError(f"{path}: guesses are for PtyRAD's params files")
    return plan


def _measure(plan: StudyPlan, *, parallax: bool) -> Measured:
    from ptydask.engines import naming_file
    from ptydask.guess.measuring import guess_params

    with naming_file(plan):
        return guess_params(plan.config["init_params"], parallax=parallax)


def _guess_each(files: Sequence[Path], form: str, *, parallax: bool) -> int:
    """A row, or an object, for each file; 1 where one cannot be guessed."""
    from ptydask.progress.plan_text import looking_line

    if parallax:
        formats.print_stderr(looking_line(len(files)))
    reports: dict[Path, Report] = {}
    errors: dict[Path, PtydaskError] = {}
    for path in files:
        try:
            reports[path] = _measure(_load(path), parallax=parallax).report
        except PtydaskError as error:
            errors[path] = error
            formats.print_stderr(str(error))
    if form == "text":
        _print_reports(reports)
    else:
        objects = {
            str(path): report_object(reports[path]) if path in reports else {"error": str(errors[path])}
            for path in files
        }
        formats.print_text(formats.object_text(objects, form))
    return 1 if errors else 0


def _print_reports(reports: Mapping[Path, Report]) -> None:
    if not reports:
        return
    chosen = {path: report.chosen() for path, report in reports.items()}
    units = {one.parameter: one.unit for guesses in chosen.values() for one in guesses.values()}
    names = [name for name in _ORDER if name in units]
    columns = ("FILE", *(", ".join(filter(None, (name, units[name]))) for name in names), "FILE HAS")
    rows = tuple((str(path), *_chosen_cells(guesses, names)) for path, guesses in chosen.items())
    formats.write_table(formats.Table(columns, rows, frozenset(range(1, len(names) + 1))), sys.stdout)
    formats.print_report("\n? fair  - not determined  FILE HAS: what its params file has otherwise\n")
    for path, report in reports.items():
        for warning in report.warnings:
            formats.print_report(f"{path}: warning: {warning}\n")


def _chosen_cells(guesses: Mapping[str, Guess], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if (one := guesses.get(name)) is None:
            yield "-"
        else:
            yield " +- ".join(filter(None, _number_cells(one))) + (" ?" if one.trust == "fair" else "")
    yield ", ".join(
        f"{one.parameter} {_value_text(one.file_value, None)}" for one in guesses.values() if not one.agrees
    )


def _write_params(path: Path, plan: StudyPlan, results: Path, report: Report) -> None:
    from ptydask.config.ptyrad.guessed_file import FLIPS, guessed_text
    from ptydask.guess.points import values_to_write
    from ptydask.store import files

    chosen = {name: one for name, one in report.chosen().items() if not one.agrees}
    values = values_to_write(chosen, plan.space)
    flips = chosen[FLIPS].value if FLIPS in chosen else None
    lines = [f"{path.name} follows {plan.source.path.name}, with guesses from its patterns:"]
    for one in chosen.values():
        if one.parameter in values or one.parameter == FLIPS:
            written = _value_text(values.get(one.parameter, one.value), None)
            guess = " +- ".join(filter(None, _number_cells(one)))
            says = "" if written == guess else f"{guess} {one.unit} "
            own = _value_text(one.file_value, None)
            lines.append(f"{one.parameter} = {written} ({says}by {one.method}, {one.trust}); it was {own}")
    if len(lines) == 1:
        lines = [f"{path.name} is {plan.source.path.name}: the patterns say nothing else."]
    lines += [f"warning: {warning}" for warning in report.warnings]
    if results != plan.results:
        lines.append(f"study_name and output_dir are as they were: without -o its trials go to {plan.results.name}.")
    text = guessed_text(plan.source, values, flips if isinstance(flips, tuple) else None, lines)
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
    methods = {name: one.method for name, one in report.chosen().items()}
    used = [methods.get(one.parameter) == one.method for one in report.guesses]
    rows = tuple(
        (
            *(f"{one.parameter} *" if mark else one.parameter, _value_text(one.file_value, None), *_number_cells(one)),
            *(one.unit, one.method, one.trust),
        )
        for one, mark in zip(report.guesses, used, strict=True)
    )
    styles = tuple("best" if mark else "" for mark in used)
    formats.write_table(formats.Table(columns, rows, frozenset({1, 2, 3}), styles), sys.stdout)
    formats.print_report(
        "\n* what counts: --write and run --guess use these\n" if any(used) else "\nnothing to be used\n"
    )
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
    if deviation is None:
        rounded = float(f"{value:.4g}")
        return f"{rounded:.0f}" if 1e4 <= abs(rounded) < 1e7 else f"{rounded:g}"
    # A digit beyond the deviation's first.
    decimals = min(max(0, 1 - math.floor(math.log10(deviation))), 6) if deviation else 3
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # no -0.00
