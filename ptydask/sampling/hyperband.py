"""Hyperband: Optuna's, without what it hides from samplers, and W&B's."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner, HyperbandPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from ptydask.model import Direction
from ptydask.trial import hyperband_bands as hyperband


class UnfilteredHyperband(BasePruner):
    """Decides as ``hyperband`` does, and lets samplers see the trials of all brackets.

    Optuna shows a sampler only the trials that share the next one's bracket wherever the study's pruner is an instance
    of HyperbandPruner (``optuna.pruners._filter_study``): with the six brackets of 200 iterations a sampler that draws
    10 trials at random before it learns would draw about 60. This pruner is no such instance; the one that it holds
    still compares a trial with those of its own bracket alone.
    """

    def __init__(self, hyperband: HyperbandPruner) -> None:
        self.hyperband = hyperband

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether ``trial`` is to end now."""
        return self.hyperband.prune(study, trial)


class SweepHyperbandPruner(BasePruner):
    """Ends a trial whose value at the highest of ``bands`` that it has reached is not among the best 1 / ``eta``.

    Compared with every trial of the study: finished, running, pruned and failed ones, but of the attempts at one trial
    only with the last. A step is the count of the values that a trial has logged; a trial may report fewer of them, but
    those at the bands it does. Unless ``strict``, the best of what a trial has reported is compared. Raises ValueError
    for bands that are none, or an ``eta`` that is not above 1.
    """

    def __init__(self, bands: list[int], eta: float = 3, strict: bool = True) -> None:
        if not bands or any(isinstance(band, bool) or not isinstance(band, int) or band < 1 for band in bands):
            raise ValueError(f"bands must be whole numbers from 1 on, at least one, but got {bands!r}")
        if not eta > 1:
            raise ValueError(f"eta must be above 1, but got {eta!r}")
        self._bands, self._eta, self._strict = tuple(sorted(bands)), eta, strict

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether ``trial`` is to end now."""
        own = trial.intermediate_values
        if not any(band in own for band in self._bands):
            return False
        direction: Direction = "maximize" if study.direction is StudyDirection.MAXIMIZE else "minimize"
        trials = study.get_trials(deepcopy=False)
        tried_again = {other.user_attrs.get("retry_of") for other in trials}
        others = [t.intermediate_values for t in trials if t.number not in tried_again and t.number != trial.number]
        return hyperband.should_stop(
            own, [own, *others], self._bands, eta=self._eta, strict=self._strict, direction=direction
        )
