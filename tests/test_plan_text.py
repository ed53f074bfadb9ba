"""The plan in words, and lines that a terminal is too narrow for."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from ptydask import formatting
from ptydask.cli import main
from ptydask.distributions import Choice, FloatRange, IntRange
from ptydask.formatting import fit_text, wrap_line
from ptydask.model import OWN_VALUES, TRIED, Budget, ComponentSpec, Point, SourceFile, StudyPlan
from ptydask.progress.plan_text import plan_lines


def plan(**changes: Any) -> StudyPlan:
    said: dict[str, Any] = {
        "name": "s",
        "source": SourceFile(Path("p.yaml"), "", "yaml"),
        "engine": "ptyrad",
        "config": {},
        "space": {
            "scale": FloatRange(0.9, 1.1, 0.02),
            "rotation": FloatRange(-4, 4),
            "Nlayer": IntRange(1, 4),
            "C12a": Choice((0, 10)),
        },
        "metric": "loss",
        "direction": "minimize",
        "sampler": ComponentSpec("RandomSampler"),
        "pruner": None,
        "budget": Budget(5),
        "storage": None,
        "results": Path("s.h5"),
        "seed": 0,
    }
    return StudyPlan(**(said | changes))


def test_parameters_have_units() -> None:
    """Those of PtyRAD that have one; somebody else's parameter of the same name has none."""
    lines = [line[10:] for line in plan_lines(plan())[1:5]]
    assert lines == [
        "scale     0.9 to 1.1, step 0.02",
        "rotation  -4 to 4 degree",
        "Nlayer    1 to 4 slices (whole numbers)",
        "C12a      one of 0, 10 angstrom",
    ]
    assert not any("degree" in line for line in plan_lines(plan(engine="command")))


def test_points_to_try_are_listed() -> None:
    """A person's own, and neither the file's values nor a grid's; of many the first."""
    point = Point({"scale": 1.02, "rotation": -1.5}, TRIED)
    lines = plan_lines(plan(points=(Point({"scale": 1.0}, OWN_VALUES), point, Point({"scale": 0.94}, TRIED))))
    assert "try       scale=1.02 rotation=-1.5" in lines
    assert "          scale=0.94" in lines
    assert not any(line.startswith("try") for line in plan_lines(plan(points=(Point({"scale": 1.0}, "grid"),))))
    many = plan_lines(plan(points=(point,) * 20))
    assert "          and 12 points more" in many


# --- 80 columns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 40, 79, 200])
@pytest.mark.parametrize(
    "line",
    [
        "search    slopes of scale, rotation lead, TPESampler has a turn now and then (--search file)",
        "ptydask: params.yaml: init_params.probe_kv = '80,5': must be a number; write it with a decimal point: 80.5",
        "results   /a/very/long/path/to/the/results/of/a/study/that/nobody/can/break/anywhere/study.h5, and a word",
        "          rotation  one of 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2 degree  (file: 0)",
        "",
        "word " * 60,
        "x" * 300,
    ],
)
def test_words_stay_whole(line: str, width: int) -> None:
    """The words are the same in the same order, no line is wider but for one word, and all go on at one indent."""
    lines = wrap_line(line, width)
    assert " ".join(lines).split() == line.split()
    for number, part in enumerate(lines):
        words = part.split() if number else part[10:].split()
        assert len(part) <= width or len(words) <= 1 or len(words[0]) > width - 20
    assert len({len(part) - len(part.lstrip()) for part in lines[1:]}) <= 1


def test_lines_go_on_below_their_text() -> None:
    """Behind a label below the text, elsewhere indented by two."""
    first, *rest = wrap_line("search    slopes of scale lead, and the sampler has a turn now and then", 40)
    assert first.startswith("search    slopes")
    assert all(part.startswith(" " * 10) and part[10] != " " for part in rest)
    assert wrap_line("note: a word and others that follow it", 20)[1].startswith("  others")


@pytest.mark.parametrize(
    "line", ["now: ptydask run a/b/c.yaml --workers 2", "next      python -m ptydask run x.yaml --trials 5"]
)
def test_commands_can_be_pasted(line: str) -> None:
    """They stay one line: a terminal's own break is none when it is copied."""
    assert wrap_line(line, 20) == [line]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_is_fitted() -> None:
    """80 columns where it does not say how many; a pipe gets every line whole."""
    text = "word " * 40 + "\nshort\n"
    assert max(map(len, fit_text(text, Terminal()).splitlines())) < 80
    assert fit_text(text, Terminal()).endswith("\nshort\n")
    assert fit_text(text, io.StringIO()) == text


def test_an_error_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of the command line itself."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(formatting, "window_size", lambda _stream: (40, 24))
    assert main(["validate", "/nowhere/of/all/params.yaml"]) == 2
    assert main(["validat"]) == 2
    assert max(map(len, terminal.getvalue().splitlines())) < 40
    assert re.search(r"no such\s+file", terminal.getvalue())
