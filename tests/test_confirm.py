"""``ptydask confirm``: which trials with which seeds, and runs of it that are stopped, go on, and count exactly."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from killed_runs import workers_of
from store_cases import failed, meta, put, record

import ptydask as api
from ptydask import engines
from ptydask.analysis.half_rings import pair_halves
from ptydask.cli import main
from ptydask.driver.confirmation import (
    ConfirmOptions,
    Repeat,
    choose_seeds,
    choose_trials,
    list_repeats,
    plan_repeats,
    read_plan,
)
from ptydask.driver.provenance import study_meta
from ptydask.engines.fingerprint import sha256
from ptydask.engines.repeat.session import RepeatSession
from ptydask.errors import ConfigError, UnusableResults, UsageError
from ptydask.model import StudyPlan, TrialInput, TrialOutput, TrialRecord, TrialState
from ptydask.progress.repeats_text import missing_text
from ptydask.store import Store, reader
from ptydask.store.upkeep import embedding, verify

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
FILE = Path("results.h5")

# --- decisions ----------------------------------------------------------------------------------------


def chosen(records: Sequence[TrialRecord], **options: Any) -> list[int]:
    return [r.number for r in choose_trials(records, meta(), ConfirmOptions(**options), file=FILE)]


def test_the_best_trials_are_repeated_the_best_first() -> None:
    """Of those that completed; fewer where there are fewer."""
    records = [record(0), record(1), failed(2), record(3, state=TrialState.PRUNED), record(4)]
    assert chosen(records, top=2) == [4, 1]
    assert chosen(records, top=9) == [4, 1, 0]
    assert chosen(records, trials=(1, 3, 1)) == [1, 3]


@pytest.mark.parametrize(
    ("records", "options", "words"),
    [
        ([record(0)], {"trials": (7,)}, "no such trial"),
        ([record(0), failed(1)], {"trials": (0, 1)}, "failed"),
        ([failed(0)], {}, "none can be confirmed"),
        ([], {}, "none can be confirmed"),
    ],
)
def test_trials_that_there_are_not(records: list[TrialRecord], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        chosen(records, **options)


def test_a_study_without_a_metric_has_no_best() -> None:
    with pytest.raises(UsageError, match="--trials"):
        choose_trials([record(0)], meta(metric=""), ConfirmOptions(), file=FILE)
    assert choose_trials([record(0)], meta(metric=""), ConfirmOptions(trials=(0,)), file=FILE)


@pytest.mark.parametrize(
    ("own", "earlier", "number", "seeds"),
    [
        ([7, 7, 7], [], 3, [8, 9, 10]),
        ([0, 2], [], 3, [1, 3, 4]),
        ([7], [8, 9, 8], 3, [8, 9, 10]),
        ([7], [8, 9, 10], 2, [8, 9]),
        ([7], [100], 3, [100, 8, 9]),
        ([], [], 1, [1]),
        ([2**32 - 1], [], 2, [0, 1]),
    ],
)
def test_seeds_are_none_of_the_studys_own_and_stay(
    own: list[int], earlier: list[int], number: int, seeds: list[int]
) -> None:
    assert choose_seeds(own, earlier, number) == seeds


def test_repeats_are_every_trial_with_every_seed_once() -> None:
    """Halves with the first seed; what an earlier run had to do comes first."""
    assert list_repeats([3, 1], [8, 9], [], halves=False) == ((3, 8, 0), (1, 8, 0), (3, 9, 0), (1, 9, 0))
    both = ((3, 8, 0), (3, 8, 1), (3, 8, 2))
    assert list_repeats([3], [8], [], halves=True) == both
    assert list_repeats([3, 4], [8], [(9, 8, 0), *both], halves=False) == ((9, 8, 0), *both, (4, 8, 0))


def half(number: int, trial: int, which: int, seed: int = 5, **changes: Any) -> TrialRecord:
    return record(number, params={"trial": trial, "seed": seed, "half": which}, **changes)


def test_halves_are_paired_by_trial_and_seed() -> None:
    """Only where both completed, and of one seed."""
    assert pair_halves([half(0, 3, 0), half(1, 3, 2), half(2, 3, 1), half(3, 4, 1)]) == {3: (2, 1)}
    assert pair_halves([half(0, 3, 1), half(1, 3, 2, seed=6)]) == {}
    assert pair_halves([half(0, 3, 1), half(1, 3, 2, state=TrialState.FAIL)]) == {}


class Session:
    """An engine's session that tells what it was given."""

    def __init__(self) -> None:
        self.given: list[TrialInput] = []

    def run(self, trial: TrialInput, report: Callable[..., bool], checkpoint: object) -> TrialOutput:
        self.given.append(trial)
        report(1, {"loss": 0.5}, {"scale": 2.0})
        curve = {"step": [1.0], "loss": [0.5], "gradient/scale": [2.0]}
        return TrialOutput({"loss": 0.5}, curve, gradient={"scale": 2.0})

    def provenance(self) -> dict[str, str]:
        return {"data_sha256": "ab"}

    def close(self) -> None:
        self.given.clear()


def test_a_repeat_is_the_trials_own_reconstruction() -> None:
    """Its parameters, the repeat's seed and half; slopes are in parameters that the repeat does not have."""
    inner, told = Session(), []
    session = RepeatSession({"18": {"scale": 0.98}}, inner)

    def report(step: int, metrics: Any, gradient: Any = None) -> bool:
        told.append((step, metrics, gradient))
        return False

    output = session.run(TrialInput(4, {"trial": 18, "seed": 9, "half": 2}, 9), report, None)  # type: ignore[arg-type]
    assert inner.given == [TrialInput(4, {"scale": 0.98}, 9, 2)]
    assert told == [(1, {"loss": 0.5}, None)]
    assert (output.gradient, dict(output.curve)) == ({}, {"step": [1.0], "loss": [0.5]})
    assert session.provenance() == {"data_sha256": "ab"}


# --- runs ---------------------------------------------------------------------------------------------

FIT = """\
import os, random, time

def fit(params, report):
    draw = random.Random(f"{os.environ['PTYDASK_SEED']} {params['x']}").gauss
    for step in range(3):
        time.sleep(SLEEP)
        report(step, loss=(params["x"] - 0.3) ** 2 + draw(1, 0.01))
"""
PROGRAM = """\
import json, os, random, sys

values = dict(word.lstrip("-").split("=") for word in sys.argv[1:])
draw = random.Random(os.environ["PTYDASK_SEED"] + values["x"]).gauss
with open(os.environ["PTYDASK_METRICS"], "a") as file:
    print(json.dumps({"loss": float(values["x"]) + draw(0, 0.01), "seed": int(os.environ["PTYDASK_SEED"])}), file=file)
"""


def write_sweep(
    folder: Path, *, runs: str = "engine: {callable: fit.py:fit}", trials: int = 5, sleep: float = 0
) -> Path:
    """A sweep of one parameter, and what runs its trials."""
    (folder / "fit.py").write_text(FIT.replace("SLEEP", repr(sleep)))
    (folder / "train.py").write_text(PROGRAM)
    path = folder / "sweep.yaml"
    head = "name: fits\nmethod: random\nmetric: {name: loss, goal: minimize}\n"
    path.write_text(f"{head}parameters: {{x: {{min: 0.0, max: 1.0}}}}\nrun_cap: {trials}\n{runs}\n")
    return path


def repeats(path: Path) -> Counter[Repeat]:
    """The repeats that a study has, each counted."""
    with reader.open(path) as results:
        confirmation = results.confirmation()
        if confirmation is None:
            return Counter()
        with confirmation:
            records = confirmation.records()
            assert all(confirmation.trial(r.number).record.params == r.params for r in records)
    return Counter((int(r.params["trial"]), int(r.params["seed"]), int(r.params["half"])) for r in records)  # type: ignore[arg-type]


def grid(trials: Sequence[int], seeds: Sequence[int]) -> Counter[Repeat]:
    """Each once."""
    return Counter((trial, seed, 0) for trial in trials for seed in seeds)


def best(path: Path, top: int) -> list[int]:
    with reader.open(path) as results:
        return [r.number for r in results.ranked(top)]


def finish_study(folder: Path, sleep: float = 0) -> Path:
    """A finished study of a function, of five trials, as a run would leave it."""
    sweep = write_sweep(folder, runs=f"engine: {{callable: '{folder}/fit.py:fit'}}", sleep=sleep)
    plan = api.validate(sweep, results=folder / "fits.h5")
    described = study_meta(plan)
    known = {"callable_sha256": sha256(folder / "fit.py")}
    store = Store.open(plan.results, replace(described, provenance={**described.provenance, **known}))
    for number, x in enumerate((0.9, 0.25, 0.5, 0.35, 0.7)):
        error = (x - 0.3) ** 2 + 1
        made = record(number, error, params={"x": x}, metrics={"loss": error}, seed=plan.seed)
        put(store, made, TrialOutput({"loss": error}, {"step": [1.0], "loss": [error]}))
    return store.finish()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that nobody changes."""
    return finish_study(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def study(tmp_path: Path, finished: Path) -> Path:
    """A copy of it; its function is where it was."""
    return Path(shutil.copy(finished, tmp_path / "fits.h5"))


@pytest.mark.slow
def test_confirm_and_confirm_more(study: Path, ptydask: Ptydask) -> None:
    """Exactly what is asked for, in the study's file; asked again nothing; asked for more, what is missing of it."""

    def confirm(*args: object) -> str:
        done = ptydask("confirm", study, "--cluster", "local", *args)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in study.parent.glob("fits*")) == ["fits.h5"]
        return done.stderr + done.stdout

    with reader.open(study) as results:
        before = results.records()
    said = confirm("--top", 2, "--seeds", 2)
    assert repeats(study) == grid(best(study, 2), [1, 2])
    assert "2 trials x 2 seeds" in said
    assert re.search(r"^repeat 1/4: trial \d, seed 1  complete  loss ", said, re.MULTILINE)
    assert "fits confirmation: 4/4 repeats in" in said
    for word in (" (best)  x", " (best)  trial", "best loss", "half=0"):
        assert word not in said
    assert f"trial {best(study, 1)[0]}" in said
    assert "nothing left to do" in confirm("--top", 2, "--seeds", 2)
    confirm("--top", 3, "--seeds", 3)
    assert repeats(study) == grid(best(study, 3), [1, 2, 3])
    confirm("--trials", "0,1,2,3,4", "--seeds", 1)
    assert repeats(study) == grid(best(study, 3), [1, 2, 3]) | grid(range(5), [1])
    with reader.open(study) as results:
        assert results.records() == before
    assert verify.verify(study).intact


@pytest.mark.slow
def test_seeds_reach_the_function(study: Path, ptydask: Ptydask) -> None:
    """Other seeds, other values; the same as the function gives for that seed."""
    assert ptydask("confirm", study, "--cluster", "local", "--top", 1, "--seeds", 3).returncode == 0
    with reader.open(study) as results:
        confirmation = results.confirmation()
        assert confirmation is not None
        with confirmation:
            made = confirmation.records()
        x = results.trial(best(study, 1)[0]).record.params["x"]
    for one in made:
        draw = random.Random(f"{one.params['seed']} {x}").gauss
        assert one.error == (float(str(x)) - 0.3) ** 2 + [draw(1, 0.01) for _ in range(3)][-1]
        assert one.origin == "repeat"
        assert one.seed == one.params["seed"]
    assert len({one.error for one in made}) == 3


@pytest.mark.slow
def test_a_program(tmp_path: Path, ptydask: Ptydask) -> None:
    """The engine ``command``: the program finds the seed in its environment, in the study as in its repeats."""
    runs = "program: train.py\ncommand: ['${interpreter}', '${program}', '${args}']"
    done = ptydask("run", write_sweep(tmp_path, runs=runs, trials=3), "--cluster", "local", "--seed", 4)
    assert done.returncode == 0, done.stderr
    done = ptydask("confirm", "fits.h5", "--cluster", "local", "--top", 1, "--seeds", 2)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "fits.h5"
    with reader.open(path) as results:
        assert {r.metrics["seed"] for r in results.records()} == {4}
        confirmation = results.confirmation()
        assert confirmation is not None
        with confirmation:
            assert [(r.params["seed"], r.metrics["seed"]) for r in confirmation.records()] == [(5, 5), (6, 6)]


@pytest.mark.slow
def test_from_python(study: Path) -> None:
    confirmed = api.confirm(study, top=1, seeds=1, cluster="local", progress=False)
    assert (confirmed.path, len(confirmed)) == (study, 5)
    assert sum(repeats(study).values()) == 1
    with pytest.raises(ConfigError, match="top"):
        api.confirm(study, top=0)
    with pytest.raises(UsageError, match="no such trial"):
        api.confirm(study, trials=[99])


def test_nothing_is_started_by_a_dry_run(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = study.read_bytes()
    assert main(["confirm", str(study), "--dry-run", "--cluster", "local", "--top", "2", "--seeds", "4"]) == 0
    said = capsys.readouterr().err
    for words in ("2 trials x 4 seeds = 8 runs", "seeds     1, 2, 3, 4", "fits.confirmation.h5", "cost"):
        assert words in said
    assert "degree" not in said
    assert study.read_bytes() == before
    assert not study.with_name("fits.confirmation.h5").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--top", "2", "--seeds", "2"], "1 degree of freedom"),
        (["--top", "2", "--seeds", "3"], "--seeds 4"),
        (["--top", "3", "--seeds", "1"], "more seeds"),
        (["--top", "1", "--seeds", "1"], "no other trial to compare with"),
    ],
)
def test_repeats_that_will_tell_little_are_said_beforehand(
    args: list[str], words: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["confirm", str(study), "--dry-run", "--cluster", "local", *args]) == 0
    assert words in capsys.readouterr().err


def confirmed_study(path: Path, recorded: Sequence[Repeat], planned: Sequence[Repeat]) -> Path:
    """The study at ``path`` with repeats beside it, as a run that was stopped would leave them."""
    plan = plan_of(path, planned)
    described = study_meta(plan)
    with reader.open(path) as results:
        known = {"callable_sha256": results.meta.provenance["callable_sha256"]}
    store = Store.open(plan.results, replace(described, provenance={**described.provenance, **known}))
    for number, (trial, seed, half) in enumerate(recorded):
        put(store, record(number, 1 + number / 100, params={"trial": trial, "seed": seed, "half": half}))
    store.finish()
    return path


def plan_of(path: Path, planned: Sequence[Repeat]) -> StudyPlan:
    with reader.open(path) as results:
        inner = read_plan(results.meta, results.records(), path, ())
        plan = plan_repeats(inner, results.meta, results.records(), planned, results.id)
    return engines.get(plan.engine).validate(plan)


def test_what_is_missing_is_listed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By trial and seed; once nothing is, the file is named that has it all, and no other."""
    done = [(3, 1, 0), (1, 1, 0), (3, 2, 0), (1, 2, 0)]
    confirmed_study(study, done, done)
    args = ["confirm", str(study), "--dry-run", "--cluster", "local"]
    assert main([*args, "--trials", "3", "--seeds", "4"]) == 0
    said = capsys.readouterr().err
    assert "missing   trial 3 with seeds 3, 4\n" in said
    assert "6 runs, 4 recorded already" in said
    assert main([*args, "--top", "2", "--seeds", "2"]) == 0
    assert "missing   " not in capsys.readouterr().err
    embedding.embed(study, {})
    assert main([*args, "--top", "2", "--seeds", "2"]) == 0
    said = capsys.readouterr().err
    assert "nothing left to do" in said
    assert "fits.confirmation.h5" not in said


def test_missing_repeats_in_words() -> None:
    assert missing_text([(5, 12, 0)]) == "trial 5 with seed 12"
    both = [(5, 8, 1), (5, 8, 2)]
    assert missing_text(both) == "first half of trial 5, seed 8; second half of trial 5, seed 8"
    assert missing_text([(5, 8, 0), (3, 8, 0), (5, 9, 0), both[0]]) == (
        "trial 5 with seeds 8, 9; trial 3 with seed 8; first half of trial 5, seed 8"
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--frc"], "half of the data"),
        (["--trials", "7"], "no such trial"),
        (["--trials", "1,1"], "twice"),
        (["--trials", "1;2"], "commas"),
        (["--top", "0"], "at least 1"),
        (["--seeds", "99999999"], "more than"),
        (["--top", "2", "--trials", "1"], "not allowed with"),
        (["--set", "parameters"], "key=value"),
        (["--set", "engine.objective=min"], "would not be comparable"),
        (["--set", "engine.callable=nowhere.py:fit"], "nowhere.py"),
    ],
)
def test_refused_in_one_line(args: list[str], words: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["confirm", str(study), "--cluster", "local", *args]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert "--results" not in said  # which confirm has not
    assert not study.with_name("fits.confirmation.h5").exists()


def test_where_something_is_by_now_is_asked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not of a setting that was just given."""
    study = finish_study(tmp_path)
    confirmed_study(study, [(3, 1, 0)], [(3, 1, 0)])  # of which the same is said as of the study
    (tmp_path / "fit.py").rename(tmp_path / "moved.py")
    args = ["confirm", str(study), "--cluster", "local", "--dry-run"]
    assert main(args) == 2
    assert "--set engine.callable=NEW" in capsys.readouterr().err
    for given in ("engine.callable=nowhere.py:fit", "engine={callable: nowhere.py:fit}"):
        assert main([*args, "--set", given]) == 2
        said = capsys.readouterr().err
        assert "no such file" in said
        assert "=NEW" not in said
    assert main([*args, "--set", f"engine.callable={tmp_path}/moved.py:fit"]) == 0
    said = capsys.readouterr().err
    assert said.count("has the function that was") == 1


def test_a_confirmation_is_not_confirmed(study: Path, finished: Path) -> None:
    """Nor a file that does not say how its trials were run, nor is the engine of repeats one for params files."""
    from confirm_cases import run_repeats
    from store_cases import packed

    other = packed(study.with_name("other.h5"), [record(0)], config_json="")
    with pytest.raises(UnusableResults, match="how its trials were run"):
        api.confirm(other, progress=False)
    companion = run_repeats(packed(study.with_name("third.h5"), [record(0)]), [(0, 1, 0)])
    with pytest.raises(UsageError, match="is a confirmation itself"):
        api.confirm(companion, progress=False)
    with pytest.raises(UsageError, match=r"ptydask confirm FILE\.h5"):
        api.validate(finished.with_name("sweep.yaml"), engine="repeat")


@pytest.mark.parametrize(
    "changes",
    [{"search_space_json": '{"scale": {}}'}, {"search_space_json": "{"}, {"config_json": "[1"}, {"engine": ""}],
    ids=str,
)
def test_a_file_that_does_not_say_how_its_trials_were_run(changes: dict[str, str], tmp_path: Path) -> None:
    """As one that was rebuilt, or that something else wrote: one line."""
    from store_cases import packed

    with pytest.raises(UnusableResults, match="how its trials were run"):
        api.confirm(packed(tmp_path / "a.h5", [record(0)], **changes), progress=False)


def test_a_companion_of_another_study_is_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where ``fits.h5`` was made anew and the repeats of its predecessor are still there; they are left alone."""
    from confirm_cases import run_repeats
    from store_cases import packed

    beside = study.with_name("fits.confirmation.h5")
    run_repeats(packed(study.with_name("other.h5"), [record(0)]), [(0, 1, 0)]).rename(beside)
    before = beside.read_bytes()
    for dry in ([], ["--dry-run"]):
        assert main(["confirm", str(study), "--cluster", "local", *dry]) == 2
        said = capsys.readouterr().err
        assert "fits.confirmation.h5: holds no repeats of fits.h5" in said
        assert "--results" not in said
    assert beside.read_bytes() == before


@pytest.mark.slow
def test_failed_repeats_are_counted_and_said(tmp_path: Path, ptydask: Ptydask) -> None:
    """Exit code 3, and they are not run again."""
    sweep = write_sweep(tmp_path)
    assert ptydask("run", sweep, "--cluster", "local").returncode == 0
    path = tmp_path / "fits.h5"
    fit = tmp_path / "fit.py"
    fit.write_text(
        fit.read_text().replace("    draw", "    if os.environ['PTYDASK_SEED'] == '2': raise OSError('dead')\n    draw")
    )
    done = ptydask("confirm", path, "--cluster", "local", "--top", 2, "--seeds", 2)
    assert done.returncode == 3, done.stderr
    assert repeats(path) == grid(best(path, 2), [1, 2])
    assert "fit.py has changed since" in done.stderr
    assert "nothing left to do" in ptydask("confirm", path, "--cluster", "local", "--top", 2, "--seeds", 2).stderr


# --- stopped, killed ----------------------------------------------------------------------------------


def start(study: Path, log: Path, *args: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ptydask", "confirm", str(study), "--cluster", "local", *map(str, args)]
    with log.open("ab") as stream:
        return subprocess.Popen(command, stderr=stream, stdout=stream, start_new_session=True, cwd=study.parent)


def told(log: Path) -> int:
    return len(re.findall(r"^repeat \d+/\d+: .* complete", log.read_text(), re.MULTILINE))


@pytest.mark.slow
@pytest.mark.second
@pytest.mark.timeout(600)
def test_killed_again_and_again(tmp_path: Path) -> None:
    """SIGKILL to the driver, or to all processes, after one more repeat each time: in the end each is there once."""
    study, log, chance = finish_study(tmp_path, sleep=0.05), tmp_path / "log", random.Random(7)
    log.touch()
    args = ("--top", 4, "--seeds", 3, "--workers", 2)
    wanted = grid(best(study, 4), [1, 2, 3])
    for turn in range(5):
        before, process = told(log), start(study, log, *args)
        while told(log) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if turn % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        psutil.wait_procs(below, timeout=20)
        found = repeats(study)
        assert max(found.values()) == 1
        assert found <= wanted
        assert sum(found.values()) > turn
    assert start(study, log, *args).wait(timeout=120) == 0, log.read_text()[-3000:]
    assert repeats(study) == wanted
    assert sorted(path.name for path in tmp_path.glob("fits*")) == ["fits.h5"]
    assert verify.verify(study).intact


@pytest.mark.slow
def test_a_worker_killed_in_its_repeat(tmp_path: Path) -> None:
    """It is tried again; every repeat is there once."""
    study, log = finish_study(tmp_path, sleep=0.2), tmp_path / "log"
    log.touch()
    process = start(study, log, "--top", 3, "--seeds", 3, "--workers", 2)
    while told(log) < 2:
        time.sleep(0.02)
        assert process.poll() is None, log.read_text()
    workers_of(process.pid)[0].kill()
    assert process.wait(timeout=120) == 0, log.read_text()
    assert repeats(study) == grid(best(study, 3), [1, 2, 3])


@pytest.mark.slow
def test_stopped_by_ctrl_c_and_asked_for_something_else(tmp_path: Path) -> None:
    """130, and the repeats so far count; what was begun is finished beside what is asked for then."""
    study, log = finish_study(tmp_path, sleep=0.05), tmp_path / "log"
    log.touch()
    process = start(study, log, "--top", 2, "--seeds", 4)
    while told(log) < 2:
        time.sleep(0.02)
        assert process.poll() is None, log.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "the same command goes on" in log.read_text()
    assert "of 8 repeats recorded" in log.read_text()
    assert "ptydask pack" not in log.read_text()
    assert 2 <= sum(repeats(study).values()) < 8
    assert start(study, log, "--top", 3, "--seeds", 1).wait(timeout=120) == 0, log.read_text()
    assert repeats(study) == grid(best(study, 2), [1, 2, 3, 4]) | grid(best(study, 3), [1])


@pytest.mark.slow
def test_a_study_that_stopped_has_its_repeats_beside_it(tmp_path: Path, ptydask: Ptydask) -> None:
    """Until it is packed: then the same command puts them in."""
    path = write_sweep(tmp_path, trials=20, sleep=0.1)
    process = subprocess.Popen([sys.executable, "-m", "ptydask", "run", str(path), "--cluster", "local"], cwd=tmp_path)
    study = tmp_path / "fits.h5"
    while len(list(tmp_path.glob("fits.trials/*.h5"))) < 3 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    args = ("confirm", study, "--cluster", "local", "--top", 1, "--seeds", 1)
    done = ptydask(*args)
    assert done.returncode == 0, done.stderr
    assert "fits.confirmation.h5" in done.stderr
    assert sum(repeats(study).values()) == 1
    assert ptydask("pack", study).returncode == 0
    assert sum(repeats(study).values()) == 1
    assert ptydask(*args).returncode == 0
    assert not study.with_name("fits.confirmation.h5").exists()
    assert sum(repeats(study).values()) == 1


@pytest.mark.ptyrad
@pytest.mark.slow
@pytest.mark.second
def test_halves_of_the_data(tmp_path: Path, ptydask: Ptydask) -> None:
    """``--frc`` with PtyRAD: two reconstructions of each trial that have no data in common, and how far they agree.

    Data that moved are named with ``--set``, and are known by their bytes.
    """
    demo = ("demo", "demo", "--electrons", "3000")
    assert ptydask(*demo).returncode == 0
    quick = ("--set", "recon_params.NITER=2", "--trials", 2, "--workers", 1, "--cluster", "local")
    assert ptydask("run", "demo/params.yaml", *quick).returncode == 0
    data, moved = tmp_path / "demo" / "patterns.h5", tmp_path / "moved.h5"
    data.rename(moved)
    confirm = ("confirm", "demo/demo.h5", "--top", 1, "--seeds", 1, "--frc", "--cluster", "local", "--workers", 1)
    done = ptydask(*confirm)
    assert done.returncode == 2
    assert "--set init_params.meas_params.path=NEW" in done.stderr
    assert "demo.h5" in done.stderr
    assert ptydask("demo", "other", "--seed", "5").returncode == 0
    key = "init_params.meas_params.path"
    done = ptydask(*confirm, "--set", f"{key}={tmp_path / 'other' / 'patterns.h5'}")
    assert done.returncode == 2
    assert "of other data" in done.stderr
    done = ptydask(*confirm, "--set", f"{key}={moved}")
    assert done.returncode == 0, done.stderr
    assert "has the data that were at" in done.stderr
    study = tmp_path / "demo" / "demo.h5"
    trial = best(study, 1)[0]
    assert set(repeats(study)) == {(trial, 8, half) for half in (0, 1, 2)}
    with reader.open(study) as results:
        confirmation = results.confirmation()
        assert confirmation is not None
        with confirmation:
            ring = confirmation.ring_curves()[trial]
            phases = [confirmation.trial(n).arrays["object_phase"].read() for n in range(3)]
    assert len(ring.correlation) == len(ring.half_bit) == len(ring.spatial_frequency)
    assert 0 < ring.area < 0.99
    assert ring.resolution == 1 / (ring.crossing or ring.spatial_frequency[-1])
    assert not (phases[1] == phases[2]).all()
    assert not (phases[0] == phases[1]).all()
