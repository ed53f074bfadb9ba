"""The command line. Importing its modules imports the standard library alone, as ``--help`` has to answer at once.

The handlers import what they need.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ptydask import __version__
from ptydask.cli import (
    compare,
    confirm,
    dashboard,
    demo,
    export,
    formats,
    guess,
    info,
    inspect,
    merge,
    pictures,
    profile,
    ptyrad_import,
    report,
    run,
    upkeep,
)
from ptydask.cli import next as next_study
from ptydask.errors import PtydaskError, UnusableResults, UsageError, nearest_hint, redact
from ptydask.formatting import fit_text
from ptydask.stop_signals import BOTH, StopSignals

EXIT_CODES = """\
exit codes:
  0    done                          2    bad usage or a bad file: one line says what to change
  1    failed                        3    finished, but some trials failed
  75   stopped early; the same command goes on from there
  130  Ctrl-C; the same command goes on from there
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line. Options are written out: ``--seed`` is not short for ``--seeds``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """A command says itself what it does not know: its own --help is the one to look into."""
        known, extras = super().parse_known_args(args, namespace)
        if extras and self._subparsers is None:
            self.error(f"unrecognized arguments: {' '.join(extras)}")
        return known, extras

    def error(self, message: str) -> NoReturn:
        choice = re.fullmatch(r"(argument .+?): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice is not None:
            where, word, names = choice.groups()
            choices = [name.strip("' ") for name in names.split(",")]
            message = (
                f"unknown command: {word!r}" if where == "argument COMMAND" else f"{where}: invalid choice: {word!r}"
            )
            hint = nearest_hint(word, choices)
            if hint:
                message = f"{message}; {hint}"
        self.exit(2, fit_text(f"{self.prog}: {message} (see {self.prog} --help)\n", sys.stderr))


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="ptydask",
        description="Tune electron-ptychography reconstructions, or a W&B sweep file's program, into one HDF5 file.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"ptydask {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    parts = (
        run,
        demo,
        guess,
        confirm,
        profile,
        inspect,
        next_study,
        compare,
        report,
        pictures,
        dashboard,
        export,
        info,
        upkeep,
        merge,
        ptyrad_import,
    )
    for module in parts:
        module.add_parsers(commands)
    return top


def program() -> int:
    """The command line as a process.

    Ctrl-C at any moment is exit code 130, without a traceback; once the code is known no signal changes it any more.
    """
    try:
        with StopSignals(signal.SIGINT) as stop:
            code = main()
        if stop.came and code:  # it may have come out as an error of whatever it interrupted
            code = 130
    except KeyboardInterrupt:
        code = 130
    for number in BOTH:
        signal.signal(number, signal.SIG_IGN)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    try:
        code: int = args.handler(args)
        sys.stdout.flush()
    except PtydaskError as error:
        formats.print_stderr(f"ptydask: {redact(str(error))}{_other_place(error, args)}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        formats.abandon(sys.stdout)  # its reader has gone, as `head` does
        return 0
    except OSError as error:
        formats.abandon(sys.stdout)
        place = _other_place(error, args) if error.filename else ""
        print(f"ptydask: {error.filename or 'the output'}: {error.strerror or error}{place}", file=sys.stderr)
        return 1
    return code


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def _other_place(error: Exception, args: argparse.Namespace) -> str:
    """How to write somewhere else, where ``error`` says that it cannot be done here and the command has a way."""
    reason = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(reason, OSError) or reason.errno not in _UNWRITABLE:
        return ""
    if args.handler is run.run_command and not isinstance(error, UsageError | UnusableResults):
        return ""  # the run had begun: its results are where they are
    way = getattr(args, "elsewhere", "")
    return f"; give another {way}" if way else ""
