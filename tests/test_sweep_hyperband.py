"""W&B's hyperband: its bands, its decisions, and the Optuna pruner that takes them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from ptydask.model import Direction
from ptydask.sampling.hyperband import SweepHyperbandPruner
from ptydask.trial import hyperband_bands

# --- bands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_iter", "s", "eta", "expected"),
    [
        (27, 2, 3, (3, 9)),  # 27/3 = 9, 9/3 = 3; 27 is no band
        (27, 3, 3, (1, 3, 9)),  # 3/3 = 1
        (27, 9, 3, (1, 3, 9)),  # 1/3 is below 1: no more
        (100, 3, 3, (3, 11, 33)),  # 33.33, 11.11, 3.70: cut off only after all divisions
        (5, 2, 2, (1, 2)),  # 2.5, 1.25
        (3, 4, 1.5, (1, 2)),  # 2.0, 1.33, 0.89
        (2, 3, 3, ()),  # 0.67
    ],
)
def test_bands_of_max_iter(max_iter: int, s: int, eta: float, expected: tuple[int, ...]) -> None:
    """int(max_iter / eta^k) for k = 1 to s, as long as that is 1 or more, ascending."""
    assert hyperband_bands.of_max_iter(max_iter, s, eta) == expected


def test_bands_of_min_iter() -> None:
    """int(min_iter * eta^k) from k = 0 on: at most W&B's hundred, none that no program reaches."""
    assert hyperband_bands.of_min_iter(2)[:4] == (2, 6, 18, 54)
    assert hyperband_bands.of_min_iter(1, 1.5)[:6] == (
        1,
        2,
        3,
        5,
        7,
        11,
    )  # 1, 1.5, 2.25, 3.38, 5.06, 7.59, 11.39: 1 only once
    assert 2**52 < hyperband_bands.of_min_iter(3, 2)[-1] <= 2**53
    assert max(hyperband_bands.of_min_iter(10, 1.01)) == int(10 * 1.01**99)  # the hundredth


# --- decisions ----------------------------------------------------------------------------------------

# Bands 3 and 9, eta 3, the smaller the better. What each run has at a count:
#   run  state                 1    2    3    4    5    6    7    8    9
TABLE = {
    "A": ("finished", [0.90, 0.70, 0.50, 0.50, 0.45, 0.40, 0.40, 0.35, 0.30]),
    "B": ("failed", [0.95, 0.91, 0.90, 0.90, 0.89]),
    "C": ("running", [0.60, 0.45, 0.40, 0.30, 0.20, 0.30, 0.30, 0.35, 0.35]),
    "D": ("pruned", [0.97, 0.96, 0.95]),
    "E": ("running", [0.90, 0.70, 0.60, 0.10]),
    "F": ("running", [0.80, 0.50, 0.40]),
    "G": ("running", [0.99, 0.99]),
}
# At band 3, best first: C .40, F .40, A .50, E .60, B .90, D .95. n = 6, int(6 / 3) = 2: the threshold is A's .50.
# At band 9: A .30, C .35. n = 2, int(2 / 3) = 0: the threshold is A's .30.
# strict    C is at band 9: .35 > .30, stops. E is at band 3: .60 > .50, stops. F: .40 goes on. G has reached no band.
# not so    C's best is .20 < .30, E's best is .10 < .50: both go on. F goes on as well.
VERDICTS = {True: {"C": True, "E": True, "F": False, "G": False}, False: dict.fromkeys("CEFG", False)}


def counted(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values, 1))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_table_worked_out_by_hand(strict: bool, direction: Direction) -> None:
    """Finished, failed, pruned and running runs count alike; the larger the better turns it all around."""
    sign = 1 if direction == "minimize" else -1
    runs = {name: counted([sign * value for value in values]) for name, (_, values) in TABLE.items()}
    found = {
        name: hyperband_bands.should_stop(runs[name], runs.values(), (3, 9), eta=3, strict=strict, direction=direction)
        for name, (state, _) in TABLE.items()
        if state == "running"
    }
    assert found == VERDICTS[strict]


def test_a_best_that_is_not_good_enough_stops_too() -> None:
    """Not strict is milder, not blind: H's best .55 is worse than the threshold .50 of band 3."""
    runs = [counted(values) for _, values in TABLE.values()]
    late = counted([0.98, 0.55, 0.99])  # with it n = 7 and int(7 / 3) = 2: still .50
    assert hyperband_bands.should_stop(late, [*runs, late], (3, 9), strict=False)


@pytest.mark.parametrize(
    ("eta", "places"),
    [
        (3, {1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 2, 9: 3}),
        (2, {1: 0, 2: 1, 3: 1, 4: 2}),
        (1.5, {1: 0, 2: 1, 3: 2}),  # 0.67, 1.33, 2.0
        (49, {49: 0, 50: 1}),  # 1/49*49 is 0.9999999999999999, and W&B cuts that off
    ],
)
def test_the_place_of_the_threshold(eta: float, places: Mapping[int, int]) -> None:
    """int(n / eta), counted from 0, the best first; the first runs of a study are compared with the best one."""
    for n, place in places.items():
        values = random.Random(n).sample(range(n), n)
        assert hyperband_bands.threshold(values, eta, "minimize") == place
        assert hyperband_bands.threshold(values, eta, "maximize") == n - 1 - place


def test_one_alone_and_equals_go_on() -> None:
    """Who is as good as the threshold stays."""
    assert not hyperband_bands.should_stop(counted([5.0]), [counted([5.0])], (1,))
    same = [counted([0.5] * 3) for _ in range(9)]
    assert not any(hyperband_bands.should_stop(run, same, (1, 3)) for run in same)


def oracle(histories: Sequence[tuple[bool, list[float]]], at: Sequence[int], eta: float, strict: bool) -> set[int]:
    """Which runs W&B would stop, the smaller the better; told another way.

    A run is worse than the one in place k if more than k others are better than it.
    """
    stopped = set()
    for i, (running, history) in enumerate(histories):
        passed = [band for band in at if band <= len(history)]
        if running and passed:
            there = [other[passed[-1] - 1] for _, other in histories if len(other) >= passed[-1]]
            judged = history[passed[-1] - 1] if strict else sorted(history)[0]
            if sum(value < judged for value in there) > int((1 / eta) * len(there)):
                stopped.add(i)
    return stopped


def test_decisions_on_random_histories() -> None:
    """The same runs are stopped as by the rule of hyperband_stop_runs in W&B's sweeps 0.3.0, told another way."""
    chance, stopped = random.Random(7), 0
    for _ in range(800):
        eta = chance.choice([2, 3, 4, 1.5, 2.5])
        at = hyperband_bands.of_max_iter(
            chance.randint(5, 90), chance.randint(1, 4), eta
        ) or hyperband_bands.of_min_iter(3, eta)
        strict, digits = chance.random() < 0.5, chance.choice([1, 6])
        histories = [
            (chance.random() < 0.5, [round(chance.uniform(-1, 1), digits) for _ in range(chance.randint(0, 40))])
            for _ in range(chance.choice([1, 2, 3, 9, 30]))
        ]
        expected = oracle(histories, at, eta, strict)
        stopped += len(expected)
        for direction, sign in (("minimize", 1), ("maximize", -1)):
            runs = [counted([sign * value for value in history]) for _, history in histories]
            found = {
                i
                for i, (running, _) in enumerate(histories)
                if running
                and hyperband_bands.should_stop(runs[i], runs, at, eta=eta, strict=strict, direction=direction)  # type: ignore[arg-type]
            }
            assert found == expected
    assert stopped > 400


# --- the pruner -----------------------------------------------------------------------------------------

STATES = {
    "finished": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
    "running": TrialState.RUNNING,
}


def study_of(direction: Direction, keep: Sequence[int] = range(1, 10)) -> optuna.Study:
    """The table as a study, of each trial only the values at the counts of ``keep``."""
    study, sign = optuna.create_study(direction=direction), 1 if direction == "minimize" else -1
    for state, values in TABLE.values():
        told = {step: sign * value for step, value in counted(values).items() if step in keep}
        final = sign * values[-1] if STATES[state] in (TrialState.COMPLETE, TrialState.PRUNED) else None
        study.add_trial(create_trial(state=STATES[state], value=final, intermediate_values=told))
    return study


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_pruner_decides_by_the_table(strict: bool, direction: Direction) -> None:
    """The study's direction and its trials of every state; C and E, not F and G."""
    study, pruner = study_of(direction), SweepHyperbandPruner([3, 9], 3, strict)
    trials = dict(zip(TABLE, study.get_trials(), strict=True))
    assert {name: pruner.prune(study, trials[name]) for name in VERDICTS[strict]} == VERDICTS[strict]


def test_bands_are_all_that_need_be_reported() -> None:
    """A program that logs a million times reports some values and all bands; strict decides the same."""
    study, pruner = study_of("minimize", keep=(1, 3, 9)), SweepHyperbandPruner([3, 9])
    trials = dict(zip(TABLE, study.get_trials(), strict=True))
    assert {name: pruner.prune(study, trials[name]) for name in VERDICTS[True]} == VERDICTS[True]


def test_what_a_trial_did_not_report_it_has_not_reached() -> None:
    """A value beyond a band is none at the band."""
    study, pruner = study_of("minimize", keep=(1, 2, 4, 9)), SweepHyperbandPruner([3])
    assert not any(pruner.prune(study, trial) for trial in study.get_trials())


def test_attempts_that_were_lost_count_once() -> None:
    """A trial that is tried again reports its values again: one run, not two."""
    study = optuna.create_study()

    def run(value: float, state: TrialState, **attrs: Any) -> None:
        study.add_trial(create_trial(state=state, intermediate_values={1: value}, user_attrs=attrs))

    for value in (0.1, 0.2):
        run(value, TrialState.FAIL)
    run(0.3, TrialState.FAIL)
    run(0.3, TrialState.RUNNING, retry_of=2)
    # Three runs, .1 .2 .3: int(3 / 2) = 1, the threshold is .2. Of four, .1 .2 .3 .3, it would be .3.
    assert SweepHyperbandPruner([1], 2).prune(study, study.get_trials()[3])


@pytest.mark.parametrize(("bands_", "eta"), [([], 3), ([0], 3), ([True], 3), ([1.5], 3), ([3], 1), ([3], float("nan"))])
def test_nonsense_is_refused(bands_: list[Any], eta: float) -> None:
    """No band, bands that are no counts, and an eta that keeps everything."""
    with pytest.raises(ValueError, match="but got"):
        SweepHyperbandPruner(bands_, eta)


def test_a_live_study_is_pruned() -> None:
    """Through Optuna's own calls: of ascending losses, all that are worse than the best third at band 2."""
    study = optuna.create_study(pruner=SweepHyperbandPruner(list(hyperband_bands.of_min_iter(2))))
    ended = {}
    for number in range(6):
        trial = study.ask()
        for step in range(1, 7):
            trial.report(number + 1 / step, step)
            ended[number] = step
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(number))
    # n = 1: itself. n = 2: place 0. From n = 3 to 5 place 1, the second's; n = 6: place 2.
    assert ended == {0: 6, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2}
