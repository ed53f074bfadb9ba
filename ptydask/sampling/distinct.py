"""No point twice: around any sampler, one that takes the nearest new point where the sampler gives an old one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from ptydask.distributions import Distribution
from ptydask.model import Scalar
from ptydask.sampling.distributions import from_optuna_params, to_optuna, to_optuna_params
from ptydask.sampling.gaussian import after_those_before
from ptydask.sampling.wrapped import SamplerAround, is_lost, point_params
from ptydask.space.nearest_point import count_points, nearest_new_point
from ptydask.trial.reconcile import begun_from_attrs


class DistinctSampler(SamplerAround):
    """``base``, whose points are drawn whole before Optuna has any value of them, and moved where they are old ones.

    Old are the points of all other trials of the study that have ended, run or wait; where nothing else is left, those
    of the trial's own results file alone; where nothing is left at all, ``base`` has its way. ``held`` are parameters
    that keep what ``base`` gives them. ``base`` draws what it would without this one, down to its random numbers.
    """

    def __init__(
        self, base: BaseSampler, space: Mapping[str, Distribution], *, held: Collection[str] = (), seed: int = 0
    ) -> None:
        super().__init__(base)
        self._space, self._held, self._seed = dict(space), frozenset(held), seed
        self._distributions = {name: to_optuna(dist) for name, dist in space.items()}
        self._base_space: dict[str, BaseDistribution] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space."""
        self._base_space = self.base.infer_relative_search_space(study, trial)
        return dict(self._distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A value of every parameter, those that the trial was enqueued with among them."""
        fixed = trial.system_attrs.get("fixed_params", {})
        drawn = {**self._draw_point(study, trial, fixed), **fixed}
        wanted = from_optuna_params(self._space, drawn, trial.user_attrs)
        keep = {*fixed, *self._held}
        trials, store = self._trials_to_compare(study, trial), _store_of(trial)
        others = [other for other in trials if other.number != trial.number]
        # What a trial of another results file was lost with was not run there, and is not tried again.
        began = (other for other in others if not is_lost(other) or _store_of(other) == store)
        own = (other for other in others if _store_of(other) == store)
        for compared in (began, own):
            old = self._points_of(compared)
            point = nearest_new_point(self._space, wanted, old, fixed=keep, seed=self._seed)
            if point is not None:
                moved = {name: value for name, value in point.items() if value is not wanted[name]}
                return drawn | to_optuna_params(self._space, moved)
        return drawn

    def _draw_point(self, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """What Optuna would ask ``base`` for, in the order in which it would: first what is drawn together."""
        relative = self.base.sample_relative(study, trial, self._base_space)
        point = {}
        for name, dist in self._distributions.items():
            if name in fixed:
                continue
            if dist.single():
                point[name] = optuna.distributions._get_single_value(dist)
            elif name in relative and dist._contains(dist.to_internal_repr(relative[name])):
                point[name] = relative[name]
            else:
                point[name] = self.base.sample_independent(study, trial, name, dist)
        return point

    def _trials_to_compare(self, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
        """All trials; on a grid once those that began before have their points, else two would take the same."""
        if count_points(self._space, self._held) is None:
            return study.get_trials(deepcopy=False)
        return after_those_before(study, trial, lambda other: point_params(other).keys() >= self._space.keys())

    def _points_of(self, trials: Iterable[FrozenTrial]) -> Iterator[dict[str, Scalar]]:
        for trial in trials:
            params = point_params(trial)
            if params.keys() >= self._space.keys():
                yield from_optuna_params(self._space, params, trial.user_attrs)


def _store_of(trial: FrozenTrial) -> str:
    """The results file that a trial is recorded in; empty where it does not say."""
    return begun_from_attrs(trial.number, trial.state.name, {}, trial.user_attrs).store
