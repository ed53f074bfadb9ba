"""``confirm``: the best trials once more with other seeds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ptydask.cli import arguments, formats
from ptydask.cli import run as run_study
from ptydask.errors import UsageError
from ptydask.stop_signals import StopSignals, Terminated

EXAMPLES = """\
examples:
  ptydask confirm FILE.h5 --workers 4                 the five best trials, with three other seeds each
  ptydask confirm FILE.h5 --top 8 --seeds 5           more of both: only what is missing is run
  ptydask confirm FILE.h5 --trials 3,18 --frc         these, and each of them from both halves of the data
  ptydask confirm FILE.h5 --stage final --frc         of a study with stages: to which detail its picture comes back
  ptydask confirm FILE.h5 --cluster slurm --dry-run   what would happen, and the job script
"""


def add_parsers(commands: Any) -> None:
    """Add the command of this module."""
    does = "run the best trials once more with other seeds: is the best one better, or was it lucky?"
    says = "Run the best trials once more with other seeds, and say which differ by more than luck. What the repeats "
    says += "say is kept in the same file. The same command again goes on where it stopped."
    parser = arguments.add_command(commands, "confirm", does, says=says, more=EXAMPLES)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--top", type=arguments.parse_count, default=5, metavar="K", help="how many of the best trials (default: 5)"
    )
    which.add_argument(
        "--trials", type=_numbers, default=(), metavar="N,N,...", help="the numbers of trials, instead of the best"
    )
    parser.add_argument(
        "--seeds", type=arguments.parse_count, default=3, metavar="N", help="with how many seeds each (default: 3)"
    )
    parser.add_argument(
        "--frc",
        action="store_true",
        help="also from each half of the data alone, for the Fourier ring correlation of the two",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="a key of the study's configuration that has changed since, such as where the data are",
    )
    parser.add_argument(
        "--stage",
        default="",
        metavar="NAME",
        help="of a study with stages: which one (default: the last one that tuned something)",
    )
    run_study.add_place_arguments(parser)
    parser.set_defaults(handler=confirm_command)


def _numbers(text: str) -> tuple[int, ...]:
    """``3,18`` as numbers."""
    numbers = [arguments.digits(part.strip()) for part in text.split(",")]
    if None in numbers:
        raise argparse.ArgumentTypeError(f"{text!r} must be trials' numbers with commas between them: 3,18")
    return tuple(number for number in numbers if number is not None)


def confirm_command(args: argparse.Namespace) -> int:
    """``ptydask confirm``."""
    try:
        with StopSignals() as stop:
            return _confirm_study(args, stop)
    except Terminated:
        return 75


def _confirm_study(args: argparse.Namespace, stop: StopSignals) -> int:
    from ptydask import confirming
    from ptydask.config import Overrides, parse_setting
    from ptydask.driver.confirmation import ConfirmOptions
    from ptydask.driver.contract import TIME_IS_OVER
    from ptydask.progress.view import make_view

    if len(set(args.trials)) < len(args.trials):
        raise UsageError("--trials: a trial is named twice")
    view = make_view(sys.stderr)
    settings = tuple(parse_setting(text) for text in args.settings)
    request = run_study.make_request(args, args.file, Overrides(settings=settings))
    options = ConfirmOptions(args.top, args.seeds, args.trials, args.frc, args.stage)
    prepared = confirming.announce(request, options, view)
    if args.dry_run:
        if not prepared.finished:
            run_study.show_job(prepared.run, view)
        return 0
    failed = 0
    if not prepared.finished:
        outcome = confirming.carry_out(prepared, view, stop)
        if not outcome.complete:
            view.notice(TIME_IS_OVER)
            return 75
        failed = outcome.failed
    _print_verdict(prepared.study, prepared.stage)
    return 3 if failed else 0


def _print_verdict(path: Path, stage: str) -> None:
    """What the repeats say, in words, and where they are."""
    from ptydask.analysis import confirmation
    from ptydask.store import reader

    with reader.open(path, stage) as results:
        confirmed = confirmation.Confirmation.of(results)
    if confirmed is not None:
        formats.print_report("".join(f"{line}\n" for line in confirmation.verdict_lines(confirmed)))
    print(f"results   {path}")
