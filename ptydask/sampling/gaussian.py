"""Optuna's Gaussian process, for many workers at once and for trials that are pruned or fail.

What it suggests follows from the trials alone, whatever the seed. Two workers that ask at the same moment would get
the same point; and the point of a trial that was pruned or failed, which Optuna leaves out, would be suggested again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as State

from ptydask.distributions import Distribution
from ptydask.model import Reason
from ptydask.sampling import release
from ptydask.sampling.distributions import to_optuna

PATIENCE = 30.0
"""Seconds for workers that asked earlier, counted anew whenever one of them has its values. The first time on a worker
PyTorch is imported for it."""
_POLL = 0.05
_ABANDONED = timedelta(minutes=1)
"""A trial that has run for so long and has no values is nobody's."""
_ASKED = "gp:relative_params"
"""Under names that begin so, Optuna writes down all values of a trial before it gets the first."""

Space = Mapping[str, BaseDistribution]


class ParallelGPSampler(GPSampler):
    """Optuna's own; trials that begin together get their values one after the other, in the order of their numbers.

    A pruned trial counts with the value that it had, a failed one with the worst of all, as with W&B. Trials that lie
    outside of ``space``, because a range was narrowed since, do not count.
    """

    def __init__(self, space: Mapping[str, Distribution], **arguments: Any) -> None:
        super().__init__(**arguments)
        dists = {name: to_optuna(dist) for name, dist in sorted(space.items())}
        self._search_space = {name: dist for name, dist in dists.items() if not dist.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space; Optuna would leave out a parameter once its range has changed."""
        return dict(self._search_space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for ``trial``; none, so that it is drawn at random, while there are too few to go by."""
        before = after_those_before(study, trial, lambda other: _has_values(other, search_space))
        trials = trials_with_values(before, search_space, study.direction)
        if not any(t.state is State.COMPLETE for t in trials):
            return {}
        return super().sample_relative(cast(optuna.Study, _StudyView(study, trials)), trial, search_space)


class _StudyView:
    """A study as if it had other trials."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        self._study, self._trials = study, trials

    def _get_trials(self, *_: Any, states: Container[State] | None = None, **__: Any) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


def after_those_before(
    study: optuna.Study, trial: FrozenTrial, has_values: Callable[[FrozenTrial], bool]
) -> list[FrozenTrial]:
    """All trials, once those with lower numbers that are running have their values, or seem not to get any."""
    before: list[int] = []
    patient_until = 0.0
    while True:
        trials = study.get_trials(deepcopy=False)
        late = datetime.now() - _ABANDONED  # noqa: DTZ005 - Optuna's times are naive local ones
        waiting = []
        for other in trials:
            earlier = other.number < trial.number and other.state is State.RUNNING
            abandoned = (other.datetime_start or late) <= late
            if earlier and not abandoned and not has_values(other):
                waiting.append(other.number)
        # Patience starts anew whenever the queue has moved on.
        if waiting != before:
            before, patient_until = waiting, time.monotonic() + PATIENCE
        if not waiting or time.monotonic() > patient_until:
            return trials
        time.sleep(_POLL)


def _has_values(trial: FrozenTrial, space: Space) -> bool:
    return space.keys() <= trial.params.keys() or any(key.startswith(_ASKED) for key in trial.system_attrs)


def trials_with_values(trials: Iterable[FrozenTrial], space: Space, direction: StudyDirection) -> list[FrozenTrial]:
    """The running trials, and as COMPLETE all that ended by their own parameters' doing, each with a value.

    Those that were lost or interrupted are tried again and stay out, as do those outside of ``space``. An Optuna that
    ignores running trials gets them as COMPLETE with a middling value, so that their points are not suggested again.
    """
    completed: list[FrozenTrial] = []
    failed: list[FrozenTrial] = []
    running: list[FrozenTrial] = []
    for trial in trials:
        if trial.state is State.RUNNING:
            running.append(trial)
        elif not trial.state.is_finished() or not _lies_in_space(trial, space):
            continue
        elif trial.state is State.COMPLETE:
            completed.append(trial)
        elif trial.state is State.PRUNED and trial.values is not None:
            completed.append(_with_value(trial, trial.values[0]))
        elif trial.user_attrs.get("reason") == Reason.FAILED:
            failed.append(trial)
    if not completed:
        return running  # nothing to compare with: the caller draws at random
    values = [trial.values[0] for trial in completed]
    worst = max(values) if direction is StudyDirection.MINIMIZE else min(values)
    if not release.GAUSSIAN_COUNTS_RUNNING:
        middling = statistics.median_low(values)
        running = [_with_value(trial, middling) for trial in running if _lies_in_space(trial, space)]
    return [*completed, *(_with_value(trial, worst) for trial in failed), *running]


def _lies_in_space(trial: FrozenTrial, space: Space) -> bool:
    return all(
        name in trial.params and dist._contains(dist.to_internal_repr(trial.params[name]))
        for name, dist in space.items()
    )


def _with_value(trial: FrozenTrial, value: float) -> FrozenTrial:
    return create_trial(value=value, params=trial.params, distributions=trial.distributions)
