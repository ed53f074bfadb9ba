"""Staged runs through the command line and from Python, on real workers, with the quick engine of tests/plugins."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from stage_cases import ROTATIONS, SCALES, grid, summarise, write_staged

import ptydask as package
from ptydask import config, engines
from ptydask.clusters.local import ThisMachine
from ptydask.config import Overrides
from ptydask.driver import stages
from ptydask.driver.conduct import prepare
from ptydask.driver.prepare import RunRequest
from ptydask.errors import ConfigError, DataError, PtydaskError, StoreError
from ptydask.model import StudyPlan
from ptydask.store import reader

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]
NAMES = ("rough", "turn", "again", "final")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "out" / "toy.h5"


def run(ptydask: Ptydask, params: Path, *args: object, **more: object) -> subprocess.CompletedProcess[str]:
    return ptydask("run", params, "--engine", "toy", "--workers", 2, *args, **more)


def in_process(params: Path, **more: Any) -> Any:
    return package.run(params, engine="toy", workers=2, cluster="local", progress=False, **more)


def attributes(results: Path, attribute: str) -> set[object]:
    """What the trials of all stages have of that name."""
    with reader.open(results) as file:
        values = set[object]()
        for name in file.stage_names():
            with file.stage(name) as stage:
                values |= {stage.trial(record.number).attributes[attribute] for record in stage.records()}
    return values


def test_stage_by_stage_into_one_file(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Each has its trials, the values of those before it, and a study of its own; the workers and their data stay."""
    params = write_staged(toy_params)
    done = run(ptydask, params)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in results.parent.iterdir()) == ["toy.h5", "toy.journal"]
    rough, turn, again, final = summarise(results)
    assert (rough["name"], turn["name"], again["name"], final["name"]) == NAMES
    assert [len(stage["trials"]) for stage in (rough, turn, again, final)] == [len(SCALES), len(ROTATIONS), 3, 1]
    assert rough["values"] == {}
    assert turn["values"] == {"scale": 0.9}
    assert again["values"] == {"scale": 0.9, "rotation": 0.5}
    assert final["origins"] == {"scale": "again", "rotation": "turn"}
    assert final["best"] == {}
    assert len(attributes(results, "pid")) <= 2, "a worker was started anew"
    assert attributes(results, "loads") == {1}, "a worker loaded its data anew"
    storage = JournalStorage(JournalFileBackend(str(results.with_suffix(".journal"))))
    assert set(optuna.get_all_study_names(storage)) == {f"toy {name}" for name in NAMES}
    for name in NAMES:
        assert f": {name} " in done.stderr
    assert "scale=0.9 rotation=0.5" in done.stdout
    again_done = run(ptydask, params)
    assert (again_done.returncode, again_done.stdout) == (0, "")
    assert "nothing left to do" in again_done.stderr
    assert "4 stages" in again_done.stderr


@pytest.mark.slow
def test_a_border_is_crossed_once(
    toy_params: Params, results: Path, ptydask: Ptydask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended after a stage is packed and before the next has begun, or right after that: the same command goes on."""
    params, begin = write_staged(toy_params), stages.staging.begin_stage
    begun: list[str] = []

    def broken(path: Path, meta: Any) -> None:
        begun.append(meta.lineage.name)
        if len(begun) % 2:
            raise KeyboardInterrupt
        begin(path, meta)
        raise KeyboardInterrupt

    monkeypatch.setattr(stages.staging, "begin_stage", broken)
    for _ in range(6):
        with pytest.raises(KeyboardInterrupt):
            in_process(params)
    monkeypatch.undo()
    assert begun == ["turn", "turn", "again", "again", "final", "final"]
    in_process(params)
    interrupted = summarise(results)
    results.unlink()
    results.with_suffix(".journal").unlink()
    in_process(params)
    assert summarise(results) == interrupted


@pytest.mark.slow
def test_a_border_with_a_file_in_another_state(
    toy_params: Params, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The params file is read once, whatever is made of it meanwhile; what is left of damaged trials does no harm."""
    params, begin = write_staged(toy_params), stages.staging.begin_stage
    damaged = results.with_name("toy.trials") / "damaged" / "000007.h5"

    def meanwhile(path: Path, meta: Any) -> None:
        begin(path, meta)
        params.write_text("init_params: {")
        damaged.parent.mkdir(parents=True, exist_ok=True)
        damaged.touch()

    monkeypatch.setattr(stages.staging, "begin_stage", meanwhile)
    in_process(params)
    assert [stage["name"] for stage in summarise(results)] == [*NAMES]
    assert damaged.exists()


@pytest.mark.slow
def test_a_start_that_is_gone_is_missed_where_trials_are_left(
    toy_params: Params, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose arrays were dropped when the file was packed: a finished study is finished all the same."""

    def gone(*_: object) -> Any:
        raise StoreError("nothing can start from trial 0")

    one = {"name": "rough", "tune": ["scale"], "sampler": grid(scale=SCALES)}
    in_process(write_staged(toy_params, [{**one, "trials": 2}], None))
    monkeypatch.setattr(stages, "read_stage_start", gone)
    in_process(write_staged(toy_params, [{**one, "trials": 2}], None))
    with pytest.raises(StoreError, match="nothing can start"):
        in_process(write_staged(toy_params, [{**one, "trials": 3}], None))
    assert [len(stage["trials"]) for stage in summarise(results)] == [2]


@pytest.mark.slow
def test_the_time_is_that_of_the_whole_command(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """A stage that begins late has what is left of it; the same command goes on in its stage."""
    params = write_staged(toy_params, sleep=0.15)
    early = run(ptydask, params, "--timeout", 1.2)
    assert early.returncode == 75, early.stderr
    with reader.open(results) as file:
        assert file.stage_names()[0] == "rough"
        assert len(file.stage_names()) < 4
    assert run(ptydask, params).returncode == 0
    assert [stage["name"] for stage in summarise(results)] == [*NAMES]


@pytest.mark.slow
def test_other_stages_are_refused(ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path) -> None:
    """A file with stages is none without, nor the reverse; finished stages stay; more may come after them."""
    params = write_staged(toy_params, final=None)
    assert run(ptydask, params).returncode == 0
    before = results.read_bytes()
    section = yaml.safe_load(params.read_text())["ptydask"]["stages"]

    def with_stages(*chosen: dict[str, Any]) -> Path:
        whole = yaml.safe_load(params.read_text())
        whole["ptydask"] = {"stages": [*chosen]}
        other = tmp_path / "other.yaml"
        other.write_text(yaml.safe_dump(whole, sort_keys=False))
        return other

    first, second, third = section
    for other, options in (
        (params, ("--stages", "none", "--trials", 3)),
        (with_stages(first, third), ()),
        (with_stages({**first, "name": "coarse"}, second, third), ()),
        (with_stages({**first, "metric": "contrast"}, second, third), ()),
        (params, ("--set", "init_params.iterations=9")),
    ):
        refused = run(ptydask, other, *options)
        assert refused.returncode == 2, refused.stderr
        assert refused.stderr.count("\n") == 1
        assert ("ptydask.stages[0].metric" in refused.stderr) is ("contrast" in other.read_text())
    assert results.read_bytes() == before
    raised = run(ptydask, with_stages({**first, "trials": 9, "sampler": grid(scale=[*SCALES, 0.8])}, second, third))
    assert raised.returncode == 0, raised.stderr
    assert "stage rough is over with 4 trials" in raised.stderr
    last = {"name": "more", "tune": ["rotation"], "trials": 2, "sampler": grid(rotation=[0.5, 2.0])}
    more = run(ptydask, with_stages(first, second, third, last))
    assert more.returncode == 0, more.stderr
    assert [stage["name"] for stage in summarise(results)] == ["rough", "turn", "again", "more"]


@pytest.mark.slow
def test_a_flat_study_stays_one(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Its file is not gone on with in stages."""
    assert run(ptydask, toy_params(n_trials=1)).returncode == 0
    refused = run(ptydask, write_staged(toy_params))
    assert refused.returncode == 2
    assert "ptydask.stages" in refused.stderr
    with pytest.raises(ConfigError, match="without stages"):
        in_process(write_staged(toy_params))


@pytest.mark.slow
def test_a_stage_in_which_nothing_completes_ends_the_run(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """In one line, each time; nothing after it has begun."""
    fails = [
        {"name": "rough", "tune": ["scale"], "trials": 2, "sampler": grid(scale=SCALES)},
        {"name": "turn", "tune": ["rotation"], "trials": 2},
    ]
    params = write_staged(toy_params, fails, None, fail=1000.0)
    for _ in range(2):
        hopeless = run(ptydask, params)
        assert hopeless.returncode == PtydaskError.exit_code, hopeless.stderr
        assert "stage rough: none of its 2 trials completed" in hopeless.stderr
    with reader.open(results) as file:
        assert file.stage_names() == ("rough",)


@pytest.mark.slow
def test_who_is_told_is_told_once_of_all(ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path) -> None:
    """One notification, of the last stage; a trial that failed in any stage shows in the exit code."""
    told = tmp_path / "told"
    done = run(ptydask, write_staged(toy_params, fail=-1.5), "--notify", f"cat >> {told}")
    assert done.returncode == 3, done.stderr
    (line,) = told.read_text().splitlines()
    assert "toy final finished" in line


@pytest.mark.slow
def test_what_ends_a_stage_early_does_not_end_the_run(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """``stop_when`` of a stage: the next one begins; the same command finds nothing left in either."""
    points = [0.8 + 0.02 * i for i in range(20)]
    early = [
        {
            "name": "rough",
            "tune": ["scale"],
            "trials": len(points),
            "sampler": grid(scale=points),
            "stop_when": {"gain": "1 %", "trials": 3},
        },
        {"name": "turn", "tune": ["rotation"], "trials": 2, "sampler": grid(rotation=ROTATIONS[:2])},
    ]
    params = write_staged(toy_params, early, None, sleep=0.02)
    done = run(ptydask, params)
    assert done.returncode == 0, done.stderr
    rough, turn = summarise(results)
    assert 4 <= len(rough["trials"]) < len(points)
    assert len(turn["trials"]) == 2
    assert "no gain" in done.stderr
    again = run(ptydask, params)
    assert "nothing left to do" in again.stderr
    assert "stage rough is over" not in again.stderr


@pytest.mark.slow
def test_each_stage_has_its_own_sqlite_study(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """``sqlite://``: NAME STAGE, with all of its trials."""
    url = f"sqlite:///{tmp_path / 'toy.db'}"
    done = run(ptydask, write_staged(toy_params), "--storage", url)
    assert done.returncode == 0, done.stderr
    counts = {name: len(optuna.load_study(study_name=f"toy {name}", storage=url).trials) for name in NAMES}
    assert counts == dict(zip(NAMES, (4, 5, 3, 1), strict=True))


def test_that_nothing_can_settle_names_its_stage(toy_params: Params) -> None:
    """Nobody expects it of the final stage, which tunes nothing."""
    params = write_staged(toy_params)
    planned = stages.plan_stages(params, Overrides(engine="toy", until_settled=True))
    notices = {stage.stage.name: [text for text in stage.plan.notices if "can settle" in text] for stage in planned}
    assert [name for name, texts in notices.items() if texts] == ["rough", "turn", "again"]
    assert all(text.startswith("stages rough, turn, again: ") for texts in notices.values() for text in texts)


def test_a_later_stage_without_room_is_refused_before_the_first(
    toy_params: Params, toy_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine; another has room of its own."""

    def check(plan: StudyPlan) -> None:
        if plan.lineage is not None and plan.lineage.name == "again":
            raise DataError("does not fit")

    monkeypatch.setattr(engines, "check_machine", check)
    params = write_staged(toy_params)
    request = RunRequest(params, Overrides(engine="toy"), cluster="local", workers=1)
    with pytest.raises(DataError, match=r"does not fit .*stage again"):
        prepare(request, config.read(params))
    monkeypatch.setattr(ThisMachine, "here", False)
    assert prepare(request, config.read(params)).plan.lineage is not None
