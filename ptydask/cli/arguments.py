"""How a command looks to argparse, and how it reads its arguments: each ``type`` says the rule and the value."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptydask.model import path_beside

Commands = argparse._SubParsersAction  # argparse has no other name for what holds the commands


def add_command(
    commands: Commands[Any], name: str, does: str, *, says: str = "", more: str = "", file: bool = True
) -> argparse.ArgumentParser:
    """A command that ``does`` one thing, in a few words, for the list of commands.

    ``says`` is its description (default: what it does), ``more`` stands at the end of its help as it is; with ``file``
    its first argument is a results file.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=says or f"{does[0].upper()}{does[1:]}.",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if file:
        parser.add_argument("file", type=Path, metavar="FILE.h5", help="the results file, of a running study too")
    return parser


def add_stage(parser: argparse.ArgumentParser, default: str = "the latest one") -> None:
    """Add ``--stage NAME`` for a command about one stage of a study; "" where none is named."""
    text = f"of a study with stages: which one (default: {default})"
    parser.add_argument("--stage", default="", metavar="NAME", help=text)


def path_beside_file(args: argparse.Namespace, suffix: str) -> Path:
    """Where a command writes that was not told: its results file's name, the stage where one is named, ``suffix``."""
    stage = re.sub(r"[^\w.+-]", "_", args.stage)
    return path_beside(args.file, f"-{stage}{suffix}" if stage else suffix)


LAST_TUNED = "the last one that tuned something"
"""The default of commands that are about tuning."""


def digits(text: str) -> int | None:
    """The number that digits alone write; None for anything else: a sign, blanks, an underscore."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """What reads a whole number of at least ``least``, and at most ``most``."""
    rule = f"at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        number = digits(text)
        if number is None or number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, {rule}")
        return number

    return read


def number(least: float, most: float, what: str) -> Callable[[str], float]:
    """What reads a number from ``least`` to ``most``; ``what`` says so to a person."""

    def read(text: str) -> float:
        plain = re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text)
        value = float(text) if plain else math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} must be {what}")
        return value

    return read


parse_count = whole_number(1)
"""A type for argparse, as those below."""
natural = whole_number(0)
seconds = number(0, sys.float_info.max, "a finite number of seconds, not negative")


def bounds(text: str) -> tuple[int, int]:
    """``MIN:MAX``, two whole numbers."""
    match [digits(part) for part in text.split(":")]:
        case [int(least), int(most)] if least <= most and most >= 1:
            return least, most
    raise argparse.ArgumentTypeError(f"{text!r} must be MIN:MAX, two whole numbers, MIN not above MAX: 0:32")
