"""How a command looks to argparse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

Commands = argparse._SubParsersAction  # argparse has no other name for what holds the commands


def command(
    commands: Commands[Any], name: str, does: str, *, says: str = "", more: str = "", file: bool = True
) -> argparse.ArgumentParser:
    """A command that ``does`` one thing, in a few words, for the list of commands.

    ``says`` is its description (default: what it does), ``more`` stands at the end of its help as it is; with ``file``
    its first argument is a results file.
    """
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=says or f"{does[0].upper()}{does[1:]}.",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if file:
        made.add_argument("file", type=Path, metavar="FILE.h5", help="the results file, of a running study too")
    return made


def count(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return number
