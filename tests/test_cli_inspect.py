"""``ls``, ``best``, ``show`` and ``status`` on real results files, packed and while a driver holds them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import store_cases
import yaml

from ptydask import cli, formatting
from ptydask.cli import describe, formats, inspect, status
from ptydask.model import Image, Quantity, Reason, StudyMeta, TrialOutput, TrialRecord, TrialState
from ptydask.run_snapshot import RunningTrial, RunSnapshot
from ptydask.store import Store, reader, shard

THIRD = 1 / 3
RECORDS = (
    TrialRecord(
        0, TrialState.COMPLETE, 0.02, {"scale": 1.0, "rotation": 0.0, "optimizer": "Adam"},
        {"loss": 0.02, "contrast": -0.3}, origin="start", started="2026-01-02T03:04:05+01:00", seconds=34.1,
        worker="w-0", host="node1", device="cpu",
    ),
    TrialRecord(
        1, TrialState.COMPLETE, THIRD / 100, {"scale": 0.98, "rotation": -1.5, "optimizer": "SGD"},
        {"loss": THIRD / 100, "contrast": -0.4}, seconds=30.0,
    ),
    TrialRecord(
        2, TrialState.PRUNED, 0.9, {"scale": 1.2, "rotation": 4.0, "optimizer": "Adam"}, {"loss": 0.9},
        reason=Reason.PRUNED, seconds=5.0,
    ),
    TrialRecord(
        3, TrialState.FAIL, None, {"scale": 1.1, "rotation": 2.0, "optimizer": "Adam"}, reason=Reason.FAILED,
        message="RuntimeError: CUDA out of memory", traceback="Traceback (most recent call last):\n  boom\x1b[2J\n",
        seconds=1.0,
    ),
    TrialRecord(
        5, TrialState.COMPLETE, 0.01, {"scale": 1.02, "rotation": -1.0, "optimizer": "Adam"},
        {"loss": 0.01, "contrast": math.nan}, attempt=2, retry_of=4, seconds=3661.0,
    ),
)  # fmt: skip
OUTPUT = TrialOutput(
    metrics={"loss": 0.01},
    curve={"step": [1, 2, 3], "loss": [0.03, THIRD, 0.01]},
    arrays={
        "object_phase": Quantity(np.zeros((1, 2, 4, 5), np.float32), "rad"),
        "probe": Quantity(np.ones((1, 4, 4), "c8")),
    },
    image=Image(np.arange(20.0).reshape(4, 5), np.arange(4) * 0.5, np.arange(5) * 0.5, "rad", "angstrom", "phase"),
    snapshots={2: {"object_phase": Quantity(np.zeros((1, 2, 4, 5), np.float32), "rad")}},
    attributes={"pixel_size": 0.42},
    log="\n".join(f"line {i}" for i in range(30)),
)  # fmt: skip
META = StudyMeta(
    name="tBL/WSe2",
    direction="minimize",
    metric="loss",
    engine="ptyrad",
    config_text="",
    config_format="yaml",
    config_json=json.dumps(
        {
            "init_params": {"pos_scan_affine": None, "probe_kv": 80},
            "hypertune_params": {"if_hypertune": True},
            "recon_params": {"NITER": 5},
        }
    ),
    search_space_json="{}",
)


def begun(path: Path, records: tuple[TrialRecord, ...], meta: StudyMeta) -> Store:
    """A store with these trials."""
    store = Store.open(path, meta)
    for record in records:
        output = OUTPUT if record.state is TrialState.COMPLETE else None
        written = shard.write(store.folder, record, output, meta.keep, direction=meta.direction, metric=meta.metric)
        store.add(record, written)
    return store


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a results file of these records: packed, or ``held`` by a driver (this process) that said ``run``."""
    held: list[Store] = []

    def study(
        records: tuple[TrialRecord, ...] = RECORDS, meta: StudyMeta = META, run: RunSnapshot | None = None
    ) -> Path:
        path = tmp_path / "results.h5"
        store = begun(path, records, meta)
        if run is None:
            store.finish()
            store.close()  # as a driver does on its way out: it must not undo the packing
        else:
            store.write_status(run)
            store.refresh(force=True)
            held.append(store)
        return path

    yield study
    for store in held:
        store.close()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RECORDS in one file."""
    return begun(tmp_path_factory.mktemp("once") / "results.h5", RECORDS, META).finish()


@pytest.fixture
def packed(once: Path, tmp_path: Path) -> Path:
    """A copy of ``once``, for each test its own."""
    return shutil.copy(once, tmp_path / "results.h5")


def run_of(path: Path) -> RunSnapshot:
    return RunSnapshot(
        study="tBL/WSe2",
        results=path,
        total=20,
        counts={"complete": 3, "pruned": 1, "failed": 1, "running": 1, "lost": 1},
        best=RECORDS[1],
        running=(RunningTrial(6, {"scale": 1.04}, 7, math.nan, "w-1", 12.5),),
        workers=2,
        seconds=725.0,
        remaining=3840.0,
        iterations=20,
        metric="loss",
        direction="minimize",
    )


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs one command and gives its stdout; nothing may be on stderr, and the exit code must be 0."""

    def run(*args: object, code: int = 0, err: str = "") -> str:
        capsys.readouterr()
        assert cli.main([str(arg) for arg in args]) == code
        out, said = capsys.readouterr()
        assert re.search(err, said) if err else said == ""
        return out

    return run


# --- ls ------------------------------------------------------------------------------------------------


def test_ls_json_is_exact(packed: Path, call: Callable[..., str]) -> None:
    """JSON has every trial with every fact; numbers keep every digit and NaN is null."""
    listed = json.loads(call("ls", packed, "--format", "json"))
    assert [item["number"] for item in listed] == [0, 1, 2, 3, 5]
    assert listed[1]["error"] == THIRD / 100
    assert listed[1]["params"] == RECORDS[1].params
    assert listed[2]["state"] == "PRUNED"
    assert listed[3]["error"] is None
    assert listed[3]["message"] == "RuntimeError: CUDA out of memory"
    assert listed[4]["metrics"] == {"loss": 0.01, "contrast": None}
    assert (listed[4]["attempt"], listed[4]["retry_of"], listed[4]["seconds"]) == (2, 4, 3661.0)
    wanted = {"number", "state", "error", "params", "metrics", "attempt", "seconds", "reason", "message", "retry_of"}
    assert wanted | {"origin", "started", "worker", "host", "device"} <= listed[0].keys()


def test_ls_yaml_and_csv_say_the_same(packed: Path, call: Callable[..., str]) -> None:
    """YAML loads to the same list; CSV has one column per parameter and metric, with every digit."""
    as_json = json.loads(call("ls", packed, "--format", "json"))
    as_yaml = yaml.safe_load(call("ls", packed, "--format", "yaml"))
    assert math.isnan(as_yaml[4]["metrics"].pop("contrast"))
    as_json[4]["metrics"].pop("contrast")
    assert as_yaml == as_json
    rows = list(csv.DictReader(io.StringIO(call("ls", packed, "--format", "csv"))))
    assert list(rows[0])[:8] == [
        "number", "state", "error", "params.scale", "params.rotation", "params.optimizer",
        "metrics.loss", "metrics.contrast",
    ]  # fmt: skip
    assert float(rows[1]["error"]) == THIRD / 100
    assert rows[3]["error"] == ""
    assert rows[4]["metrics.contrast"] == "nan"


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("ls", ("ls results.h5", "ls results.h5 --sort error --top 2", "ls results.h5 --format csv")),
        ("best", ("best results.h5", "best results.h5 -k 2")),
        ("show", ("show results.h5 5", "show results.h5 3")),
        ("status", ("status results.h5",)),
    ],
)
def test_the_whole_text(
    command: str,
    lines: tuple[str, ...],
    packed: Path,
    call: Callable[..., str],
    golden: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a pipe, word for word: a golden file for each command."""
    monkeypatch.chdir(packed.parent)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    golden(command, {line: call(*line.split()) for line in lines})


def test_ls_table_in_a_pipe(packed: Path, call: Callable[..., str]) -> None:
    """In a pipe the table is plain aligned text."""
    lines = call("ls", packed).splitlines()
    ends = {re.match(r" *\S+  \S+ +\S+", line).end() for line in lines}  # type: ignore[union-attr]
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ("", [0, 1, 2, 3, 5]),
        ("--reverse", [5, 3, 2, 1, 0]),
        ("--sort error", [1, 5, 0, 2, 3]),
        ("--sort error --reverse", [2, 0, 5, 1, 3]),
        ("--sort error --top 2", [1, 5]),
        ("--sort loss --state complete", [1, 5, 0]),
        ("--sort rotation", [1, 5, 0, 3, 2]),
        ("--sort params.scale --top 1", [1]),
        ("--sort contrast", [0, 1, 2, 3, 5]),
        ("--sort metrics.contrast --reverse", [1, 0, 2, 3, 5]),
        ("--sort optimizer", [0, 2, 3, 5, 1]),
        ("--sort seconds --reverse --top 1", [5]),
        ("--state pruned", [2]),
        ("--state failed", [3]),
    ],
)
def test_ls_order(packed: Path, call: Callable[..., str], options: str, numbers: list[int]) -> None:
    """Trials come in the order and number asked for; what has no value, or NaN, is last either way."""
    listed = json.loads(call("ls", packed, "--format", "json", *options.split()))
    assert [item["number"] for item in listed] == numbers


def test_larger_may_be_better() -> None:
    """Where the metric is maximised, --sort error and the metric's own name begin with the largest."""
    for name in ("error", "loss", "metrics.loss"):
        chosen = inspect.select_trials(RECORDS, sort=name, direction="maximize", metric="loss")
        assert [r.number for r in chosen] == [2, 0, 5, 1, 3]
    chosen = inspect.select_trials(RECORDS, sort="error", reverse=True, direction="maximize", metric="loss")
    assert [r.number for r in chosen] == [1, 5, 0, 2, 3]


@pytest.mark.parametrize(
    ("name", "engine", "best"),
    [
        ("robust_contrast", "ptyrad", 2),
        ("metrics.contrast", "ptyrad", 2),
        ("entropy", "ptyrad", 1),
        ("sharpness", "ptyrad", 1),  # of which nothing is known
        ("contrast", "command", 1),
        ("params.contrast", "ptyrad", 1),
        ("gradient.contrast", "ptyrad", 1),
        ("seconds", "ptyrad", 1),
    ],
)
def test_a_metric_whose_direction_is_known_is_listed_best_first(name: str, engine: str, best: int) -> None:
    """Whatever the study tuned; a parameter or a slope of the same name is none."""
    columns: list[dict[str, float]] = [
        {"contrast": n, "robust_contrast": n, "entropy": n, "sharpness": n} for n in (1, 2)
    ]
    trials = [
        replace(RECORDS[0], number=n, seconds=n, params={}, metrics=values, gradient={})
        for n, values in enumerate(columns, 1)
    ]
    if name.startswith(("params.", "gradient.")):
        trials = [
            replace(trial, params={"contrast": trial.number}, gradient={"contrast": trial.number}) for trial in trials
        ]
    for direction in ("minimize", "maximize"):
        chosen = inspect.select_trials(trials, sort=name, top=1, direction=direction, metric="loss", engine=engine)
        assert chosen[0].number == best


def test_an_unknown_column(packed: Path, call: Callable[..., str]) -> None:
    """A column that no trial has is bad usage, and the nearest name is said."""
    assert call("ls", packed, "--sort", "rotatoin", code=2, err="--sort rotatoin.*did you mean 'rotation'") == ""


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5", "1_0", " 1"])
def test_top_is_a_count(packed: Path, call: Callable[..., str], top: str) -> None:
    """--top and -k take whole numbers from 1 on."""
    call("ls", packed, f"--top={top}", code=2, err="must be a whole number, at least 1")
    call("best", packed, "-k", f"{top}", code=2, err="whole number|expected one argument")


def test_nothing_recorded_yet(make: Callable[..., Path], call: Callable[..., str], tmp_path: Path) -> None:
    """A study without trials: an empty list, a line on stderr for a person, 1 from best."""
    path = make((), run=replace(run_of(tmp_path), counts={}, best=None))
    assert json.loads(call("ls", path, "--format", "json")) == []
    assert call("ls", path, "--sort", "error", err="no trials so far") == ""
    assert call("best", path, code=1, err="no trial has completed so far") == ""
    call("show", path, 3, code=2, err="no trial has ended so far")


@pytest.mark.parametrize("command", ["ls", "best", "status"])
def test_no_such_file(tmp_path: Path, call: Callable[..., str], command: str) -> None:
    """A file that is not there is said in one line, and nothing is on stdout."""
    assert call(command, tmp_path / "none.h5", code=2, err=r"^ptydask: \S+none\.h5: [^\n]+\n$") == ""


def test_a_reader_that_leaves(packed: Path) -> None:
    """``ptydask ls | head`` ends quietly."""
    many = f"{sys.executable} -m ptydask ls {packed} --format json"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", f"{many} | true"], capture_output=True, text=True, check=False, env=env)
    assert done.stderr == ""


# --- best ----------------------------------------------------------------------------------------------


def test_the_image_is_where_best_says(packed: Path, make: Callable[..., Path], tmp_path: Path) -> None:
    """The place opens in h5py, of a packed file and of one that grows."""
    import h5py

    for file in (packed, make((*RECORDS, replace(RECORDS[0], number=7)), run=run_of(tmp_path))):
        with reader.open(file) as results:
            for number in (1, 7) if file != packed or not results.packed else (1,):
                name, _, group = describe.trial_location(results, number).partition(":")
                with h5py.File(name, "r", locking=False) as opened:
                    assert opened[f"{group}/image/data"].shape == (4, 5)


def test_best_k(packed: Path, call: Callable[..., str]) -> None:
    """-k gives so many completed trials, best first; pruned and failed ones are not among them."""
    assert [item["number"] for item in json.loads(call("best", packed, "-k", 10, "--format", "json"))] == [1, 5, 0]
    assert re.findall(r"^trial (\d)", call("best", packed, "-k", 2), re.M) == ["1", "5"]
    assert len(call("best", packed, "-k", 2, "--format", "csv").splitlines()) == 3


def test_best_as_params_file(make: Callable[..., Path], call: Callable[..., str]) -> None:
    """The best values are put in place, exactly, in a file that does not tune again."""
    packed = make((RECORDS[0], replace(RECORDS[1], params={"scale": 1 + THIRD, "rotation": -1.5})))
    text = call("best", packed, "--format", "yaml")
    assert text.startswith(f"# tBL/WSe2, trial 1 (complete): loss {THIRD / 100}\n")
    params = yaml.safe_load(text)
    assert params["init_params"]["pos_scan_affine"] == [1 + THIRD, 0, -1.5, 0]
    assert params["hypertune_params"]["if_hypertune"] is False
    assert params["recon_params"] == {"NITER": 5, "SAVE_ITERS": 5}  # without it PtyRAD would save nothing
    call("best", packed, "--format", "yaml", "-k", 2, code=2, err="one trial's values")


def test_best_of_another_engine(make: Callable[..., Path], call: Callable[..., str]) -> None:
    """Where the engine has no params file, YAML is the parameters."""
    path = make(meta=replace(META, engine="command"))
    assert yaml.safe_load(call("best", path, "--format", "yaml")) == RECORDS[1].params


@pytest.mark.parametrize(
    ("own", "direction", "text"),
    [
        (None, "minimize", ""),
        (0.0, "minimize", "0.00500000 worse than"),
        (0.01, "minimize", "50.0% better than"),
        (0.01, "maximize", "50.0% worse than"),
        (-0.01, "minimize", "150.0% worse than"),
        (0.005, "minimize", "no better than"),
        (math.nan, "minimize", ""),
    ],
)
def test_gain(own: float | None, direction: str, text: str) -> None:
    """The gain is the change of the error relative to that of the file's own values, in the study's direction."""
    before = None if own is None else replace(RECORDS[0], error=own)
    said = describe.gain_text(replace(RECORDS[1], error=0.005), before, direction)  # type: ignore[arg-type]
    assert said.startswith(text)
    assert bool(said) is bool(text)
    assert describe.gain_text(RECORDS[0], RECORDS[0], "minimize") == "these are the file's own values"
    assert describe.gain_text(RECORDS[1], replace(RECORDS[0], state=TrialState.PRUNED), "minimize") == ""
    ended = replace(RECORDS[0], state=TrialState.PRUNED, error=0.02, last_step=5)
    assert describe.gain_text(RECORDS[1], ended, "minimize", {5: 0.015, 12: 0.005}).startswith("25.0% better than")
    assert "after step 5" in describe.gain_text(RECORDS[1], ended, "minimize", {5: 0.015})
    assert describe.gain_text(RECORDS[1], ended, "minimize", {4: 0.015}) == ""
    moved = replace(RECORDS[0], origin="near start")
    assert describe.gain_text(moved, moved, "minimize") == "these are the allowed values nearest to the file's"
    assert "than the allowed values nearest to the file's" in describe.gain_text(RECORDS[1], moved, "minimize")


def test_best_beside_values_near_the_files(make: Callable[..., Path], call: Callable[..., str]) -> None:
    """Where the file's values were not allowed, the trial nearest to them is named for what it is."""
    packed = make((replace(RECORDS[0], origin="near start"), RECORDS[1]))
    said = call("best", packed)
    assert "83.3% better than the allowed values nearest to the file's (trial 0: 0.0200000)" in said
    assert re.search(r"rotation +-1\.5 +\(trial 0: 0\)", said)
    assert "values from: the allowed values nearest to the file's," in call("show", packed, 0)


@pytest.mark.parametrize(
    ("computed", "last", "words"),
    [
        (1.5, 6, "6 iterations over a part of the scan, as much as 1.5 iterations"),
        (6.0, 6, "6 iterations,"),
        (7.0, 6, "7 iterations,"),
        (6.0, None, "6 iterations,"),
    ],
)
def test_a_part_of_the_scan_is_named(computed: float, last: int | None, words: str) -> None:
    """Iterations over the whole scan are what a trial cost, those of its own are what its curve counts."""
    record = replace(RECORDS[0], iterations=computed, last_step=last)
    assert words in "\n".join(describe._attempt_lines(record, store_cases.meta()))


# --- show ----------------------------------------------------------------------------------------------


def test_show_json(packed: Path, call: Callable[..., str]) -> None:
    """JSON has all of it: whole curve, whole log, traceback, arrays."""
    shown = json.loads(call("show", packed, 5, "--format", "json"))
    assert shown["curve"]["loss"] == [0.03, THIRD, 0.01]
    assert shown["log"].splitlines()[0] == "line 0"
    assert shown["arrays"][0] == {"name": "object_phase", "shape": [1, 2, 4, 5], "dtype": "float32", "units": "rad"}
    assert shown["snapshots"]["2"][0]["name"] == "object_phase"
    assert "boom" in json.loads(call("show", packed, 3, "--format", "json"))["traceback"]
    assert yaml.safe_load(call("show", packed, 5, "--format", "yaml"))["attributes"] == {"pixel_size": 0.42}


def test_show_csv_is_the_curve(packed: Path, call: Callable[..., str]) -> None:
    """CSV is one line a step, with every digit."""
    rows = list(csv.DictReader(io.StringIO(call("show", packed, 5, "--format", "csv"))))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert float(rows[1]["loss"]) == THIRD


def test_show_names_the_nearest(packed: Path, call: Callable[..., str]) -> None:
    """A number that is not there is bad usage; the nearest that is there is named."""
    call("show", packed, 9, code=2, err="there is no trial 9; the nearest is 5, of 5 trials from 0 to 5")


def test_show_best(packed: Path, call: Callable[..., str]) -> None:
    """``best`` is the best trial's number, as in export; other words are bad usage."""
    assert call("show", packed, "best") == call("show", packed, 1)
    call("show", packed, "worst", code=2, err="'worst' is neither a trial's number nor 'best'")


def test_show_of_an_interrupted_trial(packed: Path, make: Callable[..., Path], call: Callable[..., str]) -> None:
    """A number whose trial was tried again leads to where it was, over more than one step."""
    call("show", packed, 4, code=2, err="trial 4 was interrupted and tried again as trial 5\n")
    packed.unlink()
    twice = make((*RECORDS, replace(RECORDS[1], number=6, retry_of=5)))
    call("show", twice, 4, code=2, err="tried again as trial 5, then 6\n")


@pytest.mark.parametrize("command", ["ls", "best", "status", "info", "verify", "rebuild"])
def test_a_sweep_file_in_place_of_its_results(packed: Path, call: Callable[..., str], command: str) -> None:
    """What was run is told from what came of it, whose name is given: the one file there, or one named after it."""
    sweep = packed.with_name("sweep.yaml")
    sweep.write_text("method: random\n")
    with h5py.File(packed.with_name("sweep.h5"), "w") as measurements:
        measurements["data"] = 1
    words = "sweep.yaml: a params or sweep file, not its results; "
    call(command, sweep, code=2, err=rf"{words}did you mean '\S+results\.h5'\?\n$")
    sweep.write_text("name: 'mine' # a study\nmethod: random\n")
    for name in ("other.h5", "mine.h5"):
        shutil.copy(packed, packed.with_name(name))
    call(command, sweep, code=2, err=rf"{words}did you mean '\S+mine\.h5'\?\n$")
    packed.with_name("mine.h5").unlink()
    call(command, sweep, code=2, err=rf"{words}`ptydask run` says where")


# --- status --------------------------------------------------------------------------------------------


def test_status_of_a_finished_study(packed: Path, call: Callable[..., str]) -> None:
    """A packed file is finished: states, and the best with its parameters."""
    shown = json.loads(call("status", packed, "--format", "json"))
    assert (shown["state"], shown["recorded"], shown["total"]) == ("finished", 5, 5)
    assert shown["best"]["params"] == RECORDS[1].params


def test_status_of_a_running_study(make: Callable[..., Path], call: Callable[..., str], tmp_path: Path) -> None:
    """Of a running study: its driver, states, running trials, workers, time left, when that was said."""
    path = make(run=run_of(tmp_path / "results.h5"))
    said = call("status", path)
    assert said.startswith(f"running: process {os.getpid()} on ")
    for words in ("5/20 trials", "1 running", "1 lost", "7/20", "2 workers", "1 h 04 min left", "ago"):
        assert words in said
    shown = json.loads(call("status", path, "--format", "json"))
    assert (shown["state"], shown["recorded"], shown["total"], shown["workers"]) == ("running", 5, 20, 2)
    assert shown["running"][0]["error"] is None  # NaN
    assert shown["running"][0]["step"] == 7
    assert shown["best"]["error"] == THIRD / 100
    [row] = csv.DictReader(io.StringIO(call("status", path, "--format", "csv")))
    assert (row["state"], row["counts.complete"], row["best"]) == ("running", "3", "1")


def test_status_when_the_driver_was_killed(make: Callable[..., Path], call: Callable[..., str], tmp_path: Path) -> None:
    """A driver that is no more is not taken for a running one, and what is left to do is said."""
    path = make(run=run_of(tmp_path / "results.h5"))
    lock = tmp_path / "results.trials" / "driver.lock"
    owner = json.loads(lock.read_text())
    lock.write_text(json.dumps({**owner, "born": "another process of that number"}))
    said = call("status", path)
    first = " ".join(said.splitlines()[:2])
    assert re.match(r"its driver is gone with 15 trials to go \(process \d+ on .*\); the same command goes on", first)
    assert "workers" not in said
    shown = json.loads(call("status", path, "--format", "json"))
    assert (shown["state"], shown["running"], shown["workers"]) == ("gone", [], 0)
    lock.write_text(json.dumps(owner))


@pytest.mark.parametrize(
    ("driver", "left", "state"),
    [("", None, "finished"), ("", 3, "stopped"), ("process 1", 0, "finished"), ("process 1", 3, "gone")],
)
def test_a_packed_file_is_not_always_finished(driver: str, left: int | None, state: str) -> None:
    """A finished study that was to get more trials, its driver killed before the first of them, is not finished."""
    assert status.study_status(driver, live=False, packed=True, unfinished=left).state == state


def test_status_of_an_extended_study(packed: Path, call: Callable[..., str]) -> None:
    """The same of files: what was packed counts, also where the driver had not written that down yet."""
    run = run_of(packed)
    for said, state in ((run, "gone"), (replace(run, total=5, counts={"complete": 2}), "finished")):
        store = Store.open(packed, META)
        store.write_status(said)
        store._lock.release()  # killed
        assert json.loads(call("status", packed, "--format", "json"))["state"] == state


def test_status_of_an_extended_study_that_was_stopped(packed: Path, call: Callable[..., str]) -> None:
    """Of a packed file that was to get more, stopped before one ended: how many are missing."""
    run = run_of(packed)
    for total, state in ((20, "stopped"), (5, "finished")):
        store = Store.open(packed, META)
        store.write_status(replace(run, total=total, counts={"complete": 5}))
        store.close()
        shown = json.loads(call("status", packed, "--format", "json"))
        assert (shown["state"], shown["total"]) == (state, total)
        assert packed.with_suffix(".trials").exists() == (state == "stopped")
    store = Store.open(packed, META)
    store.write_status(run)
    store.close()
    assert call("status", packed).startswith("stopped with 15 trials to go; the same command goes on from here\n")


def test_status_of_a_stopped_study(make: Callable[..., Path], call: Callable[..., str], tmp_path: Path) -> None:
    """A driver that ended in peace before all was done: stopped, and what is recorded."""
    path = make(run=run_of(tmp_path / "results.h5"))
    (tmp_path / "results.trials" / "status.json").unlink()
    (tmp_path / "results.trials" / "driver.lock").write_text("")
    said = call("status", path)
    assert said.startswith("stopped; the same command goes on from here\n")
    assert "5 trials recorded" in said
    assert "1 h 02 min in all trials together" in said
    assert json.loads(call("status", path, "--format", "json"))["total"] is None


def test_watch_ends_with_the_run(
    make: Callable[..., Path], call: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--watch shows it again after so many seconds, and ends when no driver has the study any more."""
    path = make(run=run_of(tmp_path / "results.h5"))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            (tmp_path / "results.trials" / "driver.lock").write_text("")

    monkeypatch.setattr(status.time, "sleep", sleep)
    said = call("status", path, "--watch", "2.5")
    assert slept == [2.5] * 3
    assert len(re.findall("^running: process", said, re.M)) == 3
    assert said.count("its driver is gone") == 1
    call("status", path, "--watch", "0", code=2, err="number of seconds above 0")


def test_ctrl_c_ends_a_watch(
    make: Callable[..., Path], call: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is how one leaves --watch: 130, no traceback."""

    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    call("status", make(run=run_of(tmp_path / "results.h5")), "--watch", "1", code=130)


def test_moment() -> None:
    """Time stamps are read as seconds since 1970, with and without a zone; nonsense is 0."""
    assert status.parse_timestamp("1970-01-01T01:00:10+01:00") == 10.0
    assert status.parse_timestamp(12) == 12.0
    assert status.parse_timestamp(None) == 0.0


# --- what is printed, and where ------------------------------------------------------------------------


def on_terminal(columns: int, *args: object, environ: dict[str, str] | None = None) -> str:
    """What a command prints on a terminal of that width."""
    main, side = os.openpty()
    termios.tcsetwinsize(side, (24, columns))
    env = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", **(environ or {})}
    env.pop("COLUMNS", None)
    command = [sys.executable, "-m", "ptydask", *map(str, args)]
    said: list[bytes] = []

    def listen() -> None:
        try:
            while chunk := os.read(main, 65536):
                said.append(chunk)
        except OSError:
            return

    listener = threading.Thread(target=listen)
    listener.start()
    done = subprocess.run(command, stdout=side, stderr=side, stdin=side, env=env, check=False)
    os.close(side)
    listener.join()
    os.close(main)
    assert done.returncode == 0
    return b"".join(said).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_tables_fit_the_terminal(packed: Path, columns: int) -> None:
    """On a terminal no line of the table wraps, and what was left out is said."""
    said = on_terminal(columns, "ls", packed)
    table, _, note = said.partition("no room for ")
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in table.splitlines()]
    assert lines[0].split()[:3] == ["trial", "state", "error"]
    assert max(map(len, lines)) <= columns
    assert bool(note) is (columns < 160)
    assert "\x1b[1;32m" in table


def test_no_color_on_a_terminal(packed: Path) -> None:
    """NO_COLOR takes the colours away."""
    assert not re.search(r"\x1b\[[\d;]*3\d", on_terminal(80, "ls", packed, environ={"NO_COLOR": "1"}))


def test_curves_are_drawn_on_a_terminal(packed: Path) -> None:
    """show draws the curve, in blocks or in ASCII as the locale has it."""
    assert re.search("in 3 steps  ▁█▁", on_terminal(80, "show", packed, 5))
    assert re.search("in 3 steps  _#_", on_terminal(80, "show", packed, 5, environ={"LC_ALL": "C"}))


def test_status_is_watched_in_place(packed: Path) -> None:
    """On a terminal --watch draws a frame that fits it."""
    said = on_terminal(60, "status", packed, "--watch", 5)
    assert "finished" in said
    assert "\x1b[?25h" in said


def test_left_out_columns() -> None:
    """The last columns go first; the text of a last column is cut where that is enough."""
    table = formats.Table(("trial", "message"), (("1", "a long story of what went wrong"),), frozenset({0}))
    shown, left_out = formats.fit_table(table, 24)
    assert shown.rows == (("1", "a long story o..."),)
    assert left_out == ()
    shown, left_out = formats.fit_table(table, 12)
    assert (shown.columns, left_out) == (("trial",), ("message",))


def test_window_without_a_terminal() -> None:
    """What is no terminal counts as 80 by 24."""
    assert formatting.window_size(io.StringIO()) == (80, 24)


def test_numpy_values_are_plain() -> None:
    """NumPy's numbers are written as numbers, in JSON with null for what it has no number for."""
    values = {"a": np.float32(0.5), "b": np.array([1.0, np.inf]), "c": (np.int64(3),)}
    assert json.loads(formats.json_text(values)) == {"a": 0.5, "b": [1.0, None], "c": [3]}
    assert yaml.safe_load(formats.yaml_text(values)) == {"a": 0.5, "b": [1.0, math.inf], "c": [3]}


def test_help_imports_the_standard_library_alone() -> None:
    """The command line knows these commands without importing anything that takes time."""
    code = "import sys; from ptydask.cli import inspect; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "h5py", "rich", "yaml", "optuna", "dask", "distributed", "torch", "ptyrad"}
    assert not heavy & set(done.stdout.split())
