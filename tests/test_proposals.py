"""Decisions of the gradient-informed search: the model, the next point, whose turn it is, where the optimum lies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from ptydask import sampling
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution
from ptydask.model import BY_SAMPLER, BY_SLOPES, ComponentSpec, Scalar, TrialRecord, TrialState
from ptydask.proposals import (
    PastTrial,
    TrialEvidence,
    locate_optimum,
    next_point,
    propose_point,
    sampler_is_ahead,
    slopes_lead,
)
from ptydask.proposals.agreement import find_contradicted
from ptydask.proposals.coordinates import UnitCube
from ptydask.proposals.gaussian_process import GaussianProcess, Observations
from ptydask.trial import slopes

Tell = Callable[[Mapping[str, Scalar]], TrialEvidence]

PLANE = {"scale": FloatRange(0.9, 1.1, 0.02), "rotation": FloatRange(-4.0, 4.0, 0.5)}
TRUTH = {"scale": 1.04, "rotation": -1.5}


def bowl(space: Mapping[str, Distribution], truth: Mapping[str, float], sign: float = 1.0) -> Tell:
    """1 - exp(-q / 2) of a quadratic q around the truth, whose axes are not those of the parameters; its slopes."""
    names = list(truth)
    widths = np.array([0.25 * (space[name].high - space[name].low) for name in names])  # type: ignore[union-attr]
    mix = np.eye(len(names)) + 0.4 * np.eye(len(names), k=1)

    def tell(params: Mapping[str, Scalar]) -> TrialEvidence:
        off = mix @ np.array([(float(params[n] or 0) - truth[n]) / w for n, w in zip(names, widths, strict=True)])
        fall = math.exp(-off @ off / 2)
        gradient = sign * fall * (mix.T @ off) / widths
        return TrialEvidence(dict(params), sign * (1 - fall), dict(zip(names, gradient.tolist(), strict=True)))

    return tell


def spoiled(tell: Tell, slope: Callable[[float], float], error: Callable[[float], float] = float) -> Tell:
    """Trials whose slopes, or errors, are others."""

    def tell_other(params: Mapping[str, Scalar]) -> TrialEvidence:
        told = tell(params)
        gradient = {name: slope(value) for name, value in told.gradient.items()}
        return TrialEvidence(told.params, error(told.error or 0.0), gradient)

    return tell_other


def steps_off(space: Mapping[str, Distribution], truth: Mapping[str, float], params: Mapping[str, Scalar]) -> float:
    return max(abs(float(params[n] or 0) - truth[n]) / (space[n].step or 1) for n in truth)  # type: ignore[union-attr]


NUMBER = np.array([False])


# --- the model --------------------------------------------------------------------------------------


def test_slopes_alone_tell_differences() -> None:
    """From slopes of sin x at some points the process knows its values elsewhere, but for a constant."""
    points = np.linspace(0, 1, 7)[:, None]
    told = Observations(points, np.full(7, np.nan), 2 * np.cos(2 * points), NUMBER, np.ones(7))
    means, _ = GaussianProcess(told).predict_values(np.array([[0.25], [0.75]]))
    assert means[1] - means[0] == pytest.approx(math.sin(1.5) - math.sin(0.5), rel=0.15)  # less what may be bias


def test_predicted_slopes_are_those_of_predicted_values() -> None:
    rng = np.random.default_rng(1)
    points = rng.random((6, 3))
    told = Observations(points, rng.normal(size=6), rng.normal(size=(6, 3)), np.zeros(3, dtype=bool), np.ones(6))
    model, at, small = GaussianProcess(told), rng.random(3), 1e-5
    slopes_there, covariance = model.predict_slopes(at, np.arange(3))
    above, below = (model.predict_values(at + sign * small * np.eye(3))[0] for sign in (1, -1))
    np.testing.assert_allclose(slopes_there, (above - below) / (2 * small), rtol=1e-4, atol=1e-6)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_slopes_that_all_lean_one_way_are_not_believed() -> None:
    """Values say that the minimum is at 0.5, slopes with a constant offset that it is beyond the range."""
    points = np.linspace(0, 1, 9)[:, None]
    values = 10 * (points[:, 0] - 0.5) ** 2
    told = Observations(points, values, 20 * (points - 0.5) - 12.0, NUMBER, np.ones(9))
    (slope,), _ = GaussianProcess(told).predict_slopes(np.array([0.5]), np.arange(1))
    assert abs(slope) < 1.5


# --- coordinates ------------------------------------------------------------------------------------

MIXED: dict[str, Distribution] = {
    "scale": FloatRange(0.9, 1.1, 0.02),
    "rate": FloatRange(1e-4, 1e-1, log=True),
    "modes": IntRange(1, 6),
    "optimizer": Choice(("Adam", "SGD", "LBFGS")),
    "blur": QuantileDistribution("normal", 0.0, 2.0),
    "kv": FloatRange(80.0, 80.0),
}


def test_points_come_back_from_their_coordinates() -> None:
    cube = UnitCube(MIXED)
    point: dict[str, Scalar] = {"scale": 1.04, "rate": 1e-3, "modes": 4, "optimizer": "SGD", "blur": 1.5, "kv": 80.0}
    back = cube.decode_point(cube.encode_point(point))
    assert back.keys() == point.keys()
    assert {name: back[name] for name in ("scale", "modes", "optimizer", "kv")} == {
        name: point[name] for name in ("scale", "modes", "optimizer", "kv")
    }
    assert back["rate"] == pytest.approx(1e-3)
    assert back["blur"] == pytest.approx(1.5)


def test_slopes_are_per_unit_of_the_coordinate() -> None:
    cube = UnitCube(MIXED)
    point: dict[str, Scalar] = {"scale": 1.0, "rate": 1e-2, "modes": 4, "optimizer": "SGD", "blur": 0.0, "kv": 80.0}
    inner = cube.encode_gradient(point, {"scale": 3.0, "rate": 2.0, "kv": 1.0, "optimizer": 1.0, "blur": 1.0})
    assert inner[cube.place_of("scale")] == pytest.approx(3.0 * 0.2)
    assert inner[cube.place_of("rate")] == pytest.approx(2.0 * 1e-2 * math.log(1e3))
    assert inner[cube.place_of("blur")] == pytest.approx(2.0 * math.sqrt(2 * math.pi), rel=1e-3)
    assert np.isfinite(inner).sum() == 3


# --- slopes and values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "contradicted"),
    [((1, 1), (False, False)), ((-1, 1), (True, False)), ((-1, -1), (True, True)), ((0, 1), (True, False))],
    ids=["right", "one sign wrong", "all signs wrong", "all 0"],
)
def test_slopes_that_values_contradict(factors: tuple[float, float], contradicted: tuple[bool, bool]) -> None:
    points = np.random.default_rng(0).random((12, 2))
    off = points - np.array([0.4, 0.6])
    told = Observations(points, (off**2).sum(1), 2 * off * np.array(factors), np.zeros(2, dtype=bool), np.ones(12))
    assert tuple(find_contradicted(GaussianProcess(told), told)) == contradicted


def test_slopes_of_the_wrong_sign_do_not_lead_astray() -> None:
    """The truth is found by the values in a few more trials."""
    tell = spoiled(bowl(PLANE, TRUTH), lambda slope: -slope)
    told = [tell({"scale": 1.0, "rotation": 0.0})]
    while steps_off(PLANE, TRUTH, told[-1].params) > 1:
        point = propose_point(PLANE, told, [], direction="minimize", seed=len(told))
        assert point is not None
        told.append(tell(point))
        assert len(told) <= 16


# --- the next point ---------------------------------------------------------------------------------

SIX: dict[str, Distribution] = {f"p{i}": FloatRange(-1.0, 1.0, 0.1) for i in range(6)}
SIX_TRUTH = {f"p{i}": value for i, value in enumerate((0.3, -0.4, 0.5, 0.0, -0.2, 0.6))}


@pytest.mark.parametrize(
    ("space", "truth", "most"), [(PLANE, TRUTH, 6), (SIX, SIX_TRUTH, 10)], ids=["two parameters", "six"]
)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_truth_in_a_handful_of_trials(
    space: Mapping[str, Distribution], truth: Mapping[str, float], most: int, direction: Any
) -> None:
    tell = bowl(space, truth, 1.0 if direction == "minimize" else -1.0)
    told = [tell({"scale": 1.0, "rotation": 0.0} if space is PLANE else dict.fromkeys(space, 0.0))]
    while steps_off(space, truth, told[-1].params) > 1:
        point = propose_point(space, told, [], direction=direction, seed=len(told))
        assert point is not None
        told.append(tell(point))
        assert len(told) <= most


def test_workers_that_ask_together_spread() -> None:
    """Eight in a row, none of which has ended: no point twice, and no two next to each other."""
    told = [bowl(PLANE, TRUTH)({"scale": 1.0, "rotation": 0.0})]
    running: list[dict[str, Scalar]] = []
    for seed in range(8):
        point = propose_point(PLANE, told, running, direction="minimize", seed=seed)
        assert point is not None
        assert all(steps_off(PLANE, point, other) > 1.01 for other in running)  # type: ignore[arg-type]
        running.append(point)


def test_parameters_without_slopes_are_searched_too() -> None:
    """A rate and an optimizer that matter as much, of which only values tell."""
    space = {"scale": MIXED["scale"], "rate": MIXED["rate"], "optimizer": MIXED["optimizer"]}
    tell = bowl(space, {"scale": 1.04})

    def told_of(point: Mapping[str, Scalar]) -> TrialEvidence:
        inner, rate = tell(point), math.log10(float(point["rate"] or 1))
        extra = 0.3 * (rate + 2) ** 2 + (0.0 if point["optimizer"] == "Adam" else 0.5)
        return TrialEvidence(dict(point), (inner.error or 0) + extra, inner.gradient)

    told = [told_of({"scale": 1.0, "rate": 1e-4, "optimizer": "SGD"})]
    for seed in range(20):
        point = propose_point(space, told, [], direction="minimize", seed=seed)
        assert point is not None
        told.append(told_of(point))
    best = min(told, key=lambda trial: trial.error or 0).params
    assert best["scale"] == pytest.approx(1.04, abs=0.021)
    assert best["optimizer"] == "Adam"
    assert 2e-3 < float(best["rate"] or 0) < 5e-2


def test_choices_alone_are_proposed_too() -> None:
    """More points than are listed, and no coordinate along which to go step by step."""
    space: dict[str, Distribution] = {f"c{i}": Choice(tuple(range(9))) for i in range(4)}
    told = [TrialEvidence(dict.fromkeys(space, 0), 1.0), TrialEvidence(dict.fromkeys(space, 1), 0.5)]
    point = propose_point(space, told, [], direction="minimize", seed=0)
    assert point is not None
    assert point not in [trial.params for trial in told]


@pytest.mark.parametrize("bad", [10.0, 1e6, 1e160])
def test_a_trial_that_all_but_diverged_is_not_the_measure_of_all(bad: float) -> None:
    tell = bowl(PLANE, TRUTH)
    told = [tell({"scale": scale, "rotation": rotation}) for scale, rotation in ((1.0, 0.0), (1.06, -3.0), (0.96, 1.0))]
    told.append(TrialEvidence({"scale": 0.9, "rotation": 4.0}, bad))
    for seed in range(4):
        point = propose_point(PLANE, told, [], direction="minimize", seed=seed)
        assert point is not None
        told.append(tell(point))
    assert min(steps_off(PLANE, TRUTH, trial.params) for trial in told) <= 1


def test_nothing_to_go_by() -> None:
    assert propose_point(PLANE, [], [{"scale": 1.0, "rotation": 0.0}], direction="minimize", seed=0) is None


# --- whose turn it is -------------------------------------------------------------------------------


def turns(errors: Mapping[str, float], count: int) -> str:
    """Who chooses the trials of a study, one letter each, where all of each origin come to the same error."""
    history, letters = [PastTrial("start", 1.0)], ""
    for _ in range(count):
        origin = BY_SLOPES if slopes_lead(history, "minimize") else BY_SAMPLER
        history.append(PastTrial(origin, errors[origin]))
        letters += "." if origin == BY_SLOPES else "S"
    return letters


def test_the_sampler_has_its_turns() -> None:
    """The first eight are the slopes'; then a sampler that is beaten has ever fewer, one that leads every other."""
    assert turns({BY_SLOPES: 0.1, BY_SAMPLER: 0.5}, 32) == "........S....S....S............."
    assert turns({BY_SLOPES: 0.5, BY_SAMPLER: 0.1}, 14) == "........S.S.S."
    assert turns({BY_SLOPES: 0.1, BY_SAMPLER: 0.1}, 14) == "........S....S"


def test_a_sampler_that_gets_ahead_late_has_every_other_turn() -> None:
    """Not all turns until it has caught up."""
    history = [PastTrial(BY_SLOPES, 0.5)] * 54 + [PastTrial(BY_SAMPLER, 0.6)] * 3 + [PastTrial(BY_SAMPLER, 0.1)]
    assert slopes_lead(history, "minimize")
    assert not slopes_lead([*history, PastTrial(BY_SLOPES, 0.5)], "minimize")


def test_the_sampler_is_ahead_with_the_best_trial_of_all() -> None:
    """Not before the slopes have had their first trials."""
    first = [PastTrial(BY_SLOPES, 0.5)] * 8
    assert sampler_is_ahead([*first, PastTrial(BY_SAMPLER, 0.1)], "minimize")
    assert not sampler_is_ahead([*first[1:], PastTrial(BY_SAMPLER, 0.1)], "minimize")
    assert not sampler_is_ahead([PastTrial(BY_SLOPES, None)] * 32 + [PastTrial(BY_SAMPLER, 0.1)], "minimize")
    assert not sampler_is_ahead([*first, PastTrial(BY_SAMPLER, 0.1)], "maximize")
    assert not sampler_is_ahead([*first, PastTrial(BY_SAMPLER, None)], "minimize")


# --- where the optimum lies -------------------------------------------------------------------------


def records(tell: Tell, points: list[tuple[float, float]]) -> list[TrialRecord]:
    told = [tell({"scale": scale, "rotation": rotation}) for scale, rotation in points]
    return [
        TrialRecord(number, TrialState.COMPLETE, each.error, each.params, gradient=each.gradient)
        for number, each in enumerate(told)
    ]


AROUND = [(1.0, 0.0), (1.06, -3.0), (1.02, -1.5), (1.04, -1.0), (1.04, -2.0)]


def test_the_optimum_between_the_grid_points() -> None:
    tell = bowl(PLANE, {"scale": 1.034, "rotation": -1.62})
    optimum = locate_optimum(records(tell, AROUND), PLANE, "minimize")
    assert optimum is not None
    assert optimum.center == pytest.approx({"scale": 1.034, "rotation": -1.62}, abs=0.05)
    for name, true in (("scale", 1.034), ("rotation", -1.62)):
        assert abs(optimum.center[name] - true) < 4 * optimum.deviation[name]


def test_settled_is_a_trial_where_the_optimum_is() -> None:
    tell = bowl(PLANE, TRUTH)
    without, with_it = (
        locate_optimum(records(tell, points), PLANE, "minimize") for points in (AROUND, [*AROUND, (1.04, -1.5)])
    )
    assert without is not None
    assert with_it is not None
    assert (without.is_settled, with_it.is_settled) == (False, True)
    assert with_it.trial == 5


def test_trials_far_from_rest_never_settle() -> None:
    """After few iterations the loss has its optimum elsewhere."""
    told = records(bowl(PLANE, TRUTH), [*AROUND, (1.04, -1.5)])
    for decrease, is_settled in ((0.02, True), (0.3, False)):
        optimum = locate_optimum([replace(r, relative_decrease=decrease) for r in told], PLANE, "minimize")
        assert optimum is not None
        assert optimum.is_settled is is_settled


@pytest.mark.parametrize("truth", [{"scale": 1.2, "rotation": -1.5}, {"scale": 0.7, "rotation": -9.0}])
def test_an_optimum_beyond_the_range_never_settles(truth: dict[str, float]) -> None:
    optimum = locate_optimum(records(bowl(PLANE, truth), [*AROUND, (1.1, -1.5), (0.9, -4.0)]), PLANE, "minimize")
    assert optimum is None or not optimum.is_settled


@pytest.mark.parametrize("kind", ["noise", "only the slopes are noise", "only the errors are noise", "constant"])
@pytest.mark.parametrize("seed", range(3))
def test_what_says_nothing_never_settles(kind: str, seed: int) -> None:
    """A model of noise has minima, too."""
    rng = np.random.default_rng(seed)
    right, noise = float, lambda _: float(rng.normal())
    tell = spoiled(
        bowl(PLANE, TRUTH),
        right if kind == "only the errors are noise" else noise if "noise" in kind else lambda _: 0.0,
        right if kind == "only the slopes are noise" else noise if "noise" in kind else lambda _: 1.0,
    )
    told = [tell({"scale": 1.0, "rotation": 0.0})]
    for number in range(12):
        rows = [TrialRecord(n, TrialState.COMPLETE, t.error, t.params, gradient=t.gradient) for n, t in enumerate(told)]
        optimum = locate_optimum(rows, PLANE, "minimize")
        assert optimum is None or not optimum.is_settled
        told.append(tell(propose_point(PLANE, told, [], direction="minimize", seed=number) or {}))


def test_far_trials_that_fit_no_smooth_bowl_do_not_unsettle_the_near_ones() -> None:
    """Beyond the bowl the loss is a jagged plateau: alone, the better half of the trials settles it."""
    rng, tell = np.random.default_rng(1), bowl(PLANE, TRUTH)
    near = [(1.04, -1.5), (1.04, -1.0), (1.02, -1.5), (1.06, -2.0), (1.02, -2.0), (1.06, -1.0), (1.04, -2.5)]
    near += [(1.02, -0.5), (1.04, -0.5), (1.06, -2.5), (1.0, -1.5), (1.02, -2.5)]
    far = [(0.9, 4.0), (0.92, 3.0), (0.9, 0.5), (0.94, 3.5), (0.92, 1.0), (0.9, 2.0), (0.94, 2.5), (0.92, 4.0)]
    plateau = [
        replace(record, error=0.9 + 0.3 * rng.random(), gradient={"scale": rng.normal(), "rotation": rng.normal()})
        for record in records(tell, far)
    ]
    told = [*records(tell, near), *(replace(record, number=len(near) + n) for n, record in enumerate(plateau))]
    optimum = locate_optimum(told, PLANE, "minimize")
    assert optimum is not None
    assert optimum.is_settled
    assert optimum.center == pytest.approx(TRUTH, abs=0.05)


@pytest.mark.parametrize("spoil", ["errors", "slopes"])
@pytest.mark.parametrize("seed", range(3))
def test_the_better_half_of_what_says_nothing_never_settles(spoil: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [(0.9 + 0.02 * int(rng.integers(11)), -4 + 0.5 * int(rng.integers(17))) for _ in range(40)]
    told = records(bowl(PLANE, TRUTH), list(dict.fromkeys(points)))
    for_noise = [
        replace(record, error=float(rng.normal()))
        if spoil == "errors"
        else replace(record, gradient={name: float(rng.normal()) for name in record.gradient})
        for record in told
    ]
    optimum = locate_optimum(for_noise, PLANE, "minimize")
    assert optimum is None or not optimum.is_settled


VALLEY = json.loads((Path(__file__).parent / "fixtures" / "slanting_valley.json").read_text())
"""The first trials of a study of affine parameters, tilts and thickness; the truth is rotation 2, shear 1. Those near
it went along the line rotation = -shear, into a valley in which the loss falls along the other diagonal."""


@pytest.mark.parametrize("count", [8, 9, 11])
def test_a_point_in_a_slanting_valley_is_not_settled(count: int) -> None:
    """The model alone was sure to a third of a grid step, three and a half steps from the truth."""
    space = {name: FloatRange(*ends) for name, ends in VALLEY["space"].items()}
    told = [TrialRecord(**{**trial, "state": TrialState(trial["state"])}) for trial in VALLEY["trials"]]
    optimum = locate_optimum(told[:count], space, "minimize")
    assert optimum is not None
    assert optimum.center["shear"] < -0.5
    assert not optimum.is_settled


def slanting(truth: Mapping[str, float], slant: float) -> Tell:
    """A valley in each two neighbouring parameters that belong together; beside the truth it rises to a plateau."""
    widths = np.linspace(0.4, 0.8, len(truth))
    together = np.eye(len(truth))
    for first in range(0, len(truth) - 1, 2):
        together[first, first + 1] = together[first + 1, first] = slant
    bend = np.linalg.inv(np.outer(widths, widths) * together)

    def tell(params: Mapping[str, Scalar]) -> TrialEvidence:
        off = np.array([float(params[name] or 0) - value for name, value in truth.items()])
        fall = math.exp(-off @ bend @ off / 8)
        gradient = fall * (bend @ off) / 4
        return TrialEvidence(dict(params), 1 - fall, dict(zip(truth, gradient.tolist(), strict=True)))

    return tell


@pytest.mark.parametrize(
    ("truth", "slant"),
    [((0.4, -0.4, 0.1), 0.9), ((-0.5, 0.2, 0.3, -0.3), 0.9), ((0.5, 0.5, -0.2, 0.4), 0.9), ((0.3, -0.5), -0.95)],
)
def test_a_search_along_slanting_valleys_settles_at_the_truth_alone(truth: tuple[float, ...], slant: float) -> None:
    space = {f"p{place}": FloatRange(-1.0, 1.0, 0.1) for place in range(len(truth))}
    where = dict(zip(space, truth, strict=True))
    tell = slanting(where, slant)
    told = [tell(dict.fromkeys(space, 0.0))]
    for number in range(16):
        rows = [TrialRecord(n, TrialState.COMPLETE, t.error, t.params, gradient=t.gradient) for n, t in enumerate(told)]
        optimum = locate_optimum(rows, space, "minimize")
        if optimum is not None and optimum.is_settled:
            assert steps_off(space, where, rows[optimum.trial].params) <= 1.0 + 1e-9
            return
        told.append(tell(propose_point(space, told, [], direction="minimize", seed=number) or {}))
    pytest.fail("never settled")


def test_settled_takes_more_trials_than_directions() -> None:
    """Three trials that fit a bowl to the last digit, of which none may be missing. One without a slope is none."""
    told = records(bowl(PLANE, TRUTH), [(1.02, -1.5), (1.04, -1.0), (1.04, -1.5), (1.06, -2.0), (1.04, -2.0)])
    mute = [replace(record, gradient={"scale": record.gradient["scale"]}) for record in told[3:]]
    for rows, is_settled in ((told[:3], False), ([*told[:3], *mute], False), (told, True)):
        optimum = locate_optimum(rows, PLANE, "minimize")
        assert optimum is not None
        assert optimum.is_settled is is_settled


def test_too_little_to_say() -> None:
    told = records(bowl(PLANE, TRUTH), AROUND)
    assert locate_optimum(told[:2], PLANE, "minimize") is None
    assert locate_optimum([], PLANE, "minimize") is None
    values_only = [TrialRecord(r.number, r.state, r.error, r.params) for r in told]
    assert locate_optimum(values_only, PLANE, "minimize") is None


# --- Optuna -----------------------------------------------------------------------------------------


def ask_next(storage: Any, index: int, space: Mapping[str, Distribution]) -> tuple[Any, dict[str, Scalar]]:
    """A trial as a worker asks for it, and its point."""
    spec = ComponentSpec("TPESampler", {"multivariate": True})
    sampler = sampling.build_sampler(spec, seed=index, space=space, trials=24, informed=True)
    trial = optuna.load_study(study_name="s", storage=storage, sampler=sampler).ask()
    return trial, sampling.suggest(trial, space, spec)


def tell_end(trial: Any, told: TrialEvidence) -> None:
    """Tell Optuna as a worker does."""
    trial.set_user_attr(slopes.ATTRIBUTE, {"step": 3, "relative_decrease": 0.1, "slopes": dict(told.gradient)})
    trial.study.tell(trial, told.error)


def new_storage() -> Any:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="s", storage=storage)
    return storage


def test_an_optuna_study_that_goes_by_slopes() -> None:
    """The factory's informed sampler: origins are signed, no point comes twice, the truth is found at once."""
    storage, points, letters = new_storage(), [], ""
    for number in range(24):
        trial, point = ask_next(storage, number, PLANE)
        tell_end(trial, bowl(PLANE, TRUTH)(point))
        points.append(point)
        letters += "." if trial.user_attrs.get("origin") == BY_SLOPES else "S"
    assert min(n for n, point in enumerate(points) if steps_off(PLANE, TRUTH, point) <= 1) <= 6
    assert len({tuple(point.values()) for point in points}) == 24
    assert letters == "S........S....S........."  # nothing was known at first; then as the rule has it


def test_a_study_that_goes_on_comes_to_the_same_points() -> None:
    """A trial is interrupted and tried again, and the indices of tasks are others; origins stay."""

    def run_study(interrupt_at: int | None) -> list[dict[str, Scalar]]:
        storage, index, points = new_storage(), 0, []
        start = {"origin": "start"}
        optuna.load_study(study_name="s", storage=storage).enqueue_trial(dict.fromkeys(SIX, 0.0), user_attrs=start)
        while len(points) < 9:
            trial, point = ask_next(storage, index, SIX)
            if index == interrupt_at:
                trial.set_user_attr("reason", "interrupted")
                trial.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                retry = {"origin": trial.user_attrs["origin"], "retry_of": trial.number}
                trial.study.enqueue_trial(trial.params, user_attrs=retry)
                index = 4 << 16
                continue
            assert trial.user_attrs["origin"] == (BY_SLOPES if points else "start")
            tell_end(trial, bowl(SIX, SIX_TRUTH)(point))
            points.append(point)
            index += 1
        return points

    assert run_study(None) == run_study(4) == run_study(0)


def test_another_s_point_keeps_its_origin() -> None:
    """One that is enqueued when slopes are known already: by a person, or as a lost trial's retry."""
    storage = new_storage()
    for number in range(3):
        trial, point = ask_next(storage, number, PLANE)
        tell_end(trial, bowl(PLANE, TRUTH)(point))
    for given in ({"scale": 0.9, "rotation": 3.0}, {"scale": 0.92}):
        trial.study.enqueue_trial(given, user_attrs={"origin": "near start"})
        trial, point = ask_next(storage, 9, PLANE)
        assert trial.user_attrs["origin"] == "near start"
        assert given.items() <= point.items()
        tell_end(trial, bowl(PLANE, TRUTH)(point))


def test_parameters_that_are_held_stay() -> None:
    """PartialFixedSampler holds rotation: the slopes choose the rest."""
    spec = ComponentSpec(
        "PartialFixedSampler", {"base_sampler": {"name": "TPESampler"}, "fixed_params": {"rotation": 1.0}}
    )
    tell = bowl(PLANE, TRUTH)
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="s", storage=storage)
    origins = []
    for number in range(5):
        sampler = sampling.build_sampler(spec, seed=number, space=PLANE, trials=24, informed=True)
        study = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
        trial = study.ask()
        point = sampling.suggest(trial, PLANE, spec)
        assert point["rotation"] == 1.0
        told = tell(point)
        trial.set_user_attr(slopes.ATTRIBUTE, {"step": 3, "relative_decrease": 0.1, "slopes": dict(told.gradient)})
        study.tell(trial, told.error)
        origins.append(trial.user_attrs.get("origin"))
    assert origins[1:] == [BY_SLOPES] * 4


# --- many trials -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("points", "others", "grid"), [(40, 7, True), (5, 60, True), (300, 50, False), (1, 1, True)])
@pytest.mark.parametrize("seed", range(3))
def test_near_is_near_in_every_coordinate(points: int, others: int, grid: bool, seed: int) -> None:
    """Whichever of the two are more, and where distances are the reach itself."""
    rng = np.random.default_rng(seed)
    first, second = (rng.random((count, 3)) for count in (points, others))
    if grid:
        first, second = np.round(4 * first) / 4, np.round(4 * second) / 4
    for reach in (np.full(3, 1e-6), np.array([0.25, 0.5, 0.1]), np.zeros(3)):
        expected = np.any(np.all(np.abs(first[:, None] - second[None]) <= reach, axis=2), axis=1)
        np.testing.assert_array_equal(next_point._is_near(first, second, reach), expected)


def test_the_model_of_a_large_study_is_fitted_where_its_best_trials_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One more trial that is none of them changes no value of it, and costs no fit."""
    fits: list[Observations] = []

    def counted(model: GaussianProcess, seen: Observations) -> Any:
        fits.append(seen)
        return find_contradicted(model, seen)

    monkeypatch.setattr(next_point, "find_contradicted", counted)
    next_point._fit_arrays.cache_clear()
    rng = np.random.default_rng(0)
    tell = bowl(PLANE, {"scale": 1.04, "rotation": -1.5})
    told = [
        tell({"scale": scale, "rotation": rotation}) for scale, rotation in rng.uniform([0.9, -4], [1.1, 4], (120, 2))
    ]
    far, best = tell({"scale": 0.9, "rotation": 4.0}), tell({"scale": 1.04, "rotation": -1.5})
    cube = UnitCube(PLANE)
    models = [next_point.fit_model(cube, evidence, "minimize")[0] for evidence in (told, [*told, far], [*told, best])]
    assert len(fits) == 2
    assert models[0] is models[1]
    assert models[2] is not models[0]
