"""Whether the best trial is luck: the statistics of repeats, the good region, and the words for both."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from confirmation_cases import META, PLAN_SEED, confirm, draw, make_repeat

from ptydask.analysis import significance
from ptydask.analysis.confirmation import Confirmation, compare_lines, few_repeats_text, verdict_lines
from ptydask.analysis.good_region import find_good_region
from ptydask.model import TrialRecord, TrialState
from ptydask.ring_correlation import FourierRing

stats = pytest.importorskip("scipy.stats")


def compare(values, direction="minimize"):
    return significance.compare({t: dict(enumerate(errors)) for t, errors in values.items()}, direction)


# --- repeats -----------------------------------------------------------------------------------------


def test_mean_and_standard_deviation_are_of_whole_repeats_alone():
    whole = confirm({18: [1.0, 2.0, 3.0], 29: [4.0]})
    halves = tuple(make_repeat(9 + half, 18, PLAN_SEED + 1, 100.0, half) for half in (1, 2))
    confirmation = replace(whole, repeats=whole.repeats + halves)
    assert confirmation.mean_sd(18) == (2.0, 1.0, 3)
    assert confirmation.mean_sd(18, "loss") == (4.0, 2.0, 3)
    mean, deviation, count = confirmation.mean_sd(29)
    assert (mean, count) == (4.0, 1)
    assert math.isnan(deviation)
    assert confirmation.mean_sd(7) is None
    assert confirmation.mean_sd(18, "contrast") is None
    assert list(confirmation.values(18)) == [PLAN_SEED + 1, PLAN_SEED + 2, PLAN_SEED + 3]


@pytest.mark.parametrize(("direction", "order"), [("minimize", (3, 2, 1, 4)), ("maximize", (1, 2, 3, 4))])
def test_trials_are_in_the_order_of_their_means(direction, order):
    confirmation = confirm({1: [9.0], 2: [5.0], 3: [1.0], 4: [None]}, direction=direction)
    assert confirmation.trials == order
    assert confirmation.best == order[0]
    assert [repeat.trial for repeat in confirmation.failed] == [4]


def test_a_repeat_that_failed_makes_no_trial_better():
    # Every trial is worse by 10 with the second seed: trial 1 missed that one, and would be the best by its mean.
    confirmation = confirm({1: [1.1, None, 1.1], 2: [1.0, 11.0, 1.0], 3: [1.2, 11.2, 1.2]})
    assert confirmation.trials == (2, 1, 3)


@pytest.mark.parametrize("error", [math.nan, math.inf, -math.inf, 1e200, -1e300])
def test_a_value_that_is_no_number_is_no_value(error):
    confirmation = confirm({1: [error, 1.0]})
    assert confirmation.mean_sd(1)[2] == 1
    assert len(confirmation.failed) == 1


# --- luck --------------------------------------------------------------------------------------------


def test_the_analysis_is_that_of_a_randomized_block():
    """By hand: residual mean square of a two-way layout without replication, Tukey's range with its freedom."""
    values = {1: [3.0, 5.0, 4.0], 2: [4.0, 7.0, 5.0], 3: [9.0, 10.0, 11.5]}
    table = np.array(list(values.values()))
    residuals = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    mean_square = (residuals**2).sum() / 4
    compared = compare(values)
    assert compared.freedom == 4
    assert compared.luck == pytest.approx(math.sqrt(mean_square))
    critical = stats.studentized_range.ppf(1 - significance.LEVEL, 3, 4)
    assert compared.least_difference == pytest.approx(critical * math.sqrt(mean_square / 3))


def test_two_trials_are_compared_as_by_the_paired_t_test():
    rng = np.random.default_rng(5)
    for shift in np.linspace(0, 20, 15):
        values = draw(rng, {1: 0.0, 2: shift})
        differs = stats.ttest_rel(values[1], values[2]).pvalue < significance.LEVEL
        assert bool(compare(values).beyond_luck) == differs


@pytest.mark.parametrize(
    ("trials", "seeds", "spreads", "seed_spread"),
    [
        (5, 3, (1,), 0),
        (5, 3, (1,), 5),  # what a seed does to all trials is no luck of one
        (2, 3, (1,), 0),
        (3, 5, (1,), 1),
        (5, 3, (3, 1), 0),
        (5, 3, (1, 1.4, 2, 2.8, 4), 1),
        (10, 3, (1,), 0),
    ],
)
def test_trials_that_are_alike_are_told_apart_in_5_percent_of_200_studies_at_most(trials, seeds, spreads, seed_spread):
    rng = np.random.default_rng(7)
    studies = [draw(rng, dict.fromkeys(range(trials), 0.3), seeds, spreads, seed_spread) for _ in range(200)]
    assert sum(bool(compare(study).beyond_luck) for study in studies) <= 10


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_clear_winner_is_named(direction):
    rng, sign = np.random.default_rng(11), 1 if direction == "minimize" else -1
    named = 0
    for _ in range(50):
        compared = compare(draw(rng, {1: 0, 2: 0, 18: -12.0 * sign, 4: 0, 5: 0}, seed_spread=3), direction)
        named += compared.worse_than(18) == compared.trials[1:]
    assert named >= 48


def test_a_trial_that_scatters_more_is_held_against_its_own_scatter():
    values = {1: [0.0, 0.001, -0.001], 2: [0.002, 0.0, 0.001], 3: [0.0, 0.002, 0.001], 4: [-9.0, 2.0, -6.0]}
    steady = compare({trial: values[trial] for trial in (1, 2, 3)})
    assert not compare(values).beyond_luck
    assert compare(values).luck > steady.luck


def test_missing_repeats_are_left_out_and_the_rest_counts():
    full = {t: dict(enumerate(v)) for t, v in draw(np.random.default_rng(3), {1: 0, 2: 0, 3: -20}).items()}
    for lost in [(3, 0), (1, 2), (2, 1)]:
        values = {t: {s: v for s, v in own.items() if (t, s) != lost} for t, own in full.items()}
        compared = significance.compare(values, "minimize")
        assert compared.freedom == 3
        assert compared.worse_than(3) == compared.trials[1:]


def test_trials_that_share_no_seed_are_not_told_apart():
    values = {1: {1: 0.5, 2: 0.51}, 2: {1: 0.4, 2: 0.42}, 3: {3: 0.4, 4: 0.42}, 4: {3: 0.1, 4: 0.11}}
    compared = significance.compare(values, "minimize")
    assert not any(compared.differ(a, b) for a in (1, 2) for b in (3, 4))


@pytest.mark.parametrize("values", [{}, {1: [1.0, 2.0]}, {1: [1.0], 2: [2.0]}, {1: [], 2: [1.0, 2.0]}, {1: [], 2: []}])
def test_luck_is_not_known_of_too_few_repeats(values):
    assert compare(values) is None


@pytest.mark.parametrize("scale", [1e-9, 1.0, -3.0, 1e6])
def test_a_deterministic_program_has_no_luck(scale):
    nearly = 0.3 * (1 + 2e-16)
    compared = compare({1: [0.2 * scale] * 3, 2: [0.3 * scale] * 3, 3: [0.3 * scale, nearly * scale, 0.3 * scale]})
    assert compared.is_deterministic
    assert compared.luck == 0
    assert compared.differ(1, 2)
    assert compared.differ(1, 3)
    assert not compared.differ(2, 3)


def test_a_program_that_is_the_same_with_every_seed_but_for_what_all_share_is_not_called_deterministic():
    compared = compare({1: [0.1, 0.5, 0.3], 2: [0.2, 0.6, 0.4]})
    assert not compared.is_deterministic
    assert compared.differ(1, 2)


@pytest.mark.parametrize("seed", range(6))
def test_the_groups_say_of_every_two_trials_whether_they_are_told_apart(seed):
    rng = np.random.default_rng(seed)
    compared = compare(draw(rng, {t: 4.0 * (t // 2) for t in range(6)}, spreads=(4, 1, 0.5)))
    alike = [set(group) for group in significance.alike_groups(compared)]
    better = [(a, b) for group, worse in significance.better_groups(compared) for a in group for b in worse]
    assert set(better) == compared.beyond_luck
    assert len(better) == len(set(better))
    for pair in combinations(compared.trials, 2):
        assert any(group.issuperset(pair) for group in alike) != compared.differ(*pair)


# --- the good region ---------------------------------------------------------------------------------


def study_of(errors, **params):
    """Trials 0, 1, 2 ... with these errors; ``params`` are lists beside them."""
    return [
        TrialRecord(number, TrialState.COMPLETE, error, {name: values[number] for name, values in params.items()})
        for number, error in enumerate(errors)
    ]


def test_the_good_region_holds_the_trials_that_are_as_good_within_luck():
    scales, errors = np.linspace(0.8, 1.2, 9), [25, 16, 9, 1.2, 1.0, 1.1, 9, 16, 25]
    records = study_of([float(e) for e in errors], scale=scales.tolist(), order=["a"] * 4 + ["b"] * 5, same=[1] * 9)
    confirmation = confirm({4: [1.1, 1.3, 1.2], 5: [1.25, 1.15, 1.3], 3: [1.3, 1.4, 1.2]}, records)
    region = find_good_region(confirmation)
    assert set(region.trials) == {3, 4, 5}
    assert (region.parameters["scale"].low, region.parameters["scale"].high) == (scales[3], scales[5])
    assert not region.parameters["scale"].is_all
    assert region.parameters["order"].is_all
    assert math.isnan(region.parameters["order"].low)
    assert "same" not in region.parameters


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_seed_of_the_study_shifts_the_region_with_it(direction):
    """All trials of the study had a seed with which each is worse by 100."""
    sign = 1 if direction == "minimize" else -1
    records = study_of([sign * error for error in (101.0, 101.05, 103.0, 101.02)], n=[1, 2, 3, 4])
    values = {0: [1.0, 1.1, 1.05], 1: [1.05, 1.1, 1.1], 2: [3.0, 3.1, 3.1]}
    confirmation = confirm({t: [sign * v for v in own] for t, own in values.items()}, records, direction)
    assert find_good_region(confirmation).trials == (0, 3, 1)


def test_a_confirmed_trial_is_judged_by_its_repeats_not_by_its_luck_in_the_study():
    records = study_of([1.0, 0.9, 1.0], n=[1, 2, 3])
    confirmation = confirm({0: [1.0, 1.01, 0.99], 1: [2.0, 2.01, 1.99]}, records)
    region = find_good_region(confirmation)
    assert 1 not in region.trials
    assert region.trial == 0


def test_there_is_no_region_without_luck_or_without_a_study():
    assert find_good_region(confirm({0: [1.0], 1: [2.0]}, study_of([1.0, 2.0], n=[1, 2]))) is None
    assert find_good_region(confirm({0: [1.0, 1.1, 1.2]}, study_of([1.0]))) is None
    assert find_good_region(confirm({0: [1.0, 1.1], 1: [2.0, 2.1]})) is None
    assert find_good_region(confirm({0: [None, None]}, study_of([1.0], n=[1]))) is None


def test_one_confirmed_trial_knows_luck_too():
    region = find_good_region(confirm({0: [1.0, 1.1, 0.9]}, study_of([1.0, 1.2, 9.0], n=[1, 2, 3])))
    assert region.trials == (0, 1)


@pytest.mark.parametrize("values", [{0: [0.3] * 3, 2: [0.4] * 3}, {0: [0.3] * 2}, {0: [0.3] * 3, 2: [0.4, None, None]}])
def test_a_deterministic_program_has_no_region(values):
    """Nothing is known of luck where no seed changes anything."""
    assert find_good_region(confirm(values, study_of([0.1 + 0.2, 0.3, 0.4], n=[1, 2, 3]))) is None


# --- in words ----------------------------------------------------------------------------------------


def words(values, records=(), direction="minimize"):
    return "\n".join(verdict_lines(confirm(values, records, direction)))


def test_the_verdict_on_a_winner():
    text = words({18: [1.0, 1.1, 1.05], 29: [5.0, 5.1, 5.05], 3: [5.1, 5.0, 5.05]})
    assert "trial 18 is better than all others by more than luck" in text
    assert "trials 29 and 3 cannot be told apart" in text or "trials 3 and 29 cannot be told apart" in text
    assert "Tukey" in text
    assert "paired by seed" in text


def test_the_verdict_on_duplicates():
    text = words({18: [1.0, 1.2, 1.1], 29: [1.1, 1.0, 1.2], 3: [1.2, 1.1, 1.05]})
    assert "cannot be told apart" in text
    assert "better than" not in text


def test_the_verdict_on_a_group_that_is_better():
    text = words({18: [1.0, 1.2, 1.1], 29: [1.1, 1.0, 1.2], 3: [8.0, 8.1, 8.2], 4: [8.1, 8.0, 8.1]})
    assert "trials 18 and 29 are better than trials" in text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({1: [1.0, None, 1.1], 2: [1.0, 1.1, 1.2]}, f"trial 1 with seed {PLAN_SEED + 2} failed"),
        ({1: [1.0, None, 1.1], 2: [1.0, 1.1, 1.2]}, "out of memory"),
        ({1: [1.0], 2: [2.0]}, "--seeds"),
        ({1: [1.0, 2.0, 3.0]}, "--top"),
        ({1: [None, None], 2: [None, None]}, "no repeat has a value"),
        ({1: [1.0, 1.1], 2: [2.0, 2.2]}, "2 trials with 2 seeds leave 1 degree of freedom"),
        ({1: [1.0, 1.1], 2: [2.0, 2.2]}, "--seeds 4"),
        ({1: [1.0, 1.1, 1.2], 2: [1.1, 1.1001, 1.0]}, "--seeds 4"),
        ({1: [1.0, 1.1], 2: [2.0, 2.1001], 3: [2.0, 2.2]}, "--seeds 3"),
        ({1: [1.0, None], 2: [None, 2.0]}, "share too few seeds"),
        ({1: [1.0, 1.2]}, "1.10 +- 0.14 (2)"),
    ],
)
def test_what_the_verdict_says_of_odd_confirmations(values, said):
    assert said in words(values)


@pytest.mark.parametrize(
    "values",
    [{1: [1.0] * 3, 2: [2.0] * 3}, {1: [1.0] * 2, 2: [2.0, None]}, {1: [1.0] * 2}, {1: [0.0] * 2, 2: [1.0] * 2}],
)
def test_the_verdict_on_one_value_with_every_seed_names_no_winner(values):
    """Of luck nothing is known then: neither is a trial better by more than that, nor are others as good within it."""
    text = words(values, study_of([1.0, 1.0, 2.0], n=[1, 2, 3]))
    assert "nothing is known of luck" in text
    assert "better than" not in text
    assert "within luck" not in text
    assert "PTYDASK_SEED" not in text
    sweep = replace(confirm(values), meta=replace(META, engine="command"))
    assert "PTYDASK_SEED" in "\n".join(verdict_lines(sweep))


def test_few_repeats_that_tell_all_apart_are_enough():
    text = words({1: [1.0, 1.1], 2: [2.0, 2.1001]})
    assert "better than trial 2" in text
    assert "--seeds" not in text


def test_five_trials_with_three_seeds_are_enough_to_say_nothing_of_it():
    assert few_repeats_text({trial: [1, 2, 3] for trial in range(5)}) == ""
    assert "--top" in few_repeats_text({1: [1, 2, 3], 2: []})


def test_a_metric_that_is_the_tuned_one_under_another_name_is_left_out():
    whole = confirm({1: [1.0, 1.1, 1.2], 2: [2.0, 2.1, None]})
    repeats = tuple(
        replace(r, record=replace(r.record, metrics={**r.record.metrics, "data_loss": r.record.metrics["heldout"]}))
        if r.record.metrics
        else r
        for r in whole.repeats
    )
    text = "\n".join(verdict_lines(replace(whole, repeats=repeats)))
    assert "    loss  " in text
    assert "data_loss" not in text


def test_rings_are_in_the_order_of_the_means():
    rings = {trial: FourierRing(np.arange(1, 8) / 10, np.ones(7), 100 * np.arange(1, 8)) for trial in (0, 3, 5)}
    confirmation = replace(confirm({0: [3.0, 3.1], 3: [2.0, 2.1], 5: [1.0, 1.1]}), frc=rings)
    said = [line.split(":")[0] for line in verdict_lines(confirmation) if ": FRC " in line]
    assert said == ["trial 5", "trial 3", "trial 0"]


def test_the_verdict_says_how_wide_the_best_region_is():
    records = study_of([1.0, 1.1, 9.0], Nlayer=[4, 6, 8])
    text = words({0: [1.0, 1.1, 1.2], 1: [1.1, 1.0, 1.2]}, records)
    assert "Nlayer  4 to 6 (tried: 4 to 8)" in text
    alone = words({0: [1.0, 1.001, 1.0], 2: [9.0, 9.001, 9.0]}, records)
    assert "narrower" in alone


def test_the_other_metrics_have_a_line_each():
    lines = verdict_lines(confirm({1: [1.0, 1.1, 1.2], 2: [2.0, 2.1, None]}))
    assert "    loss  2.20 +- 0.20 (3), 4.10 +- 0.14 (2)" in lines


def test_a_study_without_a_metric_has_means_of_all_and_no_verdict():
    whole = confirm({1: [1.0, 1.1], 2: [2.0, None]})
    repeats = tuple(replace(r, record=replace(r.record, error=None)) for r in whole.repeats)
    unranked = replace(whole, metric="", repeats=repeats)
    text = "\n".join(verdict_lines(unranked))
    assert "loss  2.10 +- 0.14 (2), 4.00000 (1)" in text
    assert "no metric" in text
    assert [repeat.trial for repeat in unranked.failed] == [2]
    assert unranked.summary(1)["metrics"]["loss"]["n"] == 2
    assert unranked.summary(1)["mean"] is None
    assert unranked.summary(3) == {}


def test_halves_fail_only_where_they_did_not_complete():
    half = make_repeat(0, 1, 43, None, 1)
    complete = replace(half, record=replace(half.record, state=TrialState.COMPLETE))
    assert Confirmation("heldout", "minimize", (complete,)).failed == ()
    assert Confirmation("heldout", "minimize", (half,)).failed == (half,)


def test_means_have_the_digits_that_luck_decides():
    """What a seed does to all trials alike is in the deviation, and would hide in what they differ."""
    confirmation = confirm({1: [1.0, 5.0, 9.0], 2: [1.001, 5.002, 9.001]})
    assert confirmation.mean_text(1) == "5.00000 +- 4.00000 (3)"


def test_of_many_trials_only_what_concerns_the_best_is_said():
    rng = np.random.default_rng(4)
    compared = compare(draw(rng, {t: 6.0 * (t // 3) for t in range(40)}, seeds=4))
    lines = compare_lines(compared)
    assert len(lines) == 2
    assert "cannot be told apart" in lines[0]
    assert "others by more than luck" in lines[1]
    winner = compare(draw(rng, {t: 60.0 * (t > 0) for t in range(12)}, seeds=4))
    assert compare_lines(winner) == ["trial 0 is better than all others by more than luck"]


def test_two_trials_say_it_by_name():
    compared = compare({7: [1.0, 1.1, 1.05], 8: [5.0, 5.1, 5.05]})
    assert compare_lines(compared) == ["trial 7 is better than trial 8 by more than luck"]


def test_nothing_but_halves_has_no_verdict():
    halves = Confirmation("heldout", "minimize", tuple(make_repeat(i, 1, 43, 1.0, i + 1) for i in range(2)))
    assert halves.best is None
    assert "no repeat has a value" in "\n".join(verdict_lines(halves))
