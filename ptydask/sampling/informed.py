"""The search that goes by the slopes of its trials, as a sampler of Optuna around the file's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from ptydask import proposals
from ptydask.model import BY_SAMPLER, BY_SLOPES, Choice, Direction, Distribution, Scalar
from ptydask.proposals import PastTrial, TrialEvidence
from ptydask.sampling.distributions import from_optuna_params, to_optuna_params
from ptydask.sampling.gaussian import after_those_before
from ptydask.sampling.wrapped import SamplerAround, is_lost, point_params
from ptydask.space import ranges
from ptydask.trial import slopes


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
        self._space = {**space, **{name: Choice((value,)) for name, value in (held or {}).items() if name in space}}
        self._optuna_space = dict(space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole point by the slopes, or what ``base`` draws where it is its turn, or no trial has ended well."""
        if trial.system_attrs.get("fixed_params"):  # somebody else's point, or a lost trial's, or a part of one
            return self.base.sample_relative(study, trial, search_space)
        trials = after_those_before(study, trial, lambda other: other.params.keys() >= self._space.keys())
        others = [other for other in trials if other.number != trial.number]
        direction: Direction = "maximize" if study.direction is StudyDirection.MAXIMIZE else "minimize"
        history = [past for past in map(_read_past, others) if past is not None]
        point = None
        if proposals.slopes_lead(history, direction):
            evidence = [told for told in map(self._read_evidence, others) if told is not None]
            running = [point for point in map(self._read_running, others) if point is not None]
            point = proposals.propose_point(self._space, evidence, running, direction=direction, seed=len(history))
        if point is None:
            return self.base.sample_relative(study, trial, search_space)
        trial.user_attrs["origin"] = BY_SLOPES  # Optuna's own copy of the trial, which nobody reads anew
        study._storage.set_trial_user_attr(trial._trial_id, "origin", BY_SLOPES)
        return to_optuna_params(self._optuna_space, point)

    def _read_evidence(self, trial: FrozenTrial) -> TrialEvidence | None:
        if trial.state not in (State.COMPLETE, State.PRUNED):
            return None
        params = self._read_params(trial, trial.params)
        gradient = slopes.from_attribute(trial.user_attrs)
        pruned = trial.state is State.PRUNED
        if params is None or (pruned and not gradient):
            return None
        return TrialEvidence.of_trial(params, trial.value, gradient, pruned=pruned)

    def _read_running(self, trial: FrozenTrial) -> dict[str, Scalar] | None:
        if trial.state not in (State.RUNNING, State.WAITING):
            return None
        return self._read_params(trial, point_params(trial))

    def _read_params(self, trial: FrozenTrial, params: Mapping[str, Any]) -> dict[str, Scalar] | None:
        """The point of a trial; None where it lacks a value, or has one outside of the space."""
        if not params.keys() >= self._space.keys():
            return None
        values = from_optuna_params(self._optuna_space, {name: params[name] for name in self._space}, trial.user_attrs)
        inside = all(ranges.contains(dist, values[name]) for name, dist in self._space.items())
        return values if inside else None


def _read_past(trial: FrozenTrial) -> PastTrial | None:
    """Who chose a trial's point, as far as that counts.

    None where it has no point yet, where it was lost and is tried again, and where it is another study's.
    """
    if is_lost(trial) or not point_params(trial) or "imported" in trial.user_attrs:
        return None
    # A sampler of Optuna signs nothing.
    origin = trial.user_attrs.get("origin", BY_SAMPLER)
    return PastTrial(origin, trial.value if trial.state is State.COMPLETE else None, trial.state.is_finished())
