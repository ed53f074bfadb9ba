"""Importances of parameters by ranks, of Optuna's evaluator, without what else takes Optuna seconds."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Container, Sequence
from threading import get_ident
from types import ModuleType
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from ptydask.analysis.data import StudyData
from ptydask.analysis.rehydrate import create_empty_study, frozen_trials

_IMPORTANCE, _SCIKIT_LEARN = "optuna.importance", "sklearn"


def compute_ped_anova(data: StudyData) -> dict[str, float]:
    """Parameter -> its importance by PED-ANOVA, the largest first; they add up to 1.

    Raises ValueError and OverflowError for values that Optuna has no number for.
    """
    study = create_empty_study(data.meta, _TrialsAsTheyAre(frozen_trials(data)))
    importance = _import_importance()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = importance.PedAnovaImportanceEvaluator()
        shares: dict[str, float] = importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}


class _TrialsAsTheyAre(InMemoryStorage):
    """Optuna's own copies each trial deeply when it is added, the distributions of its parameters too."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._as_they_are = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._as_they_are if states is None or trial.state in states]


def _import_importance() -> Any:
    """``optuna.importance``; where nobody has imported it yet, a module for this purpose, without scikit-learn.

    Its import takes a second, for evaluators that are not used here. Optuna does without it where it is not installed,
    and then those evaluators raise: so the module is forgotten, and whoever imports it later has a whole one.

    The import must fail: with a module in its place, as PtyRAD is given one by the engine's ``without_clustering``,
    the evaluators would be made of it.
    """
    if _IMPORTANCE in sys.modules or _SCIKIT_LEARN in sys.modules:
        return importlib.import_module(_IMPORTANCE)
    hidden = _HiddenInThisThread(_SCIKIT_LEARN)
    by_name = vars(optuna).get("importance")  # which imports the module at its first use
    sys.meta_path.insert(0, hidden)
    try:
        return importlib.import_module(_IMPORTANCE)
    finally:
        sys.meta_path.remove(hidden)
        if by_name is not None:
            vars(optuna)["importance"] = by_name
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{_IMPORTANCE}.")]:
            del sys.modules[name]


class _HiddenInThisThread:
    """A finder by which a package is as if it were not installed, for the thread that made it."""

    def __init__(self, package: str) -> None:
        self._package, self._thread = package, get_ident()

    def find_spec(self, name: str, _path: Any = None, _target: ModuleType | None = None) -> None:
        if name == self._package and get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is not needed here", name=name)
