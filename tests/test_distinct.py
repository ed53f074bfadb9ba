"""No point twice: the sampler around every sampler, trials that begin together, guesses, how many points are left."""

from __future__ import annotations

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import optuna
import pytest
import store_cases as cases
from optuna.trial import Trial
from optuna.trial import TrialState as State
from test_sampling import SAMPLERS, SPACE, plan

from ptydask import sampling
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.driver.optuna_study import OptunaStudy
from ptydask.driver.prepare import count_trials
from ptydask.model import Budget, ComponentSpec, Point, Reason, Scalar
from ptydask.sampling import startup
from ptydask.space.nearest_point import point_key

NINE: dict[str, Distribution] = {"scale": FloatRange(0.9, 1.1, 0.1), "layers": IntRange(1, 3)}
FEW: dict[str, Distribution] = {
    "scale": FloatRange(0.9, 1.1, 0.1),
    "size": WeightedChoice((8, 16, 32), (0.9, 0.1, 0.0)),
    "width": QuantileDistribution("uniform", 0.0, 2.0, 1),
    "opt": Choice(("Adam", True, 1)),
}
TPE = ComponentSpec("TPESampler", {"n_startup_trials": 2, "multivariate": True})


def ask(
    study: optuna.Study, spec: ComponentSpec, number: int, space: Mapping[str, Distribution], **attributes: Any
) -> tuple[Trial, dict[str, Scalar]]:
    """A trial as a worker begins it, and its values."""
    study.sampler = sampling.build_sampler(spec, seed=number, space=space)
    trial = study.ask()
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
    return trial, sampling.suggest(trial, space, spec)


def value_of(point: Mapping[str, Scalar]) -> float:
    return sum(float(value) ** 2 for value in point.values() if isinstance(value, int | float))


EVERY = [
    pytest.param(spec, id=f"{spec.name}-{len(spec.configs)}", marks=[pytest.mark.slow] if "GP" in spec.name else [])
    for spec in SAMPLERS
]


@pytest.mark.parametrize("spec", EVERY)
def test_every_point_once(spec: ComponentSpec) -> None:
    """By any sampler, each point of a grid once, however the trials end; then a repeat, and no error."""
    study, keys = optuna.create_study(), []
    for number in range(9):
        trial, point = ask(study, spec, number, NINE)
        keys.append(point_key(NINE, point))
        if number % 4 == 3:
            trial.set_user_attr("reason", Reason.FAILED.value)
            study.tell(trial, state=State.FAIL)
        else:
            study.tell(trial, value_of(point))
    held = {"scale"} if spec.name == "PartialFixedSampler" else set()
    assert len(set(keys)) == (3 if held else 9)
    ask(study, spec, 9, NINE)


def test_values_that_optuna_has_as_u_are_compared_as_values() -> None:
    """Two u may give one value: each value once, choices that Python holds equal too, none without weight."""
    study, points = optuna.create_study(), []
    for number in range(3 * 2 * 3 * 3):
        trial, point = ask(study, ComponentSpec("RandomSampler"), number, FEW)
        points.append(point)
        study.tell(trial, 1.0)
    assert len({point_key(FEW, point) for point in points}) == len(points)
    assert {point["size"] for point in points} == {8, 16}


@pytest.mark.parametrize("spec", EVERY)
def test_without_repeats_nothing_changes(spec: ComponentSpec) -> None:
    """The same seeds give the same points as the sampler by itself, as long as no point comes twice."""
    wrapped, plain = optuna.create_study(), optuna.create_study()
    for number in range(8):
        trial, point = ask(wrapped, spec, number, SPACE)
        wrapped.tell(trial, value_of(point))
        plain.sampler = sampling.build_sampler(spec, seed=number, space=SPACE).base
        trial = plain.ask()
        assert sampling.suggest(trial, SPACE, spec) == point
        plain.tell(trial, value_of(point))


@pytest.mark.parametrize("space", [NINE, FEW, SPACE], ids=["nine", "few", "wide"])
@pytest.mark.parametrize("seed", range(3))
def test_what_a_sampler_before_has_read_changes_nothing(space: Mapping[str, Distribution], seed: int) -> None:
    """Trials that ended, were lost here or elsewhere, run or wait: the same points as by reading all of them anew."""
    chance, study = random.Random(seed), optuna.create_study()
    remembered = sampling.Remembered(sampling.PointsTaken(space))
    running: list[Trial] = []
    for _ in range(24):
        drawn = chance.randrange(3)  # few seeds: one point is drawn again and again
        anew = sampling.build_sampler(TPE, seed=drawn, space=space)
        kept = sampling.build_sampler(TPE, seed=drawn, space=space, remembered=remembered)
        trial = study.ask()
        if chance.random() < 0.5:
            trial.set_user_attr("lease", {"store": chance.choice("ab")})
        frozen = study._storage.get_trial(trial._trial_id)
        points = []
        for sampler in (anew, kept):
            asked = sampler.infer_relative_search_space(study, frozen)
            points.append(sampler.sample_relative(study, frozen, asked))
        assert points[0] == points[1]
        study.tell(trial, state=State.FAIL)
        study.sampler = anew
        trial = study.ask()
        sampling.suggest(trial, space, TPE)
        running.append(trial)
        ended = running.pop(chance.randrange(len(running)))
        match chance.randrange(4):
            case 0:
                study.tell(ended, 1.0)
            case 1 | 2:
                ended.set_user_attr("lease", {"store": chance.choice("ab")})
                ended.set_user_attr("reason", chance.choice([Reason.LOST.value, Reason.FAILED.value]))
                study.tell(ended, state=State.FAIL)
            case 3:
                running.append(ended)


def test_trials_that_begin_together_get_different_points() -> None:
    """Four workers ask at the same moment, twice: a grid of nine points has eight of them then."""
    study = optuna.create_study()

    def begin(number: int) -> dict[str, Scalar]:
        own = optuna.load_study(study_name=study.study_name, storage=study._storage)
        return ask(own, ComponentSpec("RandomSampler"), 1, NINE)[1]  # one seed: all draw one and the same point

    with ThreadPoolExecutor(4) as workers:
        points = list(workers.map(begin, range(8)))
    assert len({point_key(NINE, point) for point in points}) == 8


def test_a_guess_that_is_waiting_is_taken() -> None:
    """What is enqueued runs as it is; the sampler leaves it alone, and draws the rest of a part of a point anew."""
    study = optuna.create_study()
    space: dict[str, Distribution] = {"layers": IntRange(1, 3), "opt": Choice(("a", "b"))}
    trial, _ = ask(study, TPE, 0, space)
    first = dict(trial.params)
    study.enqueue_trial({"layers": first["layers"]})
    study.enqueue_trial({"layers": 1 + first["layers"] % 3, "opt": "a"})
    _, point = ask(study, TPE, 0, space)
    assert point["layers"] == first["layers"]
    assert point["opt"] != first["opt"]
    assert ask(study, TPE, 0, space)[1] == {"layers": 1 + first["layers"] % 3, "opt": "a"}


def test_a_retry_has_its_point() -> None:
    """Another attempt at a trial runs the same point, on purpose."""
    book = OptunaStudy(optuna.create_study(), "store", plan(TPE, where=NINE))
    _, point = ask(book.study, TPE, 0, NINE, lease={"store": "store"})
    (begun,) = book.begun()
    book.close(begun, Reason.LOST)
    book.retry(begun)
    assert ask(book.study, TPE, 1, NINE)[1] == point
    assert ask(book.study, TPE, 1, NINE)[1] != point


def test_points_of_another_results_file() -> None:
    """They are left out while there are new ones; then they are as good as any. Lost ones of others were not run."""
    study, space = optuna.create_study(), {"layers": IntRange(1, 3)}
    for layers, state in ((1, State.COMPLETE), (2, State.FAIL)):
        study.enqueue_trial({"layers": layers}, user_attrs={"store": "other", "reason": Reason.LOST.value})
        trial, _ = ask(study, TPE, 0, space)
        study.tell(trial, 0.0 if state is State.COMPLETE else None, state=state)
    points = [ask(study, TPE, number, space, lease={"store": "ours"})[1]["layers"] for number in range(3)]
    assert sorted(points[:2]) == [2, 3]
    assert points[2] == 1


# --- what is put first ------------------------------------------------------------------------------


def test_a_try_that_is_recorded_is_not_run_again() -> None:
    """Whoever chose it; nor is a part of a point of which all points are there; nor the same guess twice."""
    book = OptunaStudy(optuna.create_study(), "store", plan(TPE, where=NINE))
    for layers in (1, 2, 3):
        book.study.enqueue_trial({"scale": 1.0, "layers": layers}, user_attrs={"store": "store"})
    guesses = [{"scale": 1, "layers": 2}, {"scale": 1.0}, {"layers": 2}, {"layers": 2}, {"scale": 0.95, "layers": 2}]
    for _ in range(2):
        book.enqueue([Point(guess, f"try {i}") for i, guess in enumerate(guesses)])
    assert [trial.user_attrs.get("origin") for trial in book.trials()] == [None, None, None, "try 2", "try 4"]


@pytest.mark.parametrize(
    ("records", "points", "total"),
    [
        ([], [], 9),
        ([{"scale": 1.0, "layers": 1}] * 3, [], 11),
        ([{"scale": 1.0, "layers": 1}, {"scale": 3.0, "layers": 1}, {}], [], 11),
        ([], [{"scale": 1.0}, {"scale": 0.95, "layers": 1}, {"scale": 0.97}], 11),
        ([{"scale": 0.95, "layers": 1}], [{"scale": 0.95, "layers": 1}, {"scale": 0.95}], 10),
    ],
)
def test_how_many_trials_a_grid_has_room_for(
    records: list[dict[str, Scalar]], points: list[dict[str, Scalar]], total: int
) -> None:
    """Nine points; repeats of an older version, other ranges and trials without values take no place; tries add one."""
    made = replace(
        plan(TPE, where=NINE, points=tuple(Point(point, "try") for point in points)), budget=Budget(30, total=True)
    )
    rows = [cases.record(number, params=params) for number, params in enumerate(records)]
    assert count_trials(made, 2, rows) == total
    assert count_trials(replace(made, budget=Budget(4)), 2, rows) == 8
    assert count_trials(replace(made, space={**NINE, "C10": FloatRange(0.0, 1.0)}), 2, rows) == 30


def test_held_parameters_are_one_value() -> None:
    """A PartialFixedSampler searches the rest."""
    made = plan(SAMPLERS[-1], where=NINE)
    assert sampling.count_points(made) == 3
    rows = [cases.record(i, params={"scale": scale, "layers": 1}) for i, scale in enumerate((1.0, 0.9))]
    assert sampling.count_new_points(made, rows) == 2


# --- start-up trials --------------------------------------------------------------------------------


@pytest.mark.parametrize(("trials", "random"), [(1, 2), (25, 2), (60, 6), (100, 10), (1000, 10)])
def test_random_trials_fit_the_budget(trials: int, random: int) -> None:
    """A tenth of a short study, Optuna's ten in a long one."""
    assert startup.fit_startup(trials) == random
    assert sampling.startup_trials(ComponentSpec("TPESampler"), trials) == random
    made = sampling.build_sampler(SAMPLERS[-1], seed=0, space=NINE, trials=trials).base
    assert made._base_sampler._n_startup_trials == random  # type: ignore[attr-defined]


def test_what_the_file_says_counts() -> None:
    """Its own number stays; a sampler that has none is left alone; without a budget it is Optuna's."""
    spec = ComponentSpec("TPESampler", {"n_startup_trials": 7})
    assert sampling.startup_trials(spec, 10) == 7
    assert startup.with_startup(spec, 10) == spec
    assert sampling.startup_trials(ComponentSpec("CmaEsSampler"), 10) is None
    assert startup.with_startup(ComponentSpec("RandomSampler"), 10) == ComponentSpec("RandomSampler")
    assert sampling.startup_trials(ComponentSpec("GPSampler"), None) == 10
