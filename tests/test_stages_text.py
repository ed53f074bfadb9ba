"""The stages of a study in words, and what each of them costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stage_cases import write_staged

from ptydask import validate
from ptydask.cli import main
from ptydask.config.stages import Around, PatternPart, Stage
from ptydask.distributions import Choice, FloatRange, IntRange
from ptydask.driver.cost import StageCost, estimate_stages
from ptydask.lineage import StageLineage
from ptydask.model import Budget, ComponentSpec, SourceFile, StudyPlan, TrialRecord, TrialState
from ptydask.progress.stages_text import WIDTH, end_text, share_text, stages_lines, tuned_text
from ptydask.ranking import NoGain
from ptydask.store import reader

DZ = FloatRange(10.0, 20.0, 0.5)
NAMES = ("dz", "affine", "tilts", "final")
STAGES = (
    Stage("dz", {"dz": DZ}, pixels=PatternPart(crop=64)),
    Stage("affine", {"scale": Around(3), "rotation": Around(3)}),
    Stage("tilts", {"tilt_y": None, "tilt_x": None, "scale": Around(1, 0.005)}, start_from="affine"),
    Stage("final", start_from="tilts"),
)


def plan(name: str, **changes: Any) -> StudyPlan:
    """Of one stage, before anything ran."""
    given: dict[str, Any] = {
        "name": f"s {name}",
        "source": SourceFile(Path("p.yaml"), "", "yaml"),
        "engine": "ptyrad",
        "config": {},
        "space": {},
        "metric": "loss",
        "direction": "minimize",
        "sampler": ComponentSpec("RandomSampler"),
        "pruner": None,
        "budget": Budget(20, total=True),
        "storage": None,
        "results": Path("s.h5"),
        "seed": 0,
        "iterations": 10,
        "lineage": StageLineage(name, NAMES),
    }
    return StudyPlan(**(given | changes))


TILT = FloatRange(-5.0, 5.0, 1.0)
PLANS = (
    plan("dz", space={"dz": DZ}, scan_share=0.25),
    plan("affine", space={}, scan_share=0.25),
    plan("tilts", space={"tilt_y": TILT, "tilt_x": TILT}, metric="contrast", iterations=20),
    plan("final", iterations=200),
)
TOTALS = (12, 30, 20, 1)


def trial(number: int, seconds: float, iterations: float | None, **changes: Any) -> TrialRecord:
    """One that ran to its end."""
    given: dict[str, Any] = {"state": TrialState.COMPLETE, "error": 0.1, "params": {}} | changes
    return TrialRecord(number, seconds=seconds, iterations=iterations, **given)


# --- what a stage costs ----------------------------------------------------------------------------------


def test_scan_iterations_are_trials_times_iterations_times_the_share_of_the_scan() -> None:
    """At the most; nothing is known of hours before there is a trial, nor of a stage whose iterations nobody knows."""
    costs = estimate_stages(PLANS, TOTALS)
    assert [cost.scan_iterations for cost in costs] == [30, 75, 400, 200]
    assert [cost.seconds for cost in costs] == [None] * 4
    assert [cost.left for cost in costs] == list(TOTALS)
    unknown = estimate_stages([replace(PLANS[0], iterations=None)], [12], [[trial(0, 60.0, 2.5)]])
    assert (unknown[0].scan_iterations, unknown[0].seconds) == (None, None)


def test_hours_are_by_scan_iterations() -> None:
    """Of a stage's own trials, else of the last stage before it that has some."""
    first = [trial(n, 25.0, 2.5) for n in range(3)]  # 10 s each over the whole scan
    costs = estimate_stages(PLANS, TOTALS, [first])
    assert [cost.seconds for cost in costs] == pytest.approx([9 * 25, 30 * 25, 20 * 200, 2000])
    second = [trial(0, 50.0, 2.5), trial(1, 1.0, 0.25, state=TrialState.PRUNED)]
    costs = estimate_stages(PLANS, TOTALS, [first, second], current=1)
    assert [cost.seconds for cost in costs] == pytest.approx([0, 28 * 50, 20 * 400, 4000])
    assert [cost.left for cost in costs] == [0, 28, 20, 1]
    assert costs[1].known_by == 1


@pytest.mark.parametrize(
    "useless",
    [
        trial(0, 60.0, None),
        trial(0, 0.0, 2.5),
        trial(0, 60.0, 0.0),
        trial(0, 60.0, 2.5, state=TrialState.PRUNED),
        trial(0, 60.0, None, state=TrialState.FAIL),
    ],
)
def test_trials_that_tell_nothing_of_hours(useless: TrialRecord) -> None:
    """Failed, pruned, or of before iterations were counted."""
    assert [cost.seconds for cost in estimate_stages(PLANS, TOTALS, [[useless]])] == [None] * 4


def test_hours_of_gpus_that_are_shared() -> None:
    """Count once for all who share one; those of cores do not."""
    on_gpu = [trial(0, 25.0, 2.5, device="cuda:0")]
    shared = estimate_stages(PLANS, TOTALS, [on_gpu], workers_per_gpu=2)
    assert shared[3].seconds == pytest.approx(1000)
    assert shared[3].on_gpus
    assert estimate_stages(PLANS, TOTALS, [[trial(0, 25.0, 2.5)]], workers_per_gpu=2)[3].seconds == pytest.approx(2000)


def test_a_stage_that_is_over_costs_nothing_more() -> None:
    """Also where it ended before its trials did; one that has more trials than are asked for now has none left."""
    settled = estimate_stages(PLANS, TOTALS, [[trial(0, 25.0, 2.5)]], current=1)
    assert (settled[0].left, settled[0].seconds) == (0, 0.0)
    more = estimate_stages(PLANS, TOTALS, [[trial(n, 25.0, 2.5) for n in range(15)]])
    assert (more[0].left, more[0].recorded) == (0, 15)


# --- the table -------------------------------------------------------------------------------------------


def lines_of(records: Sequence[Sequence[TrialRecord]] = (), current: int = 0) -> list[str]:
    """As they are printed."""
    return stages_lines(PLANS, STAGES, estimate_stages(PLANS, TOTALS, records, current=current))


def test_a_table_of_the_stages() -> None:
    """One row a stage, as long as what it tunes takes; below it what it costs."""
    assert lines_of() == [
        "stages    stage   tunes                         trials  metric    iterations   scan  pixels   from",
        "          dz      dz 10 to 20, step 0.5             12  loss              10    1/4  crop 64  anew",
        "          affine  scale, rotation around best       30  loss              10    1/4  all      anew",
        "                  +- 3 steps",
        "          tilts   tilt_y, tilt_x -5 to 5, step      20  contrast          20  whole  all      affine",
        "                  1; scale around best +- 1",
        "                  step of 0.005",
        "          final   nothing                            1  loss             200  whole  all      tilts",
        "cost      30 (dz) + 75 (affine) + 400 (tilts) + 200 (final) = 705 scan-iterations at the most",
    ]


def test_what_is_known_of_a_run_under_way() -> None:
    """How many trials are recorded, and the hours of those that are left."""
    lines = lines_of([[trial(n, 900.0, 2.5) for n in range(12)], [trial(0, 900.0, 2.5)]], current=1)
    assert "12 of 12" in lines[1]
    assert "1 of 30" in lines[2]
    hours = " ".join(line.strip() for line in lines[-2:])
    by = "by 1 completed trial: affine 7.2 h, tilts 40 h, final 20 h"
    assert hours == f"about 67 worker hours for the 50 trials left, {by}"
    over = lines_of([[trial(0, 900.0, 2.5)]], current=4)
    assert not any("left" in line for line in over)


def test_usual_columns_are_left_out() -> None:
    """Where no stage has part of the scan, of the patterns, or a start."""
    whole = [replace(one, scan_share=1.0) for one in PLANS[:1]]
    head = stages_lines(whole, [Stage("dz", {"dz": DZ})], estimate_stages(whole, [12]))[0]
    assert head.split() == ["stages", "stage", "tunes", "trials", "metric", "iterations"]


def test_a_stage_with_batches_of_its_own_says_so() -> None:
    """They change what a trial computes; the other stages have those of the file."""
    stages = [replace(Stage("look"), batch_size=8), Stage("whole")]
    plans = [plan("look", scan_share=0.25), plan("whole")]
    head, look, whole, *_ = stages_lines(plans, stages, estimate_stages(plans, [4, 4], [[], []]))
    assert head.split()[-3:] == ["iterations", "batch", "scan"]
    assert (look.split()[-2:], whole.split()[-1]) == (["8", "1/4"], "whole")


def test_what_ends_a_stage_early_is_in_the_table() -> None:
    """Where anything does, and nothing where that cannot be: no slopes, or nothing that is tuned."""
    settled = plan(
        "dz", space={"dz": DZ}, until_settled=True, differentiable=frozenset({"dz"}), no_gain=NoGain(0.01, 20)
    )
    assert end_text(settled) == "settled, no 1 % in 20"
    assert end_text(replace(settled, no_gain=None)) == "settled"
    assert end_text(replace(settled, differentiable=frozenset(), no_gain=None)) == "-"
    assert end_text(replace(settled, space={})) == "-"
    lines = stages_lines([settled], [Stage("dz", {"dz": DZ})], estimate_stages([settled], [12]))
    assert lines[0].split()[-1] == "ends"
    assert any("settled" in line for line in lines)


def test_ranges_around_the_best_are_numbers_once_they_are_known() -> None:
    """That is once the stage before has ended."""
    lineage = StageLineage("affine", NAMES, from_stage="dz", from_trial=7)
    known = replace(PLANS[1], lineage=lineage, space={"scale": FloatRange(0.97, 1.03, 0.01), "rotation": TILT})
    assert tuned_text(PLANS[1], STAGES[1]) == "scale, rotation around best +- 3 steps"
    assert tuned_text(known, STAGES[1]) == "scale 0.97 to 1.03, step 0.01; rotation -5 to 5, step 1"
    assert tuned_text(PLANS[3], STAGES[3]) == "nothing"


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "whole"), (0.25, "1/4"), (1 / 9, "1/9"), (0.2475, "25 %"), (0.0039, "0.39 %")]
)
def test_a_share_of_the_scan(share: float, text: str) -> None:
    """As a fraction where it is one."""
    assert share_text(share) == text


@pytest.mark.parametrize(
    "stage",
    [
        Stage("a very long name of a stage indeed", {f"C{n}{n}a": Around(2.5) for n in range(40)}),
        Stage("one", {"optimizer": Choice(tuple(f"optimizer_{n}" for n in range(500)))}),
        Stage("two", {"a_parameter_with_a_very_long_name_" * 4: IntRange(1, 4)}, start_from="x" * 50),
        Stage("three\x1b[2J\n", {"dz\r": DZ}, pixels=PatternPart(crop=128, bin=2)),
    ],
)
def test_every_line_fits(stage: Stage) -> None:
    """Whatever the names and however much is tuned."""
    one = plan("x", metric="my own metric of sharpness", scan_share=0.0123, iterations=100000)
    lines = stages_lines([one, PLANS[3]], [stage, STAGES[3]], [StageCost(1000, 999, 1, 12.5, 1e7, 3, True)] * 2)
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) <= 14
    assert all(line.isprintable() for line in lines)


# --- from the file to what is printed ----------------------------------------------------------------------


def test_the_plan_begins_with_the_stages(toy_params: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Alike in ``run --dry-run`` and ``validate``, and nothing is written; Python has their names."""
    path = write_staged(toy_params)
    assert main(["run", str(path), "--engine", "toy", "--cluster", "local", "--workers", "1", "--dry-run"]) == 0
    planned = capsys.readouterr().err.splitlines()
    assert planned[0].split() == ["stages", "stage", "tunes", "trials", "metric", "iterations"]
    assert [line.split()[0] for line in planned[1:5]] == ["rough", "turn", "again", "final"]
    assert any(line.startswith("study     toy rough") for line in planned)
    assert main(["validate", str(path), "--engine", "toy"]) == 0
    assert capsys.readouterr().err.splitlines()[:5] == planned[:5]
    plan = validate(path, engine="toy")
    assert plan.lineage is not None
    assert plan.lineage.stages == ("rough", "turn", "again", "final")
    assert not plan.results.parent.exists()


@pytest.mark.slow
def test_a_stage_without_gain_gives_way_to_the_next(
    toy_params: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says why it ended, and is over for good; its repeats can be run; who looks on sees which one runs."""
    stages = [
        {"name": "rough", "tune": ["scale"], "trials": 30, "stop_when": {"gain": "99 %", "trials": 2}},
        {"name": "turn", "tune": ["rotation"], "trials": 3},
    ]
    path, results = write_staged(toy_params, stages), tmp_path / "s.h5"
    args = ["run", str(path), "--engine", "toy", "--cluster", "local", "--workers", "1", "-o", str(results)]
    assert main(args) == 0
    said = capsys.readouterr().err
    assert "the last 2 trials bring no gain of 99 %" in said
    assert "stage 1 of 3: rough" in said
    assert "stage 2 of 3: turn" in said
    with reader.open(results, "rough") as rough:
        recorded = len(rough.records())
    assert 3 <= recorded < 30
    assert main(args) == 0
    again = capsys.readouterr().err
    assert "nothing left to do" in again
    assert f"{recorded} of {recorded}" in again
    assert main(["status", str(results)]) == 0
    assert "stage 3 of 3: final" in capsys.readouterr().out
    assert main(["confirm", str(results), "--cluster", "local", "--workers", "1", "--top", "1", "--seeds", "1"]) == 0
    with reader.open(results, "turn") as turn:
        assert turn.confirmation() is not None
