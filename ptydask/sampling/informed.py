"""The search that goes by the slopes of its trials: a sampler and a pruner of Optuna around the file's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from ptydask import proposals
from ptydask.distributions import Choice, Distribution
from ptydask.model import BY_SAMPLER, BY_SLOPES, GUESSED, NEAR_VALUES, OWN_VALUES, Direction, Scalar
from ptydask.proposals import PastTrial, TrialEvidence
from ptydask.sampling.distributions import from_optuna_params, to_optuna_params
from ptydask.sampling.gaussian import after_those_before
from ptydask.sampling.wrapped import SamplerAround, is_lost, point_params
from ptydask.space import ranges
from ptydask.trial import slopes

_JUDGED = (OWN_VALUES, NEAR_VALUES, GUESSED, BY_SAMPLER, BY_SLOPES)
"""Origins of trials that may end early by the slopes' word."""


class InformedSampler(SamplerAround):
    """Points by :func:`ptydask.proposals.propose_point`, in turns with ``base``.

    Trials that begin together get their points one after the other, in the order of their numbers, so that each knows
    of those before. They follow from the trials alone: a study that goes on comes to the same ones. ``held`` are
    parameters that keep one value.
    """

    def __init__(
        self, base: BaseSampler, space: Mapping[str, Distribution], held: Mapping[str, Scalar] | None = None
    ) -> None:
        super().__init__(base)
        self._trials = _TrialReader(space, held or {})

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole point by the slopes, or what ``base`` draws where it is its turn, or no trial has ended well."""
        if trial.system_attrs.get("fixed_params"):  # somebody else's point, or a lost trial's, or a part of one
            return self.base.sample_relative(study, trial, search_space)
        space, direction = self._trials.space, _direction_of(study)
        trials = after_those_before(study, trial, lambda other: other.params.keys() >= space.keys())
        others = [other for other in trials if other.number != trial.number]
        history = [past for past in map(_read_past, others) if past is not None]
        point = None
        if proposals.slopes_lead(history, direction):
            evidence = [told for told in map(self._trials.read_evidence, others) if told is not None]
            running = [point for point in map(self._trials.read_running, others) if point is not None]
            point = proposals.propose_point(space, evidence, running, direction=direction, seed=len(history))
        if point is None:
            return self.base.sample_relative(study, trial, search_space)
        trial.user_attrs["origin"] = BY_SLOPES  # Optuna's own copy of the trial, which nobody reads anew
        study._storage.set_trial_user_attr(trial._trial_id, "origin", BY_SLOPES)
        return self._trials.to_optuna(point)


class InformedPruner(BasePruner):
    """Ends a trial that the slopes lead away from (:func:`ptydask.proposals.has_told_enough`); others as ``base`` does.

    A point that somebody asked for by name is left to ``base``, as is one of an earlier study, whose whole trials know
    better than slopes half-way. One that the slopes chose is not ended by ``base``:
    what is best in the end may not be so half-way, and no point is tried twice. It counts in the comparisons of
    ``base``.
    """

    def __init__(
        self,
        base: BasePruner,
        space: Mapping[str, Distribution],
        held: Mapping[str, Scalar] | None = None,
        iterations: int | None = None,
        trials: int | None = None,
    ) -> None:
        self.base, self._study_length = base, trials
        self._trials = _TrialReader(space, held or {})
        self._judged_after = proposals.judged_after(iterations)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether ``trial`` is to end now."""
        verdict = self.base.prune(study, trial)  # always: Hyperband notes what the trial's peers are compared with
        origin = trial.user_attrs.get("origin", BY_SAMPLER)
        if trial.last_step == self._judged_after and origin in _JUDGED and self._has_told_enough(study, trial):
            return True
        return bool(verdict and origin != BY_SLOPES)

    def _has_told_enough(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        gradient = slopes.from_attribute(trial.user_attrs)
        params = self._trials.read_point(trial)
        if not gradient or params is None:
            return False
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        left = None if self._study_length is None else self._study_length - len(others) - 1
        enough: bool = proposals.has_told_enough(
            self._trials.space,
            [told for told in map(self._trials.read_evidence, others) if told is not None],
            TrialEvidence.of_trial(params, None, gradient, pruned=True),
            relative_decrease=trial.user_attrs[slopes.ATTRIBUTE]["relative_decrease"],
            under_way=1 + sum(other.state is State.RUNNING for other in others),
            left=left,
            direction=_direction_of(study),
            seed=trial.number,
        )
        return enough


class _TrialReader:
    """What trials of Optuna are to the proposals: points with the parameters' own values, and what came of them."""

    def __init__(self, space: Mapping[str, Distribution], held: Mapping[str, Scalar]) -> None:
        self.space = {**space, **{name: Choice((value,)) for name, value in held.items() if name in space}}
        self._optuna_space = dict(space)

    def to_optuna(self, point: Mapping[str, Scalar]) -> dict[str, Any]:
        return to_optuna_params(self._optuna_space, point)

    def read_evidence(self, trial: FrozenTrial) -> TrialEvidence | None:
        if trial.state not in (State.COMPLETE, State.PRUNED):
            return None
        params = self.read_point(trial)
        gradient = slopes.from_attribute(trial.user_attrs)
        pruned = trial.state is State.PRUNED
        if params is None or (pruned and not gradient):
            return None
        return TrialEvidence.of_trial(params, trial.value, gradient, pruned=pruned)

    def read_running(self, trial: FrozenTrial) -> dict[str, Scalar] | None:
        if trial.state not in (State.RUNNING, State.WAITING):
            return None
        return self.read_point(trial)

    def read_point(self, trial: FrozenTrial) -> dict[str, Scalar] | None:
        """The point of a trial; None where it lacks a value, or has one outside of the space."""
        params = point_params(trial)
        if not params.keys() >= self.space.keys():
            return None
        values = from_optuna_params(self._optuna_space, {name: params[name] for name in self.space}, trial.user_attrs)
        inside = all(ranges.contains(dist, values[name]) for name, dist in self.space.items())
        return values if inside else None


def _direction_of(study: optuna.Study) -> Direction:
    return "maximize" if study.direction is StudyDirection.MAXIMIZE else "minimize"


def _read_past(trial: FrozenTrial) -> PastTrial | None:
    """Who chose a trial's point, as far as that counts.

    None where it has no point yet, where it was lost and is tried again, and where it is another study's.
    """
    if is_lost(trial) or not point_params(trial) or "imported" in trial.user_attrs:
        return None
    # A sampler of Optuna signs nothing.
    origin = trial.user_attrs.get("origin", BY_SAMPLER)
    return PastTrial(origin, trial.value if trial.state is State.COMPLETE else None, trial.state.is_finished())
