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
from ptydask.space.nearest_point import count_points, nearest_new_point, point_key
from ptydask.trial.reconcile import begun_from_attrs


class PointsTaken:
    """The points of one study's trials. A trial that has ended never changes: what it had is read once.

    Keep one from trial to trial, as there may be ten thousand of them.
    """

    def __init__(self, space: Mapping[str, Distribution]) -> None:
        self._space = dict(space)
        self._read: set[int] = set()
        """Numbers of trials that have ended, and are in the following."""
        self._keys: set[frozenset[object]] = set()
        self._lost: dict[str, set[frozenset[object]]] = {}
        """By results file, the points of those that were lost."""

    def holds(self, point: Mapping[str, Scalar], trials: Iterable[FrozenTrial], store: str, besides: int) -> bool:
        """Whether one of ``trials``, all of the study's, has ``point``, trial ``besides`` left out.

        What a trial of another results file than ``store`` was lost with does not count.
        """
        key = point_key(self._space, point)
        held = False
        for trial in [trial for trial in trials if trial.number not in self._read]:
            if trial.state.is_finished():
                self._add(trial)
            elif trial.number != besides:
                held = held or key == self._key_of(trial)
        return held or key in self._keys or key in self._lost.get(store, ())

    def _add(self, trial: FrozenTrial) -> None:
        self._read.add(trial.number)
        key = self._key_of(trial)
        if key is not None:
            (self._lost.setdefault(_store_of(trial), set()) if is_lost(trial) else self._keys).add(key)

    def _key_of(self, trial: FrozenTrial) -> frozenset[object] | None:
        point = read_whole_point(self._space, trial)
        return None if point is None else point_key(self._space, point)


def read_whole_point(space: Mapping[str, Distribution], trial: FrozenTrial) -> dict[str, Scalar] | None:
    """The values of a trial; None where it has not all of them."""
    params = point_params(trial)
    return from_optuna_params(space, params, trial.user_attrs) if params.keys() >= space.keys() else None


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
        trials, store = self._trials_to_compare(study, trial), _store_of(trial)
        if not self._taken.holds(wanted, trials, store, trial.number):
            return drawn
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
        return (point for trial in trials if (point := read_whole_point(self._space, trial)) is not None)


def _store_of(trial: FrozenTrial) -> str:
    """The results file that a trial is recorded in; empty where it does not say."""
    return begun_from_attrs(trial.number, trial.state.name, {}, trial.user_attrs).store
