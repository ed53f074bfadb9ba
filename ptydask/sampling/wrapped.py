"""What samplers around another sampler have in common: all that they do not decide is passed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from ptydask.model import Reason


class SamplerAround(BaseSampler):
    """A sampler that asks ``base``, and says something else where it knows better."""

    def __init__(self, base: BaseSampler) -> None:
        self.base = base

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """That of ``base``."""
        return self.base.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What ``base`` draws."""
        return self.base.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What ``base`` draws."""
        return self.base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Passed on."""
        self.base.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: State, values: Sequence[float] | None
    ) -> None:
        """Passed on."""
        self.base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Passed on."""
        self.base.reseed_rng()


def point_params(trial: FrozenTrial) -> dict[str, Any]:
    """What Optuna has of a point: of a trial that waits, or has just begun, what it was enqueued with."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a trial ended by no doing of its parameters."""
    return trial.state is State.FAIL and trial.user_attrs.get("reason") in (Reason.LOST, Reason.INTERRUPTED)
