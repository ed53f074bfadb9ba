"""A trial whose slopes lead away from it ends early: the decision, and the pruner around the file's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import optuna
import pytest
from optuna.trial import TrialState as State

from ptydask import proposals, sampling
from ptydask.distributions import FloatRange
from ptydask.model import BY_SLOPES, GUESSED, NEAR_VALUES, OWN_VALUES, ComponentSpec
from ptydask.proposals import TrialEvidence
from ptydask.trial import slopes

SPACE = {"a": FloatRange(0.0, 10.0, step=1.0), "b": FloatRange(-5.0, 5.0, step=1.0)}
ITERATIONS = 10
JUDGED = 4


def loss(a: float, b: float) -> float:
    return 1.0 + 0.01 * (a - 7) ** 2 + 0.02 * (b - 2) ** 2


def gradient(a: float, b: float, sign: float = 1.0) -> dict[str, float]:
    return {"a": sign * 0.02 * (a - 7), "b": sign * 0.04 * (b - 2)}


def told(a: float, b: float, *, pruned: bool = False, sign: float = 1.0) -> TrialEvidence:
    return TrialEvidence.of_trial({"a": a, "b": b}, loss(a, b), gradient(a, b, sign), pruned=pruned)


def ends(
    trial: TrialEvidence,
    evidence: list[TrialEvidence],
    *,
    under_way: int = 1,
    left: int | None = None,
    decrease: float | None = 0.01,
) -> bool:
    told = proposals.has_told_enough(
        SPACE, evidence, trial, relative_decrease=decrease, under_way=under_way, left=left, direction="minimize", seed=0
    )
    return bool(told)


@pytest.mark.parametrize(
    ("iterations", "step"), [(None, None), (1, None), (2, None), (3, 2), (10, 4), (12, 5), (200, 80)]
)
def test_the_moment_is_two_fifths_of_a_trial(iterations: int | None, step: int | None) -> None:
    assert proposals.judged_after(iterations) == step


def test_a_first_trial_far_from_the_optimum_ends() -> None:
    assert ends(told(2, -3, pruned=True), [])


def test_the_last_trials_of_a_study_run_to_their_end() -> None:
    far = told(2, -3, pruned=True)
    assert ends(far, [], left=5)
    assert not ends(far, [], left=4)


@pytest.mark.parametrize("decrease", [None, 0.2])
def test_one_that_still_falls_goes_on(decrease: float | None) -> None:
    assert not ends(told(2, -3, pruned=True), [], decrease=decrease)


@pytest.mark.parametrize("point", [(7, 2), (6, 2), (7, 3), (8, 1)])
def test_one_beside_the_optimum_goes_on(point: tuple[float, float]) -> None:
    assert not ends(told(*point, pruned=True), [told(2, -3), told(9, 4), told(4, 3)])


def test_a_wave_may_end_before_any_has_run_to_its_end() -> None:
    far, ended = told(1, 4, pruned=True), [told(2, -3, pruned=True), told(9, -4, pruned=True)]
    assert not ends(far, ended, under_way=1)
    assert ends(far, ended, under_way=8)
    assert not ends(far, ended * 4, under_way=8)


def test_each_more_wants_one_that_ran_to_its_end_and_agrees() -> None:
    ended = [told(2, -3, pruned=True), told(9, -4, pruned=True)]
    whole = [told(3, 0), told(8, 4), told(5, 2), told(6, 1)]
    far = told(0, 4, pruned=True)
    assert not ends(far, [*ended, *whole[:1]])
    assert ends(far, [*ended, *whole])
    assert not ends(far, [*ended * 3, *whole])


def test_slopes_that_values_contradict_end_nothing() -> None:
    completed = [told(a, b, sign=-1) for a, b in ((2, -3), (9, 4), (4, 3), (5, 0), (8, -1))]
    assert not ends(told(0, 5, pruned=True, sign=-1), completed)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def run_trial(study: optuna.Study, a: float, b: float, origin: str, *, sloped: bool = True) -> tuple[State, int]:
    """How a trial of ITERATIONS steps ends, and after which."""
    study.enqueue_trial({"a": a, "b": b}, user_attrs={"origin": origin})
    trial = study.ask()
    sampling.suggest(trial, SPACE, ComponentSpec("RandomSampler"))
    for step in range(1, ITERATIONS + 1):
        trial.report(loss(a, b), step)
        if step == JUDGED and sloped:
            for name, value in slopes.attribute_after(step, gradient(a, b), 0.01).items():
                trial.set_user_attr(name, value)
        if step < ITERATIONS and trial.should_prune():
            study.tell(trial, state=State.PRUNED)
            return State.PRUNED, step
    study.tell(trial, loss(a, b))
    return State.COMPLETE, ITERATIONS


@pytest.fixture
def make_study() -> Callable[[str], optuna.Study]:
    def make(pruner: str) -> optuna.Study:
        sampler = ComponentSpec("RandomSampler")
        built = sampling.build_pruner(ComponentSpec(pruner), iterations=ITERATIONS, informed_by=(sampler, SPACE))
        return optuna.create_study(pruner=built, sampler=optuna.samplers.RandomSampler(seed=1))

    return make


@pytest.mark.parametrize("first", [OWN_VALUES, NEAR_VALUES, GUESSED])
def test_the_first_and_what_the_slopes_chose_end_at_that_moment(
    make_study: Callable[[str], optuna.Study], first: str
) -> None:
    study = make_study("NopPruner")
    assert run_trial(study, 2, -3, first) == (State.PRUNED, JUDGED)
    assert run_trial(study, 9, -4, BY_SLOPES) == (State.PRUNED, JUDGED)
    assert run_trial(study, 7, 2, BY_SLOPES) == (State.COMPLETE, ITERATIONS)


def test_what_was_asked_for_by_name_and_what_has_no_slopes_runs_on(make_study: Callable[[str], optuna.Study]) -> None:
    study = make_study("NopPruner")
    assert run_trial(study, 2, -3, "try 1") == (State.COMPLETE, ITERATIONS)
    assert run_trial(study, 3, -3, "from last.h5, trial 12") == (State.COMPLETE, ITERATIONS)
    assert run_trial(study, 2, -4, OWN_VALUES, sloped=False) == (State.COMPLETE, ITERATIONS)


def test_the_files_pruner_ends_none_that_the_slopes_chose(make_study: Callable[[str], optuna.Study]) -> None:
    study = make_study("MedianPruner")
    for a in range(5, 10):
        assert run_trial(study, a, 2, "try", sloped=False)[0] is State.COMPLETE
    assert run_trial(study, 0, -5, BY_SLOPES, sloped=False) == (State.COMPLETE, ITERATIONS)
    assert run_trial(study, 0, -5, "sampler", sloped=False)[0] is State.PRUNED


def test_without_a_pruner_every_trial_runs_to_its_end() -> None:
    built = sampling.build_pruner(None, iterations=ITERATIONS, informed_by=(ComponentSpec("RandomSampler"), SPACE))
    study = optuna.create_study(pruner=built)
    assert run_trial(study, 2, -3, BY_SLOPES) == (State.COMPLETE, ITERATIONS)
