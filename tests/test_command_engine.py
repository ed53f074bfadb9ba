"""The engine ``command``: any program as a trial, watched live, judged by what it logged, and cleaned up after."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_cases import (
    COMMAND,
    PROGRAMS,
    NoCheckpoint,
    Reports,
    misbehaving,
    own_folders,
    plan,
    processes,
    run,
    session,
)

from ptydask.engines import TrialFailure
from ptydask.engines.command import CommandEngine, attempt
from ptydask.errors import ConfigError
from ptydask.model import Point, Slot, TrialInput
from ptydask.trial import eviction


@pytest.fixture(autouse=True)
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where trials have their own folders; in the end no folder and no process of theirs is left."""
    yield from own_folders(tmp_path, monkeypatch)


def failure(how: str, started_in: Path, **engine: Any) -> TrialFailure:
    with pytest.raises(TrialFailure) as caught:
        run(misbehaving(how, started_in, **engine))
    assert "\n" not in str(caught.value)
    return caught.value


def said(how: str, started_in: Path, **engine: Any) -> str:
    """The message of a failure, without the seconds."""
    head, after, rest = str(failure(how, started_in, **engine)).partition(" after ")
    seconds, unit, rest = rest.partition(" s")
    assert not after or float(seconds) < 60
    return f"{head}{after}N{unit}{rest}" if after else head


# --- what goes well -------------------------------------------------------------------------------


def test_a_program_that_does_what_it_should(tmp_path: Path) -> None:
    """Metrics, curve, live reports, both outputs in the log, the exact command, the whole history."""
    reports = Reports()
    output = run(misbehaving("well", tmp_path), reports)
    assert output.metrics == {"loss": 1 / 3, "loss (best)": 1 / 3, "accuracy": 0.75}
    assert output.curve == {"step": [1, 2, 3], "loss": [1, 1 / 2, 1 / 3], "accuracy": [0.25, 0.5, 0.75]}
    assert reports.values == {1: 1, 2: 1 / 2, 3: 1 / 3}
    assert output.log.splitlines() == ["to the one", "to the other"]
    assert output.command.endswith("/misbehaving.py well --lr=0.5")
    history = [json.loads(line) for line in output.artifacts["history.jsonl"].splitlines()]
    assert [row["metrics"]["loss"] for row in history] == [1, 1 / 2, 1 / 3]
    assert output.attributes["exit_code"] == 0
    assert output.left_out == ()
    assert output.ended_itself


def test_the_best_value_on_request(tmp_path: Path) -> None:
    """``objective: best``; the last one is there as well."""
    write = tmp_path / "up.py"
    write.write_text(
        "import json, os\n"
        "with open(os.environ['PTYDASK_METRICS'], 'w') as file:\n"
        "    for loss in (3, 1, 2):\n        print(json.dumps({'loss': loss}), file=file)\n"
    )
    assert run(plan("up.py", tmp_path, objective="best")).metrics == {"loss": 1, "loss (last)": 2}
    assert run(plan("up.py", tmp_path)).metrics == {"loss": 2, "loss (best)": 1}


def test_what_a_program_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, directory, arguments; signals as a shell leaves them; no word of a W&B server."""
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/before")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    of = misbehaving("environment", tmp_path, environment={"MINE": "1", "WANDB_MODE": "online"})
    got = json.loads(run(of, slot=Slot(2, "3")).log)
    environ = got["environ"]
    own = environ["PTYDASK_FOLDER"]
    assert environ["PTYDASK_METRICS"].startswith(own)
    assert environ["PTYDASK_TRIAL"] == "7"
    assert environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert environ["MINE"] == environ["PYTHONUNBUFFERED"] == "1"
    assert environ["WANDB_MODE"] == "offline"
    assert environ["WANDB_DIR"] == own
    assert "WANDB_API_KEY" not in environ
    assert environ["PYTHONPATH"].endswith(":/before")
    assert str(Path(sys.executable).parent) in environ["PATH"].split(":")
    assert got["cwd"] == str(tmp_path)
    assert got["argv"] == ["--lr=0.5"]
    assert (got["blocked"], got["interrupt"], got["group"]) == ([], True, True)
    (tmp_path / "here.py").write_text((PROGRAMS / "misbehaving.py").read_text())
    other = run(plan("here.py", tmp_path, [*COMMAND, "environment"], directory="trial"))
    in_folder = json.loads(other.log)
    assert in_folder["cwd"] == in_folder["environ"]["PTYDASK_FOLDER"]


def test_the_parameter_that_names_the_gpu(tmp_path: Path) -> None:
    """Is the slot's index, an integer; on a CPU it is as the file has it."""
    parameters = [{"name": "lr", "path": ["lr"]}, {"name": "devices", "path": ["devices"], "value": 0}]
    of = misbehaving("environment", tmp_path, parameters=parameters, devices="devices")
    assert json.loads(run(of, slot=Slot(1, "5")).log)["argv"] == ["--devices=5", "--lr=0.5"]
    assert json.loads(run(of).log)["argv"] == ["--devices=0", "--lr=0.5"]


def test_a_program_that_closes_its_outputs(tmp_path: Path) -> None:
    """Is watched until it ends."""
    output = run(misbehaving("closes", tmp_path))
    assert (output.metrics["loss"], output.log) == (0.25, "")


def test_a_program_that_reads(tmp_path: Path) -> None:
    """Finds nothing to read, at once."""
    assert run(misbehaving("reads", tmp_path)).metrics["loss"] == 0


def test_rubbish_is_left_out(tmp_path: Path) -> None:
    """Lines that are no JSON object are counted; the others are values."""
    output = run(misbehaving("rubbish", tmp_path))
    assert output.metrics["loss"] == 0.5
    assert "lines of the metrics file that hold no JSON object" in " ".join(output.left_out)
    assert "\0" not in output.log


@pytest.mark.slow
def test_a_million_values(tmp_path: Path) -> None:
    """Few of them are reported, the last one is exact, and the trial's record stays small."""
    reports = Reports()
    output = run(misbehaving("million", tmp_path, outputs_limit=1_000_000), reports)
    assert output.metrics["loss"] == 1
    assert len(reports.values) < 2000
    assert list(reports.values)[:1000] == list(range(1, 1001))
    assert max(reports.values) == 1_000_000
    assert len(output.curve["step"]) <= 100_001
    assert any("history.jsonl" in sentence for sentence in output.left_out)


def test_gigabytes_of_output(tmp_path: Path) -> None:
    """Half a gigabyte is no failure; a megabyte of it is kept."""
    output = run(misbehaving("gigabytes", tmp_path))
    assert output.metrics["loss"] == 0.5
    assert len(output.log) < 1_100_000
    assert "bytes left out" in output.log


# --- what goes wrong ------------------------------------------------------------------------------


def test_the_messages_that_a_user_sees(tmp_path: Path, golden: Callable[..., None]) -> None:
    """One line each, with the program, how it ended, and why."""
    ways = ("raises", "rejects", "dies", "killed", "another_metric", "nothing", "nan")
    golden("run", {f"run misbehaving.py {how}": said(how, tmp_path) for how in ways})
    assert run(misbehaving("nan", tmp_path, objective="best")).metrics["loss"] == 0.5


def test_the_detail_of_a_failure(tmp_path: Path) -> None:
    """The last lines, the exact command, where the log is; the trial keeps log, command and curve."""
    failed = failure("raises", tmp_path)
    assert "    print(1 / 0)\n" in failed.detail
    assert "buffered until the end" in failed.detail
    assert failed.output is not None
    assert failed.output.command in failed.detail
    assert str(tmp_path) in failed.detail
    assert "ZeroDivisionError" in failed.output.log
    assert failed.output.curve["loss"] == [0.5]
    assert failed.output.metrics["loss"] == 0.5
    assert failed.output.attributes["exit_code"] == 1


def test_a_program_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its start, later, or for too long: stopped, and the limit is named as in the file."""
    monkeypatch.setattr(attempt, "PATIENCE", 1.0)
    assert said("hangs_at_once", tmp_path, start_timeout=0.4) == (
        "misbehaving.py hung at its start: no output and no logged value for 0.4 s, and was stopped "
        "(engine.start_timeout)"
    )
    later = failure("hangs_later", tmp_path, start_timeout=5.0, idle_timeout=0.4)
    assert str(later) == (
        "misbehaving.py hung: no more output and no logged value for 0.4 s, and was stopped (engine.idle_timeout)"
    )
    assert later.output is not None
    assert later.output.metrics["loss"] == 0.5
    assert said("gentle", tmp_path, idle_timeout=5.0, trial_timeout=0.4) == (
        "misbehaving.py ran for more than 0.4 s, and was stopped (engine.trial_timeout)"
    )


@pytest.mark.slow
def test_a_program_that_is_silent_but_has_begun(tmp_path: Path) -> None:
    """Has started: W&B's file is there, and it is W&B's start that may hang for ever."""
    assert run(misbehaving("silent", tmp_path, start_timeout=0.4)).metrics["loss"] == 0.5


def test_children_do_not_outlive_the_trial(tmp_path: Path) -> None:
    """The trial is what the program made of it; what it left running is ended."""
    assert run(misbehaving("forks", tmp_path)).metrics["loss"] == 0.5


def test_a_worker_without_the_program(tmp_path: Path) -> None:
    """The trial fails with a line that says where what was looked for."""
    for of, text in (
        (plan("train.py", tmp_path), "train.py could not be started on .*there is no such file"),
        (plan("nowhere-to-be-found", tmp_path, ["${program}"]), "could not be started on .*no such program"),
        (plan("x.py", tmp_path, directory="no/such/folder"), "could not be started on .*no/such/folder.*no folder"),
    ):
        with pytest.raises(TrialFailure, match=text):
            run(of)
    broken = tmp_path / "broken.sh"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o700)
    with pytest.raises(TrialFailure, match=r"broken\.sh could not be started on .*No such file"):
        run(plan("./broken.sh", tmp_path, ["${program}"]))


def test_no_room_for_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary folder that is not there, or cannot be written: one line."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(TrialFailure, match="has no room for the trial's own folder"):
        run(misbehaving("well", tmp_path))


# --- pruning, eviction, death ---------------------------------------------------------------------


def test_a_pruned_program_is_stopped_gently(tmp_path: Path) -> None:
    """One SIGINT; whatever its exit code and its last words, the trial has a value and no failure."""
    reports = Reports(stop_at=3)
    output = run(misbehaving("gentle", tmp_path), reports)
    assert list(reports.values) == [1, 2, 3]
    assert output.metrics["loss"] == 1.0
    assert output.attributes["exit_code"] == 3
    assert not output.ended_itself


@pytest.mark.slow
def test_a_pruned_program_is_stopped_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores SIGINT and SIGTERM, and its daemon that does too."""
    monkeypatch.setattr(attempt, "PATIENCE", 0.3)
    output = run(misbehaving("stubborn", tmp_path), Reports(stop_at=3))
    assert output.metrics["loss"] >= 3
    assert not output.ended_itself


def test_a_program_that_ended_before_it_could_be_stopped(tmp_path: Path, trials: Path) -> None:
    """Is complete, whatever the pruner says of its last value; Optuna has heard all of them."""

    class Slow(Reports):
        def __call__(self, step: int, metrics: Mapping[str, float]) -> bool:
            deadline = time.monotonic() + 20
            while processes(trials):  # its guard ends after it
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return super().__call__(step, metrics)

    reports = Slow(stop_at=1)
    output = run(misbehaving("well", tmp_path), reports)
    assert list(reports.values) == [1, 2, 3]
    assert output.ended_itself


def test_an_evicted_worker_stops_its_program(tmp_path: Path) -> None:
    """The program is ended and the trial left to another worker."""

    def report(step: int, metrics: Mapping[str, float]) -> bool:
        eviction.asked.set()
        return False

    try:
        with pytest.raises(eviction.Evicted):
            session(misbehaving("gentle", tmp_path)).run(TrialInput(7, {"lr": 0.5}, 0), report, NoCheckpoint())
    finally:
        eviction.asked.clear()


def test_whatever_a_report_raises_the_program_is_stopped(tmp_path: Path) -> None:
    """A storage that is gone, or Ctrl-C in the worker."""

    def report(step: int, metrics: Mapping[str, float]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session(misbehaving("gentle", tmp_path)).run(TrialInput(7, {"lr": 0.5}, 0), report, NoCheckpoint())


@pytest.mark.slow
def test_a_killed_worker_leaves_nothing(tmp_path: Path, trials: Path) -> None:
    """No process, not even one that ignores signals in a session of its own, and no folder."""
    cases = Path(__file__).parent / "command_cases.py"
    with subprocess.Popen(
        [sys.executable, str(cases), "stubborn", str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith("1 ")
        assert len(processes(trials)) >= 3
        worker.kill()
    deadline = time.monotonic() + 10
    while processes(trials) or list(trials.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- outputs --------------------------------------------------------------------------------------


def test_nothing_outside_of_the_folder_is_touched(tmp_path: Path) -> None:
    """Files come byte for byte; links lead nowhere, and what they lead to stays as it was."""
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "secret"
    secret.write_bytes(b"not to be read")
    os.utime(secret, (1e9, 1e9))
    output = run(misbehaving("links", tmp_path, environment={"OUTSIDE": str(outside)}))
    files = {Path(name).name: data for name, data in output.artifacts.items()}
    history = files.pop("history.jsonl")
    assert files == {"own.bin": bytes(range(256)), "within": bytes(range(256))}
    assert b"not to be read" not in history
    left = " ".join(output.left_out)
    for name in ("secret", "folder", "dangling", "pipe"):
        assert f"files/{name}: " in left
    assert secret.read_bytes() == b"not to be read"
    assert secret.stat().st_mtime == 1e9
    assert list(outside.iterdir()) == [secret]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    """Small files first; a file with holes is never read."""
    output = run(misbehaving("large", tmp_path, outputs_limit=1000))
    assert [Path(name).name for name in output.artifacts] == ["small.yaml", "history.jsonl"]
    assert output.left_out == (
        "wandb/offline-run-1/files/a_large.pt: its 2,000 bytes are beyond the outputs_limit of 1,000 bytes for all "
        "files of a trial",
        f"wandb/offline-run-1/files/sparse: its {2**40:,} bytes are beyond the outputs_limit of 1,000 bytes for all "
        "files of a trial",
    )


# --- before and beside the trials -----------------------------------------------------------------


def test_validating_shows_the_command(tmp_path: Path) -> None:
    """Of the first point, else with the lowest values; unknown macros are named."""
    (tmp_path / "train.py").write_text("")
    of = plan("train.py", tmp_path, [*COMMAND, "--level", "${level_file}", "${args}"])
    checked = CommandEngine().validate(of)
    (label, text) = checked.details[-1]
    assert (label, text.split()[1:]) == ("command", ["-S", "train.py", "--level", "--lr=0.1"])
    assert any("${level_file}" in notice for notice in checked.notices)
    pointed = CommandEngine().validate(replace(of, points=(Point({"lr": 0.7}, "start"),)))
    assert pointed.details[-1][1].endswith("--lr=0.7")


def test_the_command_is_one_for_a_shell(tmp_path: Path) -> None:
    """A program of the directory by its path, as no shell finds it by its name."""
    program = tmp_path / "of the directory"
    program.write_text('#!/bin/sh\necho \'{"loss": 1}\' >> "$PTYDASK_METRICS"\n')
    program.chmod(0o700)
    command = run(plan("of the directory", tmp_path, ["${program}", "${args}"])).command
    assert command == f"'{program}' --lr=0.5"
    assert (dict(CommandEngine().validate(plan("of the directory", tmp_path, ["${program}"])).details))["command"] == (
        f"'{program}'"
    )


def test_secrets_stay_out_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program has them, the command that is stored has the variable's name; one in the sweep file is pointed at."""
    monkeypatch.setenv("HF_TOKEN", "hidden")
    of = misbehaving("environment", tmp_path)
    items = [*of.config["command"], "--token=${envvar:HF_TOKEN}"]
    of = replace(of, config={**of.config, "command": items})
    output = run(of)
    assert json.loads(output.log)["argv"][-1] == "--token=hidden"
    assert output.command.endswith("""'--token='"$HF_TOKEN"''""")
    assert "hidden" not in output.command
    asked = plan(
        None, tmp_path, ["sleep", "0"], environment={"DB_PASSWORD": "x", "TOKENIZERS_PARALLELISM": "0", "MONKEY": "1"}
    )
    (notice,) = CommandEngine().validate(asked).notices
    assert notice.startswith("engine.environment.DB_PASSWORD: the results file holds the text of this file")


@pytest.mark.slow
def test_a_suspended_job_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in which the worker itself stood still counts for no limit."""
    begun = time.monotonic()

    def jumps() -> float:
        now = time.monotonic()
        return now + 10_000 * (now - begun > 0.3)

    monkeypatch.setattr(attempt, "time", SimpleNamespace(monotonic=jumps))
    assert run(misbehaving("silent", tmp_path, idle_timeout=100.0, trial_timeout=100.0)).metrics["loss"] == 0.5


def test_folders_whose_names_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the directory's name nor that of the temporary folder has to be UTF-8."""
    odd = tmp_path / os.fsdecode(b"odd \xff")
    odd.mkdir()
    (odd / "here.py").write_text((PROGRAMS / "misbehaving.py").read_text())
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    assert run(plan("here.py", odd, [*COMMAND, "well"])).metrics["loss"] is not None


def test_validating_misses_the_program(tmp_path: Path) -> None:
    """Before any worker starts."""
    with pytest.raises(ConfigError, match=r"program = 'trian.py': there is no such file"):
        CommandEngine().validate(plan("trian.py", tmp_path))
    with pytest.raises(ConfigError, match=r"command = 'accelerate launch': there is no such program"):
        CommandEngine().validate(plan("train.py", tmp_path, ["accelerate launch", "${program}"]))


def test_a_misspelt_macro_is_named_before_the_program(tmp_path: Path) -> None:
    """Without the interpreter the program is looked for in PATH: the macro is what to mend."""
    (tmp_path / "train.py").write_text("")
    said = (
        r"command = '\${interpretor}': is no macro and vanishes; did you mean 'interpreter'\? "
        r"Without it program = 'train.py': there is no such program"
    )
    with pytest.raises(ConfigError, match=said):
        CommandEngine().validate(plan("train.py", tmp_path, ["${env}", "${interpretor}", "${program}", "${args}"]))
    with pytest.raises(ConfigError, match=r"^[^ ]*: command = 'nowhere'"):
        CommandEngine().validate(plan("train.py", tmp_path, ["${env}", "nowhere", "${args}"]))


def test_what_decides_a_result(tmp_path: Path) -> None:
    """Program, command, parameters and environment do; where it is run and how long it may take do not."""
    engine = CommandEngine()
    base = engine.essential(plan("a.py", tmp_path).config)
    assert base == engine.essential(plan("a.py", tmp_path / "x", outputs=["*"], idle_timeout=3.0).config)
    for other in (plan("b.py", tmp_path), plan("a.py", tmp_path, environment={"A": "1"})):
        assert base != engine.essential(other.config)


def test_where_results_come_from(tmp_path: Path) -> None:
    """The script's path and SHA-256, and the version of Python."""
    (tmp_path / "train.py").write_text("print()\n")
    facts = session(plan("train.py", tmp_path)).provenance()
    assert facts["program"] == str(tmp_path / "train.py")
    assert facts["program_sha256"] == hashlib.sha256(b"print()\n").hexdigest()
    launched = session(plan("train.py", tmp_path, ["nice", "${interpreter}", "${program}"])).provenance()
    assert launched["program_sha256"] == facts["program_sha256"]
    assert facts["device"] == "cpu"
