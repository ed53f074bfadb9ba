"""Commands that are printed to be copied: a shell takes them as they are, whatever is in the names."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import store_cases as cases
import sweep_cases
from sweep_plans import made

from ptydask.cli import describe
from ptydask.driver import contract, execute
from ptydask.engines.command import arguments
from ptydask.formatting import shell_line, shell_path, shell_word
from ptydask.store import reader
from ptydask.trial.reconcile import Failures

NAMES = [
    "plain.h5",
    "two words.h5",
    "it's.h5",
    'a "quoted" one.h5',
    "$HOME and `id` and $(id).h5",
    "wow!.h5",
    "wow!! it's!h.h5",
    "a\nb.h5",
    "tab\tand\\n.h5",
    "\x1b[31mred!%s.h5",
    "a\nit's 100 %!.h5",
    "Größe µm.h5",
    "-x.h5",
    "--help",
    "~.h5",
    "#1;&|<>(){}[]*?.h5",
    "\u2028line.h5",
]


def test_a_shell_takes_every_word_as_it_is() -> None:
    """In a plain POSIX shell, and where an exclamation mark is an order; each is on one line of printable text."""
    words = [shell_word(name) for name in NAMES]
    assert all(word.isprintable() for word in words)
    for shell, before in (("sh", ""), ("bash", "set -o history -o histexpand\n")):
        if shutil.which(shell) is None:
            continue
        script = f"{before}printf '%s\\0' {' '.join(words)}\n"
        ended = subprocess.run([shell], input=script.encode(), capture_output=True, check=True)
        assert ended.stdout.decode().split("\0")[:-1] == NAMES, ended.stderr.decode()


def test_a_path_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a leading hyphen gets its folder; what lies below the working directory is named from there."""
    monkeypatch.chdir(tmp_path)
    assert [shell_path(name) for name in ("-x.h5", tmp_path / "a b" / "-x.h5", "/etc/x")] == [
        "./-x.h5",
        "'a b/-x.h5'",
        "/etc/x",
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".h5")])
def test_what_the_end_of_a_run_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that all failed: the command that shows why names the file."""
    monkeypatch.chdir(tmp_path)
    record = cases.failed(0)
    plan = replace(made(tmp_path), results=Path(name))
    hopeless = str(contract.hopeless_error(plan, Failures(record, 3), 9, 3))
    for text in (execute.none_completed_text([record], Path(name)), hopeless):
        command = re.search(r"`(ptydask show .*) 0` has", text)
        assert command is not None
        assert _words(command[1]) == ["ptydask", "show", f"./{name}" if name.startswith("-") else name]


def test_best_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command is pasted where ``best`` was typed: the file is named from there."""
    folder = tmp_path / "it's $HOME!"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    with reader.open(sweep_cases.packed(folder / "s.h5")) as results:
        text = describe.best_text(results, results.records()[0], None)
    command = text.rstrip().splitlines()[-1].partition(": ")[2]
    assert _words(command) == ["ptydask", "export", "it's $HOME!/s.h5", "run", "--trial", "0", "DIR"]


@pytest.mark.parametrize(
    "values", [["a b", "it's", "$X"], ["a\nb"], ["it's\n'", "!\n!"], ["a\n\n"], ["\x1b[1m", "\t", ""], ['"\n"']]
)
def test_the_command_of_a_trial(values: list[str]) -> None:
    """A value with a line break stays on one line, and the same value; a secret stays its variable."""
    shown = ["echo", *(f"--x={value}" for value in values), "--token=\0TOKEN\0"]
    line = shell_line(arguments.shell_text(shown))
    assert line.isprintable()
    assert line.endswith("""'--token='"$TOKEN"''""")
    assert _words(line)[1:-1] == shown[1:-1]


def _words(command: str) -> list[str]:
    """The command as a shell reads it."""
    shell = "bash" if "$'" in command else "sh"  # which of all shells know it yet that POSIX has it since 2024
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    script = f"printf '%s\\0' {command}\n"
    ended = subprocess.run([shell], input=script.encode(), capture_output=True, check=True)
    return ended.stdout.decode().split("\0")[:-1]
