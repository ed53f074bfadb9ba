"""The command of a sweep's trial: every macro, to the letter of W&B's agent."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from ptydask.engines.command import arguments

VALUES: dict[str, Any] = {
    "lr": 1e-05,
    "big": 1e22,
    "n": 5,
    "one": 1.0,
    "yes": True,
    "no": False,
    "none": None,
    "text": "two words\nand a 'line'",
    "dash": "-x",
    "empty": "",
    "greek": "αβ",
    "list": [1, "a", None],
    "nested": {"beta": 0.5, "deep": {"on": True}},
    "with blank": "v",
    "nan": float("nan"),
}


def argv(
    *command: str, program: str | None = "train.py", environ: dict[str, str] | None = None, **values: Any
) -> list[str]:
    return list(arguments.expand(command, program, values or VALUES, environ or {}, None).argv)


@pytest.mark.parametrize(
    ("macro", "lr", "yes", "no", "none", "nested"),
    [
        ("args", ["--lr=1e-05"], ["--yes=True"], ["--no=False"], ["--none=None"], ["--nested={'beta': 0.5}"]),
        ("args_no_equals", ["--lr", "1e-05"], ["--yes", "True"], ["--no", "False"], ["--none", "None"],
         ["--nested", "{'beta': 0.5}"]),
        ("args_no_hyphens", ["lr=1e-05"], ["yes=True"], ["no=False"], ["none=None"], ["nested={'beta': 0.5}"]),
        ("args_no_boolean_flags", ["--lr=1e-05"], ["--yes"], [], ["--none=None"], ["--nested={'beta': 0.5}"]),
        ("args_append_hydra", ["+lr=1e-05"], ["+yes=True"], ["+no=False"], ["+none=None"], ["+nested={'beta': 0.5}"]),
        ("args_override_hydra", ["++lr=1e-05"], ["++yes=True"], ["++no=False"], ["++none=None"],
         ["++nested={'beta': 0.5}"]),
    ],
)  # fmt: skip
def test_each_form_of_the_parameters(
    macro: str, lr: list[str], yes: list[str], no: list[str], none: list[str], nested: list[str]
) -> None:
    """A float as Python writes it, booleans, null and a nested parameter, in each form."""
    item = f"${{{macro}}}"
    assert argv(item, lr=1e-05) == lr
    assert argv(item, yes=True) == yes
    assert argv(item, no=False) == no
    assert argv(item, none=None) == none
    assert argv(item, nested={"beta": 0.5}) == nested


def test_the_default_command() -> None:
    """No command is env, the running interpreter, the program and its arguments."""
    assert argv(lr=0.5) == ["/usr/bin/env", sys.executable, "train.py", "--lr=0.5"]
    assert argv("${env}", "${interpreter}", "${program}", "${args}", lr=0.5) == argv(lr=0.5)


def test_values_stay_one_argument_each() -> None:
    """Blanks, line ends, quotes, dashes and letters of any kind neither split a value nor change it."""
    found = argv("${args}", text="two words\nand", dash="-x", greek="αβ", empty="", one=1.0)
    assert found == ["--text=two words\nand", "--dash=-x", "--greek=αβ", "--empty=", "--one=1.0"]
    assert shlex.split(arguments.shell_text(found)) == found


def test_json_macros(tmp_path: Path) -> None:
    """One JSON text of all parameters, as an argument or in a file of the trial's folder."""
    values = {name: value for name, value in VALUES.items() if name != "nan"}
    assert json.loads(argv("${args_json}", **values)[0]) == values
    expanded = arguments.expand(["x", "${args_json_file}"], None, values, {}, tmp_path)
    assert Path(expanded.argv[1]).parent == tmp_path
    assert json.loads(Path(expanded.argv[1]).read_text()) == values
    assert arguments.expand(["x", "${args_json_file}"], None, values, {}, None).argv == ("x", arguments.JSON_FILE)
    arguments.expand(["${args_json}"], None, values, {}, Path("/nowhere"))  # no file where none is asked for


def test_variables_count_anywhere() -> None:
    """``${envvar:NAME}`` is replaced inside texts too, as often as it comes; unset it is the bare name."""
    found = argv("--a=${envvar:A}/${envvar:B_2}x", "${envvar:A}", "${envvar:UNSET}", environ={"A": "1", "B_2": "${C}"})
    assert found == ["--a=1/${C}x", "1", "UNSET"]
    assert argv("${envvar:A}", environ={"A": "${args}"}, lr=1) == ["--lr=1"]


def test_other_macros_count_as_whole_items_only() -> None:
    """A macro within an item stays as it is; two in one item, like one that is none, vanish."""
    assert argv("--f=${args}", "${args} ", "${program}${args}", "${nothing}", "$args", lr=1) == [
        "--f=${args}",
        "${args} ",
        "$args",
    ]
    assert argv("${program}", "x", program=None) == ["x"]
    assert argv("python", "-m", 3, lr=1) == ["python", "-m", "3"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["${envvar:UNSET}/data"], ["UNSET", "not set"]),
        (["--level", "${level_file}"], ["${level_file}", "vanishes", "leaves --level without a value"]),
        (["${arg}"], ["${arg}", "did you mean 'args'?"]),
        (["${lr}"], ["${lr}", "through ${args}"]),
        (["--lr=${args}"], ["'--lr=${args}'", "passed as it is"]),
        (["${env} ${interpreter}"], ["vanishes", "item of its own"]),
        (["${envvar:lower}"], ["capitals"]),
        (["x${envvar:lower}"], ["passed as it is", "capitals"]),
        (["${program}"], ["no program"]),
    ],
)
def test_what_surprises_is_said(command: list[str], words: list[str]) -> None:
    """One line for each thing that W&B does in silence, before any trial and with it."""
    said = arguments.notices(command, None, {"lr": 1}, {})
    assert len(said) == 1
    assert "\n" not in said[0]
    assert all(word in said[0] for word in words), said
    assert arguments.expand(command, None, {"lr": 1}, {}, None).notices == said


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["${env}", "${interpreter}", "${program}", "${args_no_boolean_flags}"],
        ["cp", "${envvar:PTYDASK_FOLDER}", "$HOME", "{x}", "${args_json_file}"],
        ["${envvar:SET}"],
        ["sh", "-c", "echo ${HOME} $(date)"],
    ],
)
def test_nothing_is_said_of_what_is_fine(command: list[str]) -> None:
    """Macros in their places, variables that are set here or by every trial, and a shell's own dollar signs."""
    assert arguments.notices(command, "train.py", {"lr": 1}, {"SET": "1"}) == ()


@pytest.mark.wandb
@pytest.mark.parametrize("item", [f"${{{macro}}}" for macro in arguments.MACROS if macro != "interpreter"])
def test_the_same_as_wandb(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's own code makes the same of every macro, for values of every kind."""
    sweeps = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    monkeypatch.setenv("HERE", "here")
    command = [
        "--a=${envvar:HERE}${envvar:NOT_HERE}",
        item,
        "--x${args}",
        "${none}",
        "${envvar:lower}",
        "${envvar:HERE}",
    ]
    known = sweeps.create_sweep_command_args({"args": {name: {"value": value} for name, value in VALUES.items()}})
    known |= {"program": ["train.py"], "env": ["/usr/bin/env"], "args_json_file": [arguments.JSON_FILE]}
    theirs: list[str] = []
    for part in sweeps.create_sweep_command(list(command)):  # what its agent does with them
        if part.startswith("${") and part.endswith("}"):
            theirs += known.get(part[2:-1]) or []
        else:
            theirs += [part]
    assert list(arguments.expand(command, "train.py", VALUES, {"HERE": "here"}, None).argv) == theirs
