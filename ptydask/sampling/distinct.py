"""No point twice: around any sampler, one that takes the nearest new point where the sampler gives an old one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from ptydask.distributions import Distribution
from ptydask.sampling.distributions import from_optuna_params, to_optuna, to_optuna_params
from ptydask.sampling.gaussian import after_those_before
from ptydask.sampling.wrapped import SamplerAround, is_lost, point_params
from ptydask.space.nearest_point import count_points, nearest_new_point, point_key
from ptydask.trial.reconcile import begun_from_attrs

Keys = set[frozenset[object]]
"""Points, as :func:`point_key` tells them apart."""


class PointsTaken:
    """The points of one study's trials. A trial that has ended never changes: what it had is read once.

    Keep one from trial to trial, as there may be ten thousand of them.
    """

    def __init__(self, space: Mapping[str, Distribution]) -> None:
        self._space = dict(space)
        self._read: set[int] = set()
        """Numbers of trials that have ended, and are in the following; beside those of the first ``_all_read``."""
        self._all_read = 0
        self._began: Keys = set()
        """Of all but those that were lost."""
        self._lost: dict[str, Keys] = {}
        """Of those that were, by results file."""
        self._by_store: dict[str, Keys] = {}

    def sets_for(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> tuple[list[Keys], list[Keys]]:
        """What ``trial`` is not to repeat: points of the other trials of the study, and of its own results file.

        ``trials`` are those of the study, all of them, by number.
        Each in several sets, which belong to this object. What a trial of another results file was lost with was not
        run there, and is not among the former.
        """
        store, began, own = _store_of(trial), Keys(), Keys()
        while self._all_read in self._read:
            self._read.remove(self._all_read)
            self._all_read += 1
        for other in [other for other in trials[self._all_read :] if other.number not in self._read]:
            key = self._key_of(other)
            if other.state.is_finished():
                self._read.add(other.number)
            if key is None or other.number == trial.number:
                continue
            if other.state.is_finished():
                self._by_store.setdefault(_store_of(other), Keys()).add(key)
                (self._lost.setdefault(_store_of(other), Keys()) if is_lost(other) else self._began).add(key)
            else:
                began.add(key)
                own |= {key} if _store_of(other) == store else Keys()
        none = Keys()
        return [began, self._began, self._lost.get(store, none)], [own, self._by_store.get(store, none)]

    def _key_of(self, trial: FrozenTrial) -> frozenset[object] | None:
        """None for a trial that has not all values."""
        params = point_params(trial)
        if not params.keys() >= self._space.keys():
            return None
        return point_key(self._space, from_optuna_params(self._space, params, trial.user_attrs))


class DistinctSampler(SamplerAround):
    """``base``, whose points are drawn whole before Optuna has any value of them, and moved where they are old ones.

    Old are the points of all other trials of the study that have ended, run or wait; where nothing else is left, those
    of the trial's own results file alone; where nothing is left at all, ``base`` has its way. ``held`` are parameters
    that keep what ``base`` gives them. ``base`` draws what it would without this one, down to its random numbers.
    """

    def __init__(
        self,
        base: BaseSampler,
        space: Mapping[str, Distribution],
        *,
        held: Collection[str] = (),
        seed: int = 0,
        taken: PointsTaken | None = None,
    ) -> None:
        super().__init__(base)
        self._space, self._held, self._seed = dict(space), frozenset(held), seed
        self._distributions = {name: to_optuna(dist) for name, dist in space.items()}
        self._base_space: dict[str, BaseDistribution] = {}
        self._taken = PointsTaken(space) if taken is None else taken

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
        key = point_key(self._space, wanted)
        for taken in self._taken.sets_for(trial, self._trials_to_compare(study, trial)):
            if not any(key in points for points in taken):  # this is all that most trials need
                return drawn
            point = nearest_new_point(self._space, wanted, Keys().union(*taken), fixed=keep, seed=self._seed)
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


def _store_of(trial: FrozenTrial) -> str:
    """The results file that a trial is recorded in; empty where it does not say."""
    return begun_from_attrs(trial.number, trial.state.name, {}, trial.user_attrs).store
