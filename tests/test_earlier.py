"""Studies that start from earlier ones: what is read of these, which points are tried first, what is said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from confirm_cases import confirmed
from earlier_cases import SPACE, at, earlier, first, plan, points_taken
from stage_cases import write_staged
from staged_store_cases import staged
from store_cases import failed, packed, record, stopped

import ptydask as package
from ptydask import sampling
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.driver.earlier import read_studies, read_study
from ptydask.driver.earlier_points import MOST, start_from
from ptydask.errors import ConfigError, UnusableResults, UsageError
from ptydask.model import (
    NEAR_VALUES,
    OWN_VALUES,
    TRIED,
    ComponentSpec,
    EarlierTrial,
    Point,
    Scalar,
    StudyPlan,
    TrialState,
)
from ptydask.space import ranges
from ptydask.store import reader

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]

CMA = ComponentSpec("CmaEsSampler")


# --- taken --------------------------------------------------------------------------------------------


def test_the_best_points_come_first() -> None:
    """Those of the best trials, with their numbers, then what would have been tried without them."""
    others = (Point(at(1.0, 0.0), OWN_VALUES), Point(at(1.1, 2.0), TRIED))
    points = [at(1.04, -1.5), at(1.02, -1.5), at(1.04, -1.0), at(1.06, -2.0)]
    begun = start_from(plan(points=others), [earlier(points)])
    assert first(begun) == [(f"from last.h5, trial {n}", points[n]) for n in range(MOST)]
    assert begun.points[MOST:] == others
    assert ("from", "last.h5, trial 0: scale=1.04 rotation=-1.5") in begun.details


@pytest.mark.parametrize("origin", [OWN_VALUES, NEAR_VALUES, TRIED])
@pytest.mark.parametrize("best", [True, False])
def test_a_point_that_is_the_files_own_stays_that(origin: str, best: bool) -> None:
    """Results say what was gained over the file's own values; a person's point is still theirs. It is tried once."""
    points = [at(1.0, 1.0), at(1.04, -1.5)][:: 1 if best else -1]
    begun = start_from(plan(points=(Point(at(1.0, 1.0), origin),)), [earlier(points)])
    assert [(point.origin, dict(point.params)) for point in begun.points][not best] == (origin, at(1.0, 1.0))
    assert len(begun.points) == 2
    told = any("the file's own values" in text for _, text in begun.details)
    assert told == (origin == OWN_VALUES)
    assert any("last.h5's best is" in text for _, text in begun.details) == (told and best)


@pytest.mark.parametrize(
    ("given", "own", "names"),
    [
        pytest.param(["mon/demo.h5"], "tue/demo.h5", ["mon/demo.h5"], id="the study's own file"),
        pytest.param(["mon/demo.h5"], "tue/new.h5", ["demo.h5"], id="none"),
        pytest.param(["mon/x/demo.h5", "tue/x/demo.h5"], "new.h5", ["mon/x/demo.h5", "tue/x/demo.h5"], id="two"),
        pytest.param(["mon/x/demo.h5", "b.h5"], "tue/x/demo.h5", ["mon/x/demo.h5", "b.h5"], id="folders, too"),
        pytest.param(["demo.h5"], "output/demo.h5", ["PARENT/demo.h5"], id="here"),
    ],
)
def test_names_tell_from_the_studys_own_file(given: list[str], own: str, names: list[str], tmp_path: Path) -> None:
    """As much of the path as it takes, in origins, the plan and notices alike."""
    studies = [replace(earlier([at(1.04, -1.5 - n)], path), path=tmp_path / path) for n, path in enumerate(given)]
    studies = [replace(study, name=study.path.name) for study in studies]
    begun = start_from(plan(results=tmp_path / own), studies)
    expected = [name.replace("PARENT", tmp_path.name) for name in names]
    assert [origin for origin, _ in first(begun)] == [f"from {name}, trial 0" for name in expected]
    assert [text.partition(", trial")[0] for _, text in begun.details] == expected


def test_where_slopes_lead_the_best_alone() -> None:
    """The slopes know better than the second best; of several studies the best of each."""
    informed = plan(differentiable=frozenset(SPACE))
    one, two = earlier([at(1.04, -1.5), at(1.02, -1.5)], "one.h5"), earlier([at(1.06, -2.0)], "two.h5")
    assert [origin for origin, _ in first(start_from(informed, [one]))] == ["from one.h5, trial 0"]
    assert len(first(start_from(informed, [one, two]))) == 2


def test_without_earlier_studies_nothing_changes() -> None:
    """Nor where nothing is tuned, as in a final reconstruction."""
    assert start_from(plan(), []) == plan()
    assert start_from(plan({}), [earlier([at(1.0, 0.0)])]) == plan({})


@pytest.mark.parametrize(
    ("points", "taken"),
    [
        pytest.param([at(1.3, 0.0), at(0.7, 0.0), at(1.04, -1.5)], [2], id="two outside"),
        pytest.param([at(1.04, 9.0)], [], id="one parameter outside"),
        pytest.param([at(1.1, -4.0), at(0.9, 4.0)], [0, 1], id="at the ends"),
        pytest.param([at(1.04, -1.5), at(1.04, -1.5), at(1.0400001, -1.5), at(0.94, 0.0)], [0, 3], id="the same again"),
        pytest.param([{"scale": "wide", "rotation": 0.0}], [], id="no number"),
        pytest.param([at(float("nan"), 0.0), at(1.0, 0.5)], [1], id="not a number"),
    ],
)
def test_points_outside_of_the_ranges_are_left_out(points: list[dict[str, Scalar]], taken: list[int]) -> None:
    begun = start_from(plan(), [earlier(points)])
    assert [origin for origin, _ in first(begun)] == [f"from last.h5, trial {number}" for number in taken]
    assert any("is not tried" in notice for notice in begun.notices) == (taken[:1] != [0])


def test_values_off_the_grid() -> None:
    """The nearest of the grid, as of another grid or of none."""
    ((_, point),) = first(start_from(plan(), [earlier([at(1.0371, -1.62)])]))
    assert point == pytest.approx(at(1.04, -1.5))


def test_other_parameters() -> None:
    """What only one of the two tunes: the file's own value beside the values taken, and what is missing is named."""
    space = {**SPACE, "C10": FloatRange(-300.0, 300.0, 10.0)}
    begun = start_from(plan(space), [earlier([{"rotation": -1.5, "dz": 2.0}])])
    assert first(begun) == [("from last.h5, trial 0", {"scale": 1.0, "rotation": -1.5, "C10": 1.0})]
    assert any("has no scale, C10" in notice for notice in begun.notices)
    ((_, part),) = first(start_from(plan(space, points=()), [earlier([{"rotation": -1.5}])]))
    assert part == {"rotation": -1.5}, "the file gives no values, so the sampler is left to"
    nothing = start_from(plan(), [earlier([{"dz": 2.0}])])
    assert nothing.points == plan().points
    assert any("nothing is taken" in notice and "dz" in notice for notice in nothing.notices)


THICK: dict[str, Distribution] = {"dz": FloatRange(1.0, 20.0, 1.0), "tilt_x": FloatRange(-9.0, 9.0), **SPACE}


def specimen_plan(space: Mapping[str, Distribution] = THICK, **changes: Any) -> StudyPlan:
    config: dict[str, Any] = {"init_params": {}, "recon_params": {}}
    return plan(space, **{"engine": "ptyrad", "config": config, "differentiable": frozenset(THICK), **changes})


def test_what_belongs_to_the_specimen() -> None:
    """Is taken, and named; beside it the same point with the file's own values, as the specimen may be another."""
    begun = start_from(specimen_plan(), [earlier([{"dz": 2.0, "scale": 1.04}, {"dz": 3.0, "scale": 1.04}])])
    taken, bare = first(begun)
    assert taken == ("from last.h5, trial 0", {"dz": 2.0, "tilt_x": 1.0, "scale": 1.04, "rotation": 1.0})
    assert bare == ("from last.h5, trial 0 without dz", {"dz": 1.0, "tilt_x": 1.0, "scale": 1.04, "rotation": 1.0})
    assert any("its dz may be of its specimen" in notice for notice in begun.notices)
    lines = [text for _, text in begun.details]
    assert lines == ["last.h5, trial 0: dz=2 scale=1.04", "last.h5, trial 0 without dz: scale=1.04"]


@pytest.mark.parametrize(
    ("changes", "point"),
    [
        pytest.param({}, {"dz": 1.0, "scale": 1.04}, id="the file's own already"),
        pytest.param({}, {"dz": 2.0, "tilt_x": 3.0}, id="nothing of the microscope"),
        pytest.param({}, at(1.04, -1.5), id="nothing of the specimen"),
        pytest.param({"points": ()}, {"dz": 2.0, "scale": 1.04}, id="the file gives none"),
        pytest.param({"engine": "toy"}, {"dz": 2.0, "scale": 1.04}, id="not PtyRAD's"),
    ],
)
def test_no_point_without_the_specimen(changes: dict[str, Any], point: dict[str, Scalar]) -> None:
    """Where it would be no other one, or the file's own, or nobody knows what the specimen's is."""
    assert len(first(start_from(specimen_plan(**changes), [earlier([point])]))) == 1


def test_without_the_specimen_among_others() -> None:
    """Once, of the best point of all; where slopes do not lead it is one of the few; of a grid, where that has it."""
    studies = [earlier([{"dz": 2.0, "scale": 1.04}, {"dz": 3.0, "scale": 1.02}], f"{name}.h5") for name in "ab"]
    told = ["from a.h5, trial 0", "from a.h5, trial 0 without dz", "from a.h5, trial 1"]
    assert [origin for origin, _ in first(start_from(specimen_plan(), studies))] == told
    assert [origin for origin, _ in first(start_from(specimen_plan(differentiable=frozenset()), studies))] == told
    own = {"dz": 1.0, "scale": 1.0}
    grid = (Point(own, OWN_VALUES), Point({"dz": 2.0, "scale": 1.04}, "sampler"))
    space = {name: THICK[name] for name in ("dz", "scale")}
    begun = start_from(specimen_plan(space, points=grid, exhaustive=True), studies)
    assert [origin for origin, _ in first(begun)] == ["from a.h5, trial 0"]


def test_several_studies() -> None:
    """The best of each, then the second best; of more than there is room for, one of each; no point twice."""
    one, two = [at(1.04, -1.5), at(1.02, -1.5), at(1.0, -1.5)], [at(1.04, -1.5), at(1.06, -2.0)]
    begun = start_from(plan(), [earlier(one, "one.h5"), earlier(two, "two.h5")])
    assert [origin for origin, _ in first(begun)] == [
        "from one.h5, trial 0",
        "from one.h5, trial 1",
        "from two.h5, trial 1",
    ]
    many = [earlier([at(0.9 + 0.02 * n, 0.0)], f"{n}.h5") for n in range(MOST + 2)]
    assert len(first(start_from(plan(), many))) == MOST + 2


def test_values_of_stages() -> None:
    """What earlier stages of the earlier study found belongs to its points; what this one's found is not replaced."""
    study = earlier([{"scale": 1.04}], values={"rotation": -1.5})
    assert first(start_from(plan(), [study])) == [("from last.h5, trial 0", at(1.04, -1.5))]
    assert first(start_from(plan(), [study], found=["scale"])) == [("from last.h5, trial 0", at(1.0, -1.5))]


def test_of_a_grid_the_points_that_it_has() -> None:
    """They come first, and no point is added."""
    grid = tuple(Point(at(scale, 0.0), "sampler") for scale in (0.9, 1.0, 1.1))
    begun = start_from(plan(points=grid, exhaustive=True), [earlier([at(1.1, 0.0), at(1.04, 0.0)])])
    assert [point.params["scale"] for point in begun.points] == [1.1, 0.9, 1.0]


def test_its_own_file() -> None:
    with pytest.raises(UsageError, match="own results file"):
        start_from(plan(), [earlier([at(1.0, 0.0)], "new.h5")])


def test_another_metric_or_direction() -> None:
    """Its best points are tried, and whose best they are is said; a sampler does not mix the two."""
    study = earlier([at(1.04, -1.5)], metric="contrast", direction="maximize")
    begun = start_from(plan(sampler=CMA), [study])
    assert len(first(begun)) == 1
    assert begun.earlier == ()
    assert any("contrast" in notice for notice in begun.notices)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"probe_kv": 300}, {"probe_kv": 80}, ["probe_kv 300 (here 80)"]),
        ({}, {"crop": [8, 16]}, ["crop nothing (here [8, 16])"]),
        ({"a": {"b": 0.1 + 0.2}}, {"a": {"b": 2.0}}, ["a.b 0.3 (here 2)"]),
        ({f"k{n}": 1 for n in range(9)}, {}, ["k0", "k5", "and 3 settings more"]),
    ],
)
def test_settings_that_differ_are_named(before: dict[str, Any], now: dict[str, Any], words: list[str]) -> None:
    study = earlier([at(1.0, 0.0)], config_json=json.dumps({"init_params": before}))
    (notice,) = start_from(plan(config={"init_params": now}), [study]).notices
    assert all(word in notice for word in words)


@pytest.mark.parametrize("config", ["{}", "[]", "null", '{"init_params": 3}', "not JSON"])
def test_a_study_whose_configuration_is_not_known(config: str) -> None:
    """As of one that was rebuilt: its points are taken all the same."""
    assert first(start_from(plan(), [earlier([at(1.04, -1.5)], config_json=config)]))


# --- read ---------------------------------------------------------------------------------------------


def test_completed_trials_best_first(tmp_path: Path) -> None:
    """Failed and pruned ones are none; of a running study those that there are; a file is read once."""
    pruned = record(7, 0.001, state=TrialState.PRUNED)
    path = packed(tmp_path / "last.h5", [record(0), record(1), failed(2), record(3), pruned])
    (study,) = read_studies([path, tmp_path / "." / "last.h5"])
    assert (study.name, [trial.number for trial in study.trials]) == ("last.h5", [3, 1, 0])
    (running,) = read_studies([stopped(tmp_path / "running.h5", [0, 1])])
    assert [trial.number for trial in running.trials] == [1, 0]


def test_files_of_one_name(tmp_path: Path) -> None:
    """Are told apart by their folders."""
    paths = [tmp_path / folder / "last.h5" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        packed(path, [record(0)])
    assert [study.name for study in read_studies(paths)] == ["a/last.h5", "b/last.h5"]


def test_confirmed_means_count_before_errors(tmp_path: Path) -> None:
    """Trial 1 is the better one of the two that were repeated, whatever their own errors were."""
    path = confirmed(packed(tmp_path / "last.h5", [record(n) for n in range(4)]))
    (study,) = read_studies([path])
    assert [trial.number for trial in study.trials] == [2, 1, 3, 0]
    assert [trial.error for trial in study.trials[:2]] == pytest.approx([0.251, 0.252])


def test_the_last_stage_that_tuned_something(tmp_path: Path) -> None:
    """Not the final reconstruction; with what the stages before it found."""
    (study,) = read_studies([staged(tmp_path / "last.h5")])
    assert study.name == "last.h5 (scan)"
    assert [trial.number for trial in study.trials] == [1, 0]
    assert study.values == {"dz": 1.5}
    assert list(study.stages) == ["dz", "scan"]


def make_bad(kind: str, path: Path) -> Path:
    match kind:
        case "text":
            path.write_text("scale: 1\n")
        case "folder":
            path.mkdir()
        case "nothing completed":
            packed(path, [failed(0)])
        case "no metric":
            packed(path, [record(0)], metric="")
        case "damaged":
            whole = packed(path, [record(0)]).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        case "root":
            return Path("/")
        case "empty":
            path.touch()
    return path


BAD = ["missing", "root", "damaged", "text", "folder", "empty", "nothing completed", "no metric"]


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_cannot_be_used(kind: str, tmp_path: Path) -> None:
    """One line that names it, before anything starts; a study that has begun goes on without it."""
    path = make_bad(kind, tmp_path / "last.h5")
    studies = read_studies([packed(tmp_path / "good.h5", [record(0, params=at(1.04, -1.5))]), path])
    with pytest.raises(UnusableResults, match=r"last\.h5|--from: /") as raised:
        start_from(plan(), studies)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
    begun = start_from(plan(results=packed(tmp_path / "new.h5", [record(0)])), studies)
    assert [origin for origin, _ in first(begun)] == ["from good.h5, trial 0"]
    assert str(raised.value) in begun.notices[0]
    with pytest.raises(UnusableResults):
        read_study(path)


# --- CMA-ES -------------------------------------------------------------------------------------------


def test_cma_es_begins_with_earlier_trials() -> None:
    """Its first points lie around the best of them, not around the middle of the ranges."""
    space: dict[str, Distribution] = {
        "x": FloatRange(0.0, 1.0),
        "n": IntRange(1, 100),
        "c": Choice(("a", "b")),
        "one": FloatRange(2.0, 2.0),
    }
    trials = [EarlierTrial({"x": 0.9 - 0.01 * k, "n": 90 - k, "c": "a", "one": 2.0}, 0.1 * k) for k in range(30)]

    def draw(earlier: list[EarlierTrial]) -> list[float]:
        study = optuna.create_study()
        dists = {name: sampling.to_optuna(dist) for name, dist in space.items()}
        drawn = []
        for seed in range(9):
            study.sampler = sampling.build_sampler(CMA, seed=seed, space=space, earlier=earlier)
            trial = study.ask(fixed_distributions=dists)
            drawn.append(trial.params["x"])
            study.tell(trial, 1.0)
        return drawn[1:]

    assert sum(draw(trials)) / 8 > 0.8
    assert sum(draw([])) / 8 < 0.7


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([at(1.04, -1.5)], id="one"),
        pytest.param([at(1.04, -1.5)] * 12, id="all alike"),
        pytest.param([at(1.0371, -1.62), at(0.9, 4.0), at(1.1, -4.0)] * 4, id="off the grid, and at the ends"),
        pytest.param([at(1, 0)] * 9, id="nine"),
        pytest.param([at(1, 0)] * 10, id="whole numbers"),
    ],
)
def test_cma_es_bears_few_and_odd_trials(points: list[dict[str, Scalar]]) -> None:
    """Of fewer than ten it learns nothing, as it takes the best tenth; that is said."""
    begun = start_from(plan(sampler=CMA), [earlier(points)])
    assert bool(begun.earlier) == (len(points) >= 10) != any("learns from" in notice for notice in begun.notices)
    known = begun.earlier or [EarlierTrial(point, 0.1) for point in points]
    study, dists = optuna.create_study(), {name: sampling.to_optuna(dist) for name, dist in SPACE.items()}
    for seed in range(8):
        study.sampler = sampling.build_sampler(CMA, seed=seed, space=SPACE, earlier=known)
        trial = study.ask(fixed_distributions=dists)
        assert all(ranges.contains(SPACE[name], value) for name, value in trial.params.items())
        study.tell(trial, float(seed))


@pytest.mark.parametrize(
    ("spec", "learns"),
    [
        (CMA, True),
        (ComponentSpec("CmaEsSampler", {"popsize": 4}), True),
        (ComponentSpec("CmaEsSampler", {"x0": {"scale": 1.0}}), False),
        (ComponentSpec("CmaEsSampler", {"sigma0": 0.1}), False),
        (ComponentSpec("CmaEsSampler", {"use_separable_cma": True}), False),
        (ComponentSpec("TPESampler"), False),
    ],
)
def test_which_samplers_learn(spec: ComponentSpec, learns: bool) -> None:
    """What a file says of where CMA-ES begins counts; such a sampler is built all the same."""
    begun = start_from(plan(sampler=spec), [earlier([at(1.04, -1.5), at(1.3, 0.0), *[at(1.0, 0.0)] * 9])])
    assert [trial.params for trial in begun.earlier] == ([at(1.04, -1.5), *[at(1.0, 0.0)] * 9] if learns else [])
    sampling.build_sampler(spec, seed=1, space=SPACE, earlier=[EarlierTrial(at(1.04, -1.5), 0.1)] * 10)


def test_a_value_spans() -> None:
    """Between the ends counts, on the grid or off it; a choice has to be one of them."""
    assert ranges.spans(SPACE["scale"], 1.031)
    assert ranges.spans(IntRange(1, 9, 2), 4)
    assert not ranges.spans(SPACE["scale"], 1.11)
    assert not ranges.spans(Choice(("a", 1)), "b")


# --- whole runs ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_the_command_line(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """The plan says what is taken; each of its points is one trial; going on lines none up again."""
    last, new = packed(tmp_path / "last.h5", [record(n) for n in range(3)]), tmp_path / "new.h5"
    command = ["run", toy_params(), "--engine", "toy", "--workers", 1, "-o", new, "--from", last]
    done = ptydask(*command, "--trials", 3)
    assert done.returncode == 0, done.stderr
    assert "last.h5, trial 2: scale=0.98 rotation=0.5" in done.stderr
    assert points_taken(new).keys() == {f"from last.h5, trial {n}" for n in range(3)}
    again = ptydask(*command, "--trials", 5)
    assert again.returncode == 0, again.stderr
    with reader.open(new) as study:
        assert [r.origin.startswith("from") for r in study.records()] == [True] * 3 + [False] * 2
    last.rename(tmp_path / "moved.h5")
    without = ptydask(*command, "--trials", 6)
    assert (without.returncode, "goes on without it" in without.stderr) == (0, True)
    bad = ptydask(*command, "-o", tmp_path / "newer.h5")
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)


def test_validated(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """As the run will have it, in stages too: with the points, or refused."""
    last = packed(tmp_path / "last.h5", [record(0, params=at(1.04, -1.5))])
    done = ptydask("validate", toy_params(), "--engine", "toy", "--from", last)
    assert (done.returncode, "last.h5, trial 0: scale=1.04 rotation=-1.5" in done.stderr) == (0, True)
    taken = package.validate(toy_params(), engine="toy", earlier=last)
    assert taken.points[0].origin == "from last.h5, trial 0"
    in_stages = package.validate(write_staged(toy_params), engine="toy", earlier=[last])
    assert any("last.h5 was run with" in notice for notice in in_stages.notices)
    with pytest.raises(UnusableResults):
        package.validate(toy_params(), engine="toy", earlier=tmp_path / "none.h5")


@pytest.mark.parametrize("value", [3, [3], [None]])
def test_from_python_no_path(value: Any, toy_params: Params) -> None:
    with pytest.raises(ConfigError, match="earlier"):
        package.run(toy_params(), earlier=value)
