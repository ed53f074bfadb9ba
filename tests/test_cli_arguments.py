"""What the command line takes as a number: one rule for every command."""

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from ptydask import cli
from ptydask.cli import arguments


@pytest.mark.parametrize(
    "text", ["1_0", " 1", "1 ", "+1", "-1", "1.0", "1e3", "x", "", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 5000]
)
@pytest.mark.parametrize(
    "command",
    [
        ["run", "p.yaml", "--trials"],
        ["run", "p.yaml", "--workers"],
        ["run", "p.yaml", "--retries"],
        ["demo", "--seed"],
        ["ls", "s.h5", "--top"],
        ["report", "s.h5", "--images"],
        ["montage", "s.h5", "--snapshots"],
        ["dashboard", "s.h5", "--port"],
    ],
)
def test_a_whole_number_is_digits_alone(command: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No sign, no blanks, no underscores; the error says option, value and rule."""
    assert cli.main([*command[:-1], f"{command[-1]}={text}"]) == 2
    assert f"argument {command[-1]}: {text!r} must be a whole number, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (arguments.parse_count, "1", 1),
        (arguments.natural, "0", 0),
        (arguments.whole_number(0, 7), "7", 7),
        (arguments.seconds, "1.5e3", 1500.0),
        (arguments.seconds, "0", 0.0),
        (arguments.bounds, "0:32", (0, 32)),
    ],
)
def test_what_is_a_number(read: Callable[[str], Any], text: str, value: Any) -> None:
    """Both ends of a range belong to it."""
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (arguments.parse_count, "0"),
        (arguments.whole_number(0, 7), "8"),
        (arguments.seconds, "-1"),
        (arguments.seconds, "1_0"),
        (arguments.seconds, " 1"),
        (arguments.seconds, "inf"),
        (arguments.seconds, "nan"),
        (arguments.seconds, "1e999"),
        (arguments.bounds, "0:0"),
        (arguments.bounds, "3:2"),
        (arguments.bounds, "1"),
        (arguments.bounds, "1:2:3"),
    ],
)
def test_what_is_none(read: Callable[[str], Any], text: str) -> None:
    """The error has the value."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text!r} must be "):
        read(text)
