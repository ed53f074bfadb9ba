"""What to do after a study: each rule by the smallest study that it is about, and where it has nothing to say."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import figure_cases
import pytest
import store_cases

from ptydask import cli
from ptydask.analysis import next_ranges
from ptydask.analysis.advice import Advice, AdviceKind, StudyFacts, advise, advise_by, gather_facts
from ptydask.analysis.next_study import plan_next_study
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.lineage import StageLineage
from ptydask.model import Optimum, Reason, Scalar, TrialRecord, TrialState
from ptydask.ranking import rank_correlation
from ptydask.space import reshaping
from ptydask.space.tuning_order import next_step

CONFIG: dict[str, Any] = {
    "init_params": {"obj_Nlayer": 6, "obj_slice_thickness": 20.0, "pos_scan_affine": None},
    "recon_params": {"NITER": 12},
    "hypertune_params": {"tune_params": {}},
}
SCALE, ROTATION = FloatRange(0.9, 1.1, 0.02), FloatRange(-4.0, 4.0, 0.5)


def trials(
    values: list[dict[str, Scalar]], error: Callable[[dict[str, Scalar]], float], **changes: Any
) -> tuple[TrialRecord, ...]:
    """Completed trials at these parameters."""
    return tuple(TrialRecord(i, TrialState.COMPLETE, error(v), v, **changes) for i, v in enumerate(values))


def facts(records: tuple[TrialRecord, ...], space: dict[str, Distribution], **changes: Any) -> StudyFacts:
    """A study of PtyRAD's that minimises its loss."""
    return replace(StudyFacts(records, space, "loss", "minimize", config=CONFIG), **changes)


def parabola(best: float, count: int = 11, low: float = -4.0, high: float = 4.0, name: str = "C10") -> StudyFacts:
    """A study of one parameter without slopes, tried from end to end in no order, with its optimum at ``best``."""
    width = (high - low) / (count - 1)
    order = sorted(range(count), key=lambda i: (i * 7) % count)
    values: list[dict[str, Scalar]] = [{name: low + width * i} for i in order]
    return facts(trials(values, lambda v: 1 + (float(v[name] or 0) - best) ** 2), {name: FloatRange(low, high, width)})


def sloped(
    center: dict[str, float], deviation: dict[str, float], *, settled: bool = True, **changes: Any
) -> StudyFacts:
    """Twelve trials with slopes in scale and rotation, and where their model has its optimum."""
    values: list[dict[str, Scalar]] = [
        {"scale": 0.96 + 0.02 * (i % 4), "rotation": -1.0 + 0.5 * (i // 4)} for i in range(12)
    ]
    records = trials(
        values, lambda v: abs(float(v["scale"] or 0) - center["scale"]), gradient={"scale": 1.0, "rotation": 1.0}
    )
    optimum = Optimum(center, deviation, 0, settled)
    return facts(records, {"scale": SCALE, "rotation": ROTATION}, optimum=optimum, **changes)


def of_kind(given: tuple[Advice, ...], kind: AdviceKind) -> Advice:
    """The one piece of advice of its kind."""
    (one,) = [advice for advice in given if advice.kind is kind]
    return one


@pytest.mark.parametrize(("slopes", "advised"), [({"scale": 1.0, "rotation": 1.0}, False), ({}, True)])
def test_trials_that_ended_by_their_slopes_need_no_other_pruner(slopes: dict[str, float], advised: bool) -> None:
    """They have told what they were run for; trials that were pruned without are lost to a comparison."""
    values: list[dict[str, Scalar]] = [{"scale": 0.9 + 0.02 * i, "rotation": -4 + 0.5 * i} for i in range(10)]
    records = tuple(
        replace(record, state=TrialState.COMPLETE if record.number < 2 else TrialState.PRUNED)
        for record in trials(values, lambda v: 1.0, gradient=slopes)
    )
    given = advise_by(facts(records, {"scale": SCALE, "rotation": ROTATION}))
    assert (AdviceKind.PRUNING in {advice.kind for advice in given}) is advised


def test_values_that_did_nothing_are_no_reason() -> None:
    """Of objects of one slice dz is chance, at the end of its range or elsewhere; of others it counts."""

    def study(layers: int, dz: Callable[[int], float]) -> StudyFacts:
        values: list[dict[str, Scalar]] = [{"Nlayer": layers if i < 12 else 3 - layers, "dz": dz(i)} for i in range(24)]
        space = {"Nlayer": IntRange(1, 2), "dz": FloatRange(2.0, 8.0)}
        return facts(trials(values, lambda v: values.index(v)), space)

    def kinds(given: StudyFacts) -> set[AdviceKind]:
        return {advice.kind for advice in advise_by(given) if advice.parameter == "dz"}

    assert kinds(study(2, lambda i: 8 - 0.2 * i)) == {AdviceKind.RANGE_TOO_NARROW}
    assert kinds(study(1, lambda i: 8 - 0.2 * i)) == set()
    assert kinds(study(2, lambda i: 8 - 0.2 * i if i < 12 else 2.0)) == {AdviceKind.RANGE_TOO_NARROW}


# --- enough to say anything --------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "few"), [(0, True), (1, True), (9, True), (10, False)])
def test_few_trials_say_nothing_else(count: int, few: bool) -> None:
    """Below ten completed ones there is no word on ranges."""
    given = advise_by(facts(parabola(0).records[:count], {"C10": ROTATION}))
    assert ([advice.kind for advice in given] == [AdviceKind.TOO_FEW_TRIALS]) is few


def test_slopes_and_small_grids_need_fewer() -> None:
    """A quadratic in d parameters is known by d + 1 trials with slopes, a grid by its points."""
    enough = sloped({"scale": 0.98, "rotation": -1.0}, {"scale": 0.001, "rotation": 0.01})
    assert AdviceKind.TOO_FEW_TRIALS not in {
        advice.kind for advice in advise_by(replace(enough, records=enough.records[:3]))
    }
    assert advise_by(replace(enough, records=enough.records[:2]))[0].kind is AdviceKind.TOO_FEW_TRIALS
    grid = parabola(0, 5, -2, 2)
    assert AdviceKind.TOO_FEW_TRIALS not in {advice.kind for advice in advise_by(grid)}


def test_a_study_that_was_still_finding_better_ones_goes_on() -> None:
    """By slopes, where the optimum is not settled; without, where the last trials gained much; a whole grid not."""
    unsettled = sloped({"scale": 1.0, "rotation": -1.0}, {"scale": 0.004, "rotation": 0.1}, settled=False)
    assert of_kind(advise_by(unsettled), AdviceKind.MORE_TRIALS)
    falling = trials([{"C10": 0.1 * i - 1} for i in range(20)], lambda v: 5 - float(v["C10"] or 0))
    going = facts(falling, {"C10": FloatRange(-4, 4)})
    assert of_kind(advise_by(going), AdviceKind.MORE_TRIALS).trials == (19,)
    whole = facts(falling, {"C10": FloatRange(-1.0, 0.9, 0.1)})
    assert AdviceKind.MORE_TRIALS not in {advice.kind for advice in advise_by(whole)}


# --- ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("best", "new"), [(-9.0, (-8, 0)), (4.0, (0, 8)), (-4.0, (-8, 0))])
def test_a_best_value_at_the_end_moves_the_range(best: float, new: tuple[float, float]) -> None:
    """The end is its middle then, the grid stays the same grid, and what comes after has to wait."""
    advice = of_kind(advise_by(parabola(best, 17)), AdviceKind.RANGE_TOO_NARROW)
    assert (advice.parameter, advice.tune) == ("C10", {"C10": FloatRange(*map(float, new), 0.5)})
    assert {a.kind for a in advise_by(parabola(best, 17))} == {AdviceKind.RANGE_TOO_NARROW}


@pytest.mark.parametrize(
    ("dist", "value", "name", "new"),
    [
        (FloatRange(1e-4, 1e-2, log=True), 1e-2, "oplr", FloatRange(1e-3, 1e-1, log=True)),
        (IntRange(1, 8), 8, "pmode_max", IntRange(4, 12)),
        (IntRange(1, 8), 1, "pmode_max", None),
        (FloatRange(2.0, 6.0, 0.5), 2.0, "dz", FloatRange(0.5, 4.0, 0.5)),
        (FloatRange(0.0, 5.0), 5.0, "alpha", FloatRange(2.5, 7.5)),
        (FloatRange(0.0, 0.5), 0.0, "dropout", None),
        (FloatRange(0.5, 0.9), 0.9, "momentum", FloatRange(0.7, 1.0)),
        (FloatRange(0.01, 0.05), 0.01, "rate", FloatRange(0.001, 0.03)),
    ],
)
def test_a_range_ends_where_sense_does(dist: Any, value: float, name: str, new: Any) -> None:
    """Logarithmic, whole and continuous ranges; one that cannot go lower is not too narrow."""
    change = next_ranges.by_good_trials(dist, name, [value] * 5, [value] * 5)
    assert (change and change.range) == new


def test_the_end_of_a_flat_range_is_chance() -> None:
    """The best of a parameter that does nothing lies at an end now and then; so does one that slopes inwards."""
    good = [-4.0, 3.0, 1.0, 2.0, 0.0]
    assert next_ranges.by_good_trials(ROTATION, "rotation", good, good) is None
    assert next_ranges.by_good_trials(ROTATION, "rotation", [-4.0] * 5, good, rise=-1.0) is None
    assert next_ranges.by_good_trials(ROTATION, "rotation", good, good, rise=1.0) is not None


@pytest.mark.parametrize(
    ("center", "deviation", "kind"),
    [
        (4.0, 0.1, AdviceKind.RANGE_TOO_NARROW),
        (3.9, 0.2, AdviceKind.RANGE_TOO_NARROW),
        (0.25, 0.02, AdviceKind.STEP_TOO_COARSE),
        (0.02, 0.02, None),
        (0.02, 1.9, None),
    ],
)
def test_an_optimum_by_slopes_judges_its_range(center: float, deviation: float, kind: AdviceKind | None) -> None:
    """At the end, or beyond it by its +-; between two steps; where it is, nothing; where nothing is known, nothing."""
    change = next_ranges.by_optimum(ROTATION, "rotation", center, deviation, settled=True)
    assert (change and change.kind) == kind


def test_a_step_is_too_fine_where_nobody_can_tell_it() -> None:
    """By slopes: the deviation is several steps. By trials: the best lie over many of them."""
    fine = FloatRange(-4.0, 4.0, 0.01)
    change = next_ranges.by_optimum(fine, "rotation", 0.0, 0.1, settled=False)
    assert change is not None
    assert (change.kind, change.range) == ("step too fine", FloatRange(-4.0, 4.0, 0.1))
    assert next_ranges.by_good_trials(fine, "rotation", [0.0, 3.0, -3.0], [0.0]) is None
    change = next_ranges.by_good_trials(fine, "rotation", [0.0, 0.3, -0.4, 0.1, -0.2], [0.0])
    assert change is not None
    assert (change.kind, change.range.step) == ("step too fine", 0.05)


def test_a_step_is_too_coarse_where_all_good_trials_share_a_value() -> None:
    """Other parameters tell them apart, and the values beside it were tried."""
    good, tried = [0.5] * 5, [0.5] * 5 + [0.0] * 3 + [1.0] * 3
    change = next_ranges.by_good_trials(ROTATION, "C10", good, tried)
    assert change is not None
    assert (change.kind, change.range) == ("step too coarse", FloatRange(-0.5, 1.5, 0.1))
    assert next_ranges.by_good_trials(ROTATION, "C10", good, good) is None


def test_a_range_is_too_wide_where_good_trials_fill_a_small_part() -> None:
    """It says which; not where nothing else was tried."""
    tried = [i / 5 for i in range(-20, 20)]
    change = next_ranges.by_good_trials(FloatRange(-4, 4), "C10", [0.2, 0.0, 0.4, -0.2, 0.6], tried)
    assert change is not None
    assert (change.kind, change.range) == ("range too wide", FloatRange(-0.6, 1.0))
    assert next_ranges.by_good_trials(FloatRange(-4, 4), "C10", [0.2, 0.0], [0.2, 0.0] * 20) is None
    assert next_ranges.by_good_trials(FloatRange(-4, 4), "C10", [3.5, 4.0, 3.8, 3.2, 3.9], tried) is None
    wide = next_ranges.by_optimum(FloatRange(-30.0, 30.0, 0.5), "rotation", -1.5, 0.1, settled=False)
    assert wide is not None
    assert (wide.kind, wide.range) == ("range too wide", FloatRange(-2.5, -0.5, 0.5))


# --- trials and metrics ------------------------------------------------------------------------------


def failing(number: int, size: int) -> TrialRecord:
    """One that ran out of memory."""
    text = "OutOfMemoryError: CUDA out of memory"
    return TrialRecord(number, TrialState.FAIL, None, {"batch_size": size}, reason=Reason.FAILED, message=text)


def test_failures_are_named_and_where_they_are() -> None:
    """The commonest message; and the range is cut where all of them lie at one end of it."""
    good = trials([{"batch_size": 16 + i} for i in range(12)], lambda v: abs(20 - float(v["batch_size"] or 0)))
    bad = tuple(failing(12 + i, 64 + i) for i in range(4))
    advice = of_kind(advise_by(facts((*good, *bad), {"batch_size": IntRange(16, 128)})), AdviceKind.FAILED_TRIALS)
    assert "out of memory" in advice.text
    assert advice.tune == {"batch_size": IntRange(16, 27)}
    mixed = tuple(failing(12 + i, 16 + i) for i in range(4))
    advice = of_kind(advise_by(facts((*good, *mixed), {"batch_size": IntRange(16, 128)})), AdviceKind.FAILED_TRIALS)
    assert not advice.tune
    lost = tuple(replace(record, reason=Reason.LOST) for record in bad)
    given = advise_by(facts((*good, *lost), {"batch_size": IntRange(16, 128)}))
    assert AdviceKind.FAILED_TRIALS not in {advice.kind for advice in given}


def test_contrast_is_not_pruned_by() -> None:
    """It does not rise steadily; nor is a pruner kept that leaves nothing to compare."""
    some = tuple(replace(r, state=TrialState.PRUNED) if i % 3 else r for i, r in enumerate(parabola(0).records))
    assert of_kind(advise_by(facts(some, {"C10": ROTATION}, metric="contrast")), AdviceKind.PRUNING).settings == {
        "hypertune_params.pruner_params": None
    }
    assert AdviceKind.PRUNING not in {advice.kind for advice in advise_by(facts(some, {"C10": ROTATION}))}
    most = tuple(replace(r, state=TrialState.PRUNED) if i else r for i, r in enumerate(parabola(0).records))
    assert of_kind(advise_by(facts(most, {"C10": ROTATION})), AdviceKind.PRUNING)


def test_trials_that_end_on_the_way_down_get_more_iterations() -> None:
    """Twice as many, of the good ones alone; at rest nothing is said."""
    for share, said in ((0.2, True), (0.01, False), (None, False)):
        records = tuple(replace(record, relative_decrease=share) for record in parabola(0).records)
        given = [a for a in advise_by(facts(records, {"C10": ROTATION})) if a.kind is AdviceKind.MORE_ITERATIONS]
        assert [advice.settings for advice in given] == [{"recon_params.NITER": 24}] * said


def test_metrics_that_disagree_are_named() -> None:
    """Where a lower loss clearly goes with a lower contrast; the best trial by each is to be looked at."""

    def with_contrast(sign: float, count: int = 20) -> tuple[Advice, ...]:
        records = tuple(
            replace(r, metrics={"loss": r.error or 0, "contrast": sign * math.sqrt(r.error or 0)})
            for r in parabola(0.3, count).records
        )
        return advise_by(facts(records, {"C10": ROTATION}))

    best, worst = parabola(0.3, 20).best[0].number, parabola(0.3, 20).best[-1].number
    assert of_kind(with_contrast(1.0), AdviceKind.METRICS_DISAGREE).trials == (best, worst)
    for agreeing in (with_contrast(-1.0), with_contrast(0.0), with_contrast(1.0, 9)):
        assert AdviceKind.METRICS_DISAGREE not in {advice.kind for advice in agreeing}


def test_rank_correlation_takes_ties_by_their_mean() -> None:
    """As SciPy's ``spearmanr`` has it."""
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, -1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 3], [1, 2, 2, 3]) == pytest.approx(0.8333333)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0


def test_a_parameter_that_does_nothing_is_left_out() -> None:
    """By importances, where there is more than one; nothing is said of its range then."""
    two = sloped({"scale": 0.98, "rotation": 0.25}, {"scale": 0.001, "rotation": 3.0}, engine="toy")
    given = advise_by(replace(two, importances={"scale": 0.995, "rotation": 0.005}))
    assert [(advice.kind, advice.fix) for advice in given] == [(AdviceKind.NO_INFLUENCE, ("rotation",))]
    located = sloped({"scale": 0.98, "rotation": 0.25}, {"scale": 0.001, "rotation": 0.01}, engine="toy")
    given = advise_by(replace(located, importances={"scale": 0.995, "rotation": 0.005}))
    assert AdviceKind.NO_INFLUENCE not in {advice.kind for advice in given}
    given = advise_by(replace(located, importances={"scale": 0.9, "rotation": 0.1}))
    assert [advice.kind for advice in given] == [AdviceKind.STEP_TOO_COARSE]


# --- PtyRAD's order ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tuned", "slices", "affine", "following"),
    [
        (("dz",), 6, None, ("scale", "rotation")),
        (("scale", "rotation"), 6, None, ("scale", "asymmetry", "rotation", "shear")),
        (("scale",), 6, None, ("scale", "rotation")),
        (("scale", "asymmetry", "rotation", "shear"), 6, None, ("tilt_y", "tilt_x")),
        (("scale", "asymmetry", "rotation", "shear"), 1, None, None),
        (("tilt_y", "tilt_x"), 6, [1.02, 0, 1, 0], None),
        (("dz", "tilt_y", "tilt_x"), 6, None, ("scale", "rotation")),
        (("C10",), 6, None, ("dz",)),
        (("C10",), 1, None, ("scale", "rotation")),
        (("C10",), 6, [1.02, 0, 1, 0], ("scale", "rotation")),
    ],
)
def test_the_order_is_ptyrads(tuned: tuple[str, ...], slices: int, affine: Any, following: Any) -> None:
    """dz, scale with rotation, the whole affine, tilts; without what does nothing for an object of one slice."""
    config = {"init_params": {**CONFIG["init_params"], "obj_Nlayer": slices, "pos_scan_affine": affine}}
    assert next_step(config, tuned) == following


def test_a_settled_study_is_followed_by_the_next_step() -> None:
    """What is tuned again has finer steps around its optimum; what is new the file's range, or PtyRAD's own."""
    done = sloped({"scale": 0.981, "rotation": -1.02}, {"scale": 0.001, "rotation": 0.01})
    shear = {"shear": {"state": False, "suggest": "float", "kwargs": {"low": -2, "high": 2, "step": 0.25}}}
    config = {**CONFIG, "hypertune_params": {"tune_params": shear}}
    (advice,) = advise_by(replace(done, config=config))
    assert advice.kind is AdviceKind.NEXT_STEP
    assert advice.tune == {
        "scale": FloatRange(0.94, 1.025, 0.005),
        "asymmetry": FloatRange(-0.2, 0.2, 0.05),
        "rotation": FloatRange(-2.1, 0.0, 0.1),
        "shear": FloatRange(-2.0, 2.0, 0.25),
    }
    last = facts(parabola(0.0, name="tilt_y").records, {"tilt_y": ROTATION, "tilt_x": FloatRange(0, 0)}, config=CONFIG)
    assert of_kind(advise_by(last), AdviceKind.NEXT_STEP).fix == ("tilt_y", "tilt_x")


def test_what_earlier_stages_found_counts() -> None:
    """The next step comes after that, and more trials are the stage's."""
    done = sloped({"scale": 0.981, "rotation": -1.02}, {"scale": 0.001, "rotation": 0.01})
    found: dict[str, Scalar] = {"asymmetry": 0.1, "shear": 0.5, "scale": 1.0, "rotation": 0.0}
    stage = StageLineage("again", ("affine", "again"), "affine", 3, found, dict.fromkeys(found, ("affine", 3)))
    (advice,) = advise_by(replace(done, lineage=stage))
    assert advice.kind in (AdviceKind.NEXT_STEP, AdviceKind.LAST_STEP)
    assert "shear" not in advice.tune
    tilted = facts(parabola(0.0, name="tilt_y").records, {"tilt_y": ROTATION, "tilt_x": FloatRange(0, 0)})
    flat = {"init_params": {**CONFIG["init_params"], "pos_scan_affine": [1, 0, 0, 0]}}
    whole: dict[str, Scalar] = {**found, "dz": 8.0}
    for final, kinds in ((("tilts",), {AdviceKind.LAST_STEP}), (("tilts", "final"), set())):
        last = StageLineage("tilts", ("affine", *final), "affine", 3, whole, dict.fromkeys(whole, ("affine", 3)))
        told = {one.kind for one in advise_by(replace(tilted, config=flat, lineage=last))}
        assert told & {AdviceKind.LAST_STEP} == kinds


MORE = (AdviceKind.TOO_FEW_TRIALS, AdviceKind.MORE_TRIALS)


@pytest.mark.parametrize("count", [2, 12])
def test_where_more_trials_of_a_stage_go(count: int) -> None:
    """A stage that is over takes no more: a study of its own has them. None while the run has not come to its end."""
    done = sloped({"scale": 0.981, "rotation": -1.02}, {"scale": 0.001, "rotation": 0.01}, settled=False)
    stage = StageLineage("again", ("dz", "again"), "dz", 3, {"dz": 8.0}, {"dz": ("dz", 3)})
    few = replace(done, records=done.records[:count], lineage=stage)
    (more,) = (one for one in advise_by(few) if one.kind in MORE)
    assert ("give stage again more" in more.text, "hypertune_params.n_trials" in more.settings) == (True, True)
    over = replace(few, lineage=replace(stage, stages=("dz", "again", "final")))
    (more,) = (one for one in advise_by(over) if one.kind in MORE)
    assert ("is over" in more.text, "in its file" in more.text) == (True, False)
    following = plan_next_study(over, [more], "next")
    assert following is not None
    assert (following.hypertune, following.tune) == ({"n_trials": 6 + 2 if count == 2 else 18}, over.space)
    (more,) = (one for one in advise_by(replace(over, to_come=True)) if one.kind in MORE)
    assert ("the same command goes on" in more.text, more.settings) == (True, {})


@pytest.mark.parametrize("count", [1, 4, 12])
def test_a_second_look_need_not_settle(count: int) -> None:
    """All that it tunes was tuned before: what comes next is said, however few trials it has."""
    done = sloped({"scale": 0.981, "rotation": -1.02}, {"scale": 0.001, "rotation": 0.01}, settled=False)
    found: dict[str, Scalar] = {"scale": 1.0, "rotation": 0.0}
    look = StageLineage("again", ("affine", "again"), "affine", 3, found, dict.fromkeys(found, ("affine", 3)))
    told = advise_by(replace(done, records=done.records[:count], lineage=look))
    assert not {one.kind for one in told} & {*MORE}
    assert of_kind(told, AdviceKind.NEXT_STEP)
    assert advise_by(replace(done, records=(), lineage=look))[0].kind is AdviceKind.TOO_FEW_TRIALS


def test_iterations_of_a_stage_are_its_own() -> None:
    """Not NITER, which the file has for the whole."""
    falling = facts(
        tuple(replace(record, relative_decrease=0.1) for record in parabola(0.0).records), {"C10": ROTATION}
    )
    falling = replace(falling, config={**CONFIG, "recon_params": {"NITER": 6}})
    stage = StageLineage("rough", ("rough", "fine"))
    assert "NITER 12" in of_kind(advise_by(falling), AdviceKind.MORE_ITERATIONS).text
    assert "iterations: 12" in of_kind(advise_by(replace(falling, lineage=stage)), AdviceKind.MORE_ITERATIONS).text


def test_other_engines_have_no_order() -> None:
    """Nothing is wrong, so nothing is said."""
    done = sloped({"scale": 0.981, "rotation": -1.02}, {"scale": 0.001, "rotation": 0.01}, engine="toy")
    assert advise_by(done) == ()


# --- whole studies -----------------------------------------------------------------------------------


def test_a_study_gives_its_own_facts() -> None:
    """Its space, its optimum by slopes, its importances."""
    given = advise(figure_cases.sloped(20))
    assert given
    assert all(advice.kind is not AdviceKind.TOO_FEW_TRIALS for advice in given)
    assert advise(figure_cases.of([1.0] * 30)) == ()  # nothing is tuned


def test_false_alarms_are_rare() -> None:
    """Of studies with their optimum inside, tried at random: no end and no step is blamed without a reason."""
    space = {
        "C10": FloatRange(-4, 4, 0.5),
        "conv_angle": FloatRange(20, 30, 0.5),
        "plr": FloatRange(1e-4, 1e-2, log=True),
    }
    blamed = 0
    for seed in range(60):
        draw = random.Random(seed)
        records = tuple(
            TrialRecord(i, TrialState.COMPLETE, (c10 - 0.6) ** 2 + (angle - 25.2) ** 2 + draw.gauss(0, 0.3), params)
            for i in range(40)
            for c10, angle in [(-4 + 0.5 * draw.randrange(17), 20 + 0.5 * draw.randrange(21))]
            for params in [{"C10": c10, "conv_angle": angle, "plr": 10 ** draw.uniform(-4, -2)}]
        )
        given = advise_by(StudyFacts(records, space, "loss", "minimize", engine="toy"))
        blamed += any(a.kind not in (AdviceKind.RANGE_TOO_WIDE, AdviceKind.MORE_TRIALS) for a in given)
    assert blamed <= 3


@pytest.mark.slow
def test_importances_by_ranks_take_many_trials() -> None:
    """Without slopes they are those of the figure; where nothing is wrong nothing is said."""
    assert advise(figure_cases.study(80)) == ()
    data = figure_cases.study(80)
    assert gather_facts(data).importances
    assert not gather_facts(replace(data, records=data.records[:40])).importances


@pytest.mark.parametrize(
    ("width", "step"), [(1.0, 1.0), (0.99, 0.5), (0.03, 0.02), (0.005, 0.005), (7.0, 5.0), (40.0, 20.0)]
)
def test_steps_are_written_short(width: float, step: float) -> None:
    """1, 2 or 5 of a power of ten, not above the width."""
    assert reshaping.step_near(width) == step


# --- the edge of a range, a parameter that did nothing ------------------------------------------------


@pytest.mark.parametrize(
    ("dist", "value", "name", "at_end"),
    [
        (FloatRange(0.9, 1.1, 0.02), 1.1, "scale", True),
        (FloatRange(0.9, 1.1, 0.02), 0.9, "scale", True),
        (FloatRange(0.9, 1.1, 0.02), 1.08, "scale", False),
        (FloatRange(-4.0, 4.0), 3.95, "rotation", True),
        (FloatRange(-4.0, 4.0), 3.5, "rotation", False),
        (FloatRange(1e-4, 1e-2, log=True), 1e-4, "oplr", True),
        (FloatRange(1e-4, 1e-2, log=True), 1e-3, "oplr", False),
        (IntRange(1, 8), 1, "pmode_max", False),
        (IntRange(1, 8), 8, "pmode_max", True),
        (IntRange(1, 8), 1, "layers", False),
        (FloatRange(1.0, 1.0), 1.0, "scale", False),
        (Choice((1, 2)), 2, "x", False),
        (FloatRange(0.9, 1.1), "off", "x", False),
    ],
)
def test_the_edge_of_a_range(dist: Distribution, value: Scalar, name: str, at_end: bool) -> None:
    """A grid's last point, a fiftieth of any other range; not where no wider one is possible."""
    assert reshaping.is_at_end(dist, value, name) is at_end


def test_best_says_what_is_at_an_edge_and_what_did_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words beside the value, and as JSON; of one that did nothing its place says nothing."""
    space = {
        "scale": {"name": "FloatDistribution", "attributes": {"low": 0.8, "high": 0.98, "step": 0.02, "log": False}},
        "dz": {"name": "FloatDistribution", "attributes": {"low": 10.0, "high": 20.0, "step": None, "log": False}},
        "Nlayer": {"name": "IntDistribution", "attributes": {"low": 1, "high": 8, "step": 1, "log": False}},
    }
    params: dict[str, Scalar] = {"scale": 0.98, "dz": 20.0, "Nlayer": 1}
    about = {"search_space_json": json.dumps(space), "config_json": json.dumps(CONFIG)}
    path = store_cases.packed(tmp_path / "s.h5", [store_cases.record(0, params=params)], **about)
    assert cli.main(["best", str(path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "at the edge of its range" in lines["scale"]
    assert "did nothing in this trial" in lines["dz"]
    assert "edge" not in lines["dz"] + lines["Nlayer"]
    assert cli.main(["best", str(path), "--format", "json"]) == 0
    (given,) = json.loads(capsys.readouterr().out)
    assert given["at_edge"] == ["scale", "dz"]
    assert list(given["inactive"]) == ["dz"]
